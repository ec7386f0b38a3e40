"""Convolutions of few pixels: the same numbers as torch's, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shoal.embed import architectures
from shoal.train import few_pixels


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (1, 3), (4, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_convolution(kernel: int, stride: int, sides: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, kernel, stride, kernel // 2, bias=bias).double()
    changed = few_pixels.convert(nn.Sequential(copy.deepcopy(plain)))
    assert type(changed[0]) is few_pixels.Convolution
    assert changed.state_dict().keys() == {f"0.{name}" for name in plain.state_dict()}
    images = torch.randn(few_pixels.LEAST_IMAGES, 5, *sides, dtype=torch.double).requires_grad_()
    expected, found = plain(images), changed(images)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [images, *plain.parameters()])
    given = torch.autograd.grad((found * weights).sum(), [images, *changed.parameters()])
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_others_are_left_as_they_are() -> None:
    kinds = [
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3),  # one pixel would be too few for it
    ]
    assert [type(layer) for layer in few_pixels.convert(nn.Sequential(*kinds))] == [nn.Conv2d] * len(kinds)


def test_an_encoder_gives_the_same_and_learns_the_same() -> None:
    torch.manual_seed(0)
    plain = architectures.build("resnet50v2").double()
    changed = few_pixels.convert(copy.deepcopy(plain))
    images = torch.randn(few_pixels.LEAST_IMAGES, 3, 32, 32, dtype=torch.double)
    for network in (plain, changed):
        network.train()(images).square().sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), changed.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-6, atol=1e-9, msg=name)
    torch.testing.assert_close(changed.eval()(images), plain.eval()(images), rtol=1e-6, atol=1e-9)
