"""Muon: what timm's does, at full precision; matrices made orthogonal; the rest as torch's AdamW steps it."""

from __future__ import annotations

import functools

import pytest
import timm.optim.muon as timm_muon
import torch
from torch import Tensor, nn

from shoal.train.muon import QUINTIC, ROUNDS, Muon, orthogonal


def literal(matrix: Tensor) -> Tensor:
    """The iteration as it is written: X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X."""
    one, three, five = QUINTIC
    x = matrix.double() / matrix.double().norm()
    for _ in range(ROUNDS):
        x = one * x + three * x @ x.T @ x + five * x @ x.T @ x @ x.T @ x
    return x


@pytest.mark.parametrize("shape", [(5, 30), (30, 5), (8, 8)])
def test_the_gram_matrix_s_iteration_is_the_literal_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonal(matrix)
    torch.testing.assert_close(found.double(), literal(matrix), rtol=1e-4, atol=1e-5)
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.3
    turned = orthogonal(1e6 * matrix)
    torch.testing.assert_close(turned, found, rtol=1e-3, atol=1e-4)  # how long the gradient is says nothing


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 7)), torch.zeros(3, 7))


def test_a_row_alone_is_stepped_as_by_adamw() -> None:
    ours, theirs = nn.Parameter(torch.ones(1, 4)), nn.Parameter(torch.ones(1, 4))
    own, other = Muon([ours], 0.1), torch.optim.AdamW([theirs], 0.1, (0.9, 0.95), weight_decay=0)
    for weight, optimiser in ((ours, own), (theirs, other)):
        gradients([weight], 0)
        optimiser.step()
    torch.testing.assert_close(ours, theirs)


def gradients(weights: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def fresh() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4, 3, 3), (5, 20), (6,)]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_steps_are_timm_s_at_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    precise = functools.partial(timm_muon.zeropower_via_newtonschulz, dtype=torch.float32)  # bfloat16, left alone
    monkeypatch.setattr(timm_muon, "zeropower_via_newtonschulz", precise)
    ours, theirs = fresh(), fresh()
    own = Muon(ours, 0.02, weight_decay=0.1)
    other = timm_muon.Muon(theirs, lr=0.02, weight_decay=0.1, ns_coefficients="original")
    for step in range(8):
        for weights, optimiser in ((ours, own), (theirs, other)):
            gradients(weights, step)
            optimiser.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_biases_are_stepped_as_by_adamw() -> None:
    ours, theirs = fresh()[2:], fresh()[2:]
    own = Muon(ours, 0.02, weight_decay=0.1, betas=(0.9, 0.95))
    other = torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.1, betas=(0.9, 0.95))
    for step in range(8):
        for weights, optimiser in ((ours, own), (theirs, other)):
            gradients(weights, step)
            optimiser.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
