"""A GPU that is not there: torch's fake tensors say they are on it, and refuse what the host waits for.

Fake tensors have shapes and devices but no numbers: to read one, to count what a mask leaves or to mix devices is an
error of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shoal.train.precision import Precision

GPU = torch.device("cuda", 0)
COPIES = {"aten::_to_copy", "aten::copy_"}


class OnGpu(torch.Generator):
    """A generator that says it is on a GPU; fake tensors ask it for no numbers."""

    device = GPU  # type: ignore[assignment]


class NoWaiting(TorchDispatchMode):
    """What has to do with the GPU is fake, all else real; the host may not wait for a copy from one to the other."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name == "aten::is_pinned":
            return True  # only where there is a GPU can memory be so
        if not any(one == GPU or isinstance(one, FakeTensor) for one in tree_leaves((args, kwargs))):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if func._schema.name in COPIES:
            source = args[1] if func._schema.name == "aten::copy_" else args[0]
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if waits and source.device.type == "cpu" and out.device == GPU:
                raise AssertionError(f"the host waits for a copy of {list(source.shape)} to the GPU")
        return out


@contextmanager
def on_gpu() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), NoWaiting():
        yield


def put(phase: Any) -> None:
    """What a phase of training keeps on its device is fake, on the GPU."""
    for name in ("network", "_keys", "result"):
        _put(getattr(phase, name, nn.Identity()))
    for holder, name in ((phase.kept, "queue"), (phase, "_weights")):
        if hasattr(holder, name):
            setattr(holder, name, torch.empty_like(getattr(holder, name), device=GPU))
    phase._precision, phase._device = Precision(GPU, torch.float32), GPU


def _put(network: nn.Module) -> None:
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty_like(tensor, device=GPU)
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if tensors is module._parameters else fake
