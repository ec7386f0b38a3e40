"""Checkpoints: safetensors for what is tensors, JSON for the rest; whole or not there; never pickle.

`last.json` names the file of tensors beside it. That file is written first and has a name of its own, so that a crash
between the two leaves the earlier pair. Random numbers need no state: they are made from the position (`draws`).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shoal import atomic, foreign
from shoal.errors import RunError
from shoal.typed import Between, Like

FORMAT_VERSION = 1
LAST, BEST = "last", "best"


Count = Annotated[int, Between(0)]


@dataclass(slots=True)
class Position:
    """How far a phase is: epochs and steps of the current epoch that are done, and what has been seen on the way."""

    epoch: Count = 0
    step: Count = 0
    best: float | None = None  # label-free measure of the best epoch; smaller is better, None where the last counts
    best_epoch: Count | None = None
    seconds: float = 0.0  # spent on the current epoch
    processor: float = 0.0  # seconds of processor time of it
    sums: dict[str, float] = field(default_factory=dict)  # of the current epoch's logged values
    facts: dict[str, Any] = field(default_factory=dict)  # of the phase itself, JSON values


@dataclass(frozen=True, slots=True)
class _Record:
    format_version: Count
    key: str
    tensors: Annotated[str, Like(re.compile(r"[a-z]+-[0-9]+-[0-9]+\.safetensors"), "NAME-EPOCH-STEP.safetensors")]
    position: Position


def save(
    folder: Path, name: str, key: str, position: Position, kept: nn.Module, optimiser: torch.optim.Optimizer | None
) -> None:
    """Write checkpoint `name`; `key` tells what was asked for."""
    tensors = {f"model/{path}": tensor for path, tensor in kept.state_dict().items()}
    tensors |= _optimiser_tensors(optimiser) if optimiser is not None else {}
    file = folder / f"{name}-{position.epoch:05d}-{position.step:07d}.safetensors"
    write_tensors(file, tensors)
    record = {"format_version": FORMAT_VERSION, "key": key, "tensors": file.name, "position": asdict(position)}
    atomic.write_json(folder / f"{name}.json", record)
    for older in folder.glob(f"{name}-*.safetensors"):
        if older != file:
            older.unlink()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with atomic.replacing(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises RunError if the file is not there or damaged."""
    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not readable: {error}; run the same shoal train again") from error
    return found


def restore(
    folder: Path, name: str, key: str, kept: nn.Module, optimiser: torch.optim.Optimizer | None
) -> Position | None:
    """Fill `kept` and `optimiser` from checkpoint `name` and return its position; None if there is none of that key.

    Raises:
        RunError: the checkpoint is damaged or of a newer version.
    """
    path = folder / f"{name}.json"
    try:
        record = foreign.read_json(path, _Record)
    except FileNotFoundError:
        return None
    except RunError as error:
        raise RunError(f"{path} is no readable checkpoint: {error} (delete {folder} to train anew)") from error
    if record.format_version > FORMAT_VERSION:
        raise RunError(f"{path} has format_version {record.format_version}; expected at most {FORMAT_VERSION}")
    if record.key != key:
        return None
    try:
        tensors = load_file(folder / record.tensors)
        kept.load_state_dict(
            {path.removeprefix("model/"): tensor for path, tensor in tensors.items() if path.startswith("model/")}
        )
        if optimiser is not None:
            _load_optimiser(optimiser, tensors)
        return record.position
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{path} is no readable checkpoint: {error} (delete {folder} to train anew)") from error


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimiser/{weight}/{name}": value
        for weight, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for path, tensor in tensors.items():
        if path.startswith("optimiser/"):
            _, weight, name = path.split("/")
            if tensor.ndim and tensor.shape != weights[int(weight)].shape:
                raise ValueError(f"{path} is {list(tensor.shape)}; expected {list(weights[int(weight)].shape)}")
            state.setdefault(int(weight), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
