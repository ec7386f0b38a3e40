"""Training with several processes, as torchrun starts them: one leads and writes, the others follow it step by step."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module

import torch
from torch import distributed

from shoal.encoder.engines import resolve_device
from shoal.train.gather import rank, world_size

PATIENCE = timedelta(hours=24)  # while one process lists the images or makes the report, the others wait
END = -1


def is_launched() -> bool:
    """Were we started by torchrun as one of several?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_leader() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def together(device: str) -> Iterator[torch.device]:
    """Join the other processes, if there are any, while the block runs; yields the device of this one."""
    kind = resolve_device(device)
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if not is_launched():
        yield place
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    _join(place)
    try:
        yield place
        _meet(place)
    finally:
        _leave()


def _join(place: torch.device) -> None:
    # Its functions have the group of all processes as a default, looked up as it is imported. Imported later, as by
    # DistributedDataParallel, it would hold the group, and with it threads, until the interpreter ends. A thread that
    # then lets go of a tensor ends the process by signal 6.
    import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)


def _meet(place: torch.device) -> None:
    """Wait for the others: to one that is still joining, or listening, somebody gone is an error."""
    everybody = torch.ones(1, device=place)
    distributed.all_reduce(everybody)
    assert int(everybody) == world_size()


def _leave() -> None:
    gc.collect()  # DistributedDataParallel holds the group too, and is in a circle of references
    distributed.destroy_process_group()


def call(number: int, device: torch.device) -> None:
    """Leader: tell the others to begin piece of work `number` with us (END: that there is no more)."""
    if world_size() > 1:
        distributed.broadcast(torch.tensor([number], device=device), 0)


def follow(work: Sequence[Callable[[], object]], device: torch.device) -> None:
    """Others: do the pieces of `work` that the leader calls for, until it says that there is no more."""
    assert rank() > 0
    while True:
        number = torch.zeros(1, dtype=torch.long, device=device)
        distributed.broadcast(number, 0)
        if int(number) == END:
            return
        work[int(number)]()
