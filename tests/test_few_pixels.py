"""Convolutions of few pixels: the same numbers as torch's, forwards and backwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shoal.encoder import architectures
from shoal.train import dead_taps, few_pixels


@pytest.mark.parametrize(
    ("kernel", "padding"), [((1, 1), (0, 0)), ((3, 3), (1, 1)), ((5, 5), (2, 2)), ((1, 3), (0, 1)), ((3, 1), (2, 1))]
)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (1, 3), (4, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_convolution(
    kernel: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int], sides: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, kernel, stride, padding, bias=bias).double()
    images = torch.randn(6, 5, *sides, dtype=torch.double).requires_grad_()
    expected, found = plain(images), few_pixels.product(plain, images)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [images, *plain.parameters()])
    given = torch.autograd.grad((found * weights).sum(), [images, *plain.parameters()])
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_it_is_taken_for_many_images_of_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Conv2d(3, 4, 3, padding=1)
    changed = few_pixels.convert(nn.Sequential(copy.deepcopy(plain)))
    assert changed.state_dict().keys() == {f"0.{name}" for name in plain.state_dict()}
    taken: list[torch.Size] = []
    product = few_pixels.product
    monkeypatch.setattr(few_pixels, "product", lambda layer, x: (taken.append(x.shape), product(layer, x))[1])
    for shape in ((few_pixels.LEAST_IMAGES, 3, 2, 2), (few_pixels.LEAST_IMAGES, 3, 3, 2), (2, 3, 2, 2)):
        images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(changed(images), plain(images))
    assert [tuple(shape) for shape in taken] == [(few_pixels.LEAST_IMAGES, 3, 2, 2)]


def test_gradients_have_the_same_bits_every_time() -> None:
    """Weights that several pairs of pixels share have their gradients summed in one order, by however many threads."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3, padding=1)
    images = torch.randn(64, 64, 2, 2)
    weights = torch.randn(64, 64, 2, 2)
    first, *others = [
        torch.autograd.grad((few_pixels.product(layer, images) * weights).sum(), layer.weight)[0] for _ in range(30)
    ]
    assert all(torch.equal(first, other) for other in others)


def test_it_works_under_autocast_beside_the_guard_of_dead_taps() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 16, 3, 2, 1)
    changed = few_pixels.convert(nn.Sequential(copy.deepcopy(plain)))
    dead_taps.guard(changed)
    images = torch.randn(few_pixels.LEAST_IMAGES, 16, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = changed(images)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain(images), atol=0.05, rtol=0.05)
    found.float().sum().backward()
    gradient = changed[0].weight.grad
    assert gradient is not None
    assert gradient[:, :, 1, 1].abs().min() > 0
    assert gradient.flatten(2).count_nonzero() == 16 * 16  # the tap in the middle alone


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
