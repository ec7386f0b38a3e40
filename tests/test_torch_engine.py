"""Which precision an encoder in torch runs in, tried on the CPU with the halves of a GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shoal.encoder.networks import Encoder
from shoal.encoder.probes import probe_images
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.torch_engine import TorchEngine, native_halves

HALVES = (torch.float16, torch.bfloat16)


class Inner(nn.Module):
    """A convolution and a product with what `change` makes of it: features [n, 8]."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.change = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8), change

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(self.change(self.first(images).mean(dim=(2, 3))))
        return found


def as_it_is(rows: Tensor) -> Tensor:
    return rows


def large_within(rows: Tensor) -> Tensor:
    """Beyond what fp16 holds, and within what bf16 does."""
    return (rows * 1e6) / 1e6


def small_differences(rows: Tensor) -> Tensor:
    """Lost beside a number that is too large for fp16, and for the 8 bits that bf16 keeps of it."""
    return (rows + 1e5) - 1e5


def no_numbers(rows: Tensor) -> Tensor:
    return rows * float("nan")


def engine(change: Callable[[Tensor], Tensor], halves: tuple[torch.dtype, ...] | None) -> TorchEngine:
    spec = EncoderSpec(
        backbone="inner",
        architecture="inner",
        features="default",
        weights_sha256=64 * "0",
        weights_source="drawn",
        licence="none",
        dim=8,
        size=32,
        crop_fraction=1.0,
        interpolation="bicubic",
        resize="crop",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    return TorchEngine(Encoder(Inner(change), "default").eval(), spec, "cpu", halves)


@pytest.mark.parametrize(
    ("change", "precision"),
    [(as_it_is, "fp16"), (large_within, "bf16"), (small_differences, "fp32"), (no_numbers, "fp32")],
)
def test_the_first_precision_that_gives_the_features_is_taken(
    change: Callable[[Tensor], Tensor], precision: str
) -> None:
    found = engine(change, HALVES)
    assert found.name == f"torch cpu {precision}"
    pixels = probe_images(32)
    wanted = engine(change, ()).infer(pixels)
    np.testing.assert_allclose(found.infer(pixels), wanted, rtol=0, atol=0.02 * np.abs(wanted).max())


def test_the_cpu_runs_torch_in_single_precision() -> None:
    assert engine(as_it_is, None).name == "torch cpu fp32"
    assert native_halves("cpu") == ()
    assert native_halves("mps") == (torch.float16,)
