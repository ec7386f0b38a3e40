"""Views against PIL, torchvision's formulas and literal geometry; the same draws give the same views."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from shoal.train import colour, draws, geometry
from shoal.train.config import VIEW_SETS, ViewConfig
from shoal.train.views import Views

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def random(seed: int = 0) -> torch.Generator:
    return draws.generator("cpu", seed, "test")


def pictures(count: int = 6, size: int = 24, seed: int = 0) -> Tensor:
    """uint8 [count, 3, size, size] with structure."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def as_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("kind", VIEW_SETS)
def test_views_are_given_by_their_draws_alone(kind: str) -> None:
    views = Views(ViewConfig(kind=kind), 16, MEAN, STD)
    torch.manual_seed(0)
    one = views(pictures(), random())
    torch.manual_seed(1)
    assert torch.equal(views(pictures(), random()), one)
    assert one.shape == (6, 3, 16, 16)
    assert one.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(one).all()
    if kind != "centre":
        assert not torch.equal(views(pictures(), random(1)), one)


@pytest.mark.parametrize("kind", VIEW_SETS)
def test_views_keep_within_the_colours_there_are(kind: str) -> None:
    views = Views(ViewConfig(kind=kind, blur_chance=0.5), 24, MEAN, STD)
    coloured = views.coloured(pictures(32), random())
    assert coloured.min() >= -1e-6
    assert coloured.max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", VIEW_SETS)
def test_each_image_has_draws_of_its_own(kind: str) -> None:
    if kind == "centre":
        return
    views = Views(ViewConfig(kind=kind), 24, MEAN, STD)
    same = pictures(1).expand(32, 3, 24, 24)
    made = views(same, random())
    assert len({tuple(row.flatten().tolist()) for row in made}) > (1 if kind == "flip" else 20)


def test_a_plain_view_is_the_normalised_centre() -> None:
    images = pictures()
    view = Views(ViewConfig(kind="centre"), 16, MEAN, STD)(images, random())
    expected = images[:, :, 4:20, 4:20].float() / 255
    expected = (expected - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(view, expected)


def test_sampling_with_the_identity_changes_nothing() -> None:
    images = pictures().float()
    torch.testing.assert_close(
        geometry.sample(images, geometry.identity(6, images.device), 24, "border"), images, atol=1e-3, rtol=0
    )


def test_composed_maps_are_one_after_another() -> None:
    outer, inner = (geometry.keras(5, 0.2, 0.15, (-0.3, 0.1), random(seed)) for seed in (0, 1))
    point = torch.tensor([0.3, -0.6])

    def mapped(maps: Tensor, points: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", maps[:, :, :2], points) + maps[:, :, 2]

    twice = mapped(inner, mapped(outer, point.expand(5, 2)))
    torch.testing.assert_close(mapped(geometry.after(outer, inner), point.expand(5, 2)), twice)


def test_keras_views_stay_within_the_example_s_ranges() -> None:
    maps = geometry.keras(4000, 0.2, 0.15, (-0.3, 0.1), random())
    shift = maps[:, :, 2].abs()
    assert shift.max() <= 0.4  # of a side of length 2
    assert shift.max() > 0.39
    scale = maps[:, :, :2].norm(dim=1)  # of width and of height, whatever the rotation
    assert scale.min() >= 0.7 - 1e-5
    assert scale.max() <= 1.1 + 1e-5
    turned = torch.atan2(maps[:, 1, 0] / scale[:, 0], (maps[:, 0, 0] / scale[:, 0]).abs()).abs()
    assert math.degrees(turned.max()) <= 54 + 1e-3
    assert math.degrees(turned.max()) > 53
    assert 0.45 < float((torch.det(maps[:, :, :2]) < 0).float().mean()) < 0.55  # mirrored


def test_crops_have_the_area_and_lie_inside() -> None:
    maps = geometry.crops(4000, 1.0, (0.2, 1.0), (0.75, 4 / 3), random())
    width, height = maps[:, 0, 0].abs(), maps[:, 1, 1]
    assert (maps[:, 0, 2].abs() + width).max() <= 1 + 1e-6
    assert (maps[:, 1, 2].abs() + height).max() <= 1 + 1e-6
    area = width * height
    assert area.max() <= 1 + 1e-6
    assert area.min() > 0.19
    assert 0.55 < float(area.mean()) < 0.62


def test_quarter_turns_are_exact() -> None:
    images = pictures(4).float()
    turned = geometry.quarter_turns(images).unflatten(0, (4, len(images)))
    for number in range(4):
        assert torch.equal(turned[number], images.rot90(number, (2, 3)))


def test_holes_are_squares_of_at_most_their_length() -> None:
    holes = geometry.holes(500, 32, 16, random())[:, 0]
    down, across = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.sum((1, 2)), down * across)
    assert int(down.max()) == 16
    assert int(down.min()) >= 1


def test_hue_turns_as_in_hsv() -> None:
    image = pictures(1)[0].float() / 255
    turned = colour.turn_hue(image[None], torch.tensor([0.07]))[0]
    for y in range(0, 24, 5):
        for x in range(0, 24, 5):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            expected = colorsys.hsv_to_rgb((hue + 0.07) % 1, saturation, value)
            torch.testing.assert_close(turned[:, y, x], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.3, 0.95, 1.4])
def test_colours_change_as_in_pil(factor: float) -> None:
    pixels = pictures(3)
    factors = torch.full((3,), factor)
    for made, enhance in (
        (colour.brighten, ImageEnhance.Brightness),
        (colour.contrasted, ImageEnhance.Contrast),
        (colour.saturated, ImageEnhance.Color),
    ):
        found = made(pixels.float() / 255, factors)
        expected = torch.stack([from_pil(enhance(as_pil(one)).enhance(factor)) for one in pixels])
        assert (found - expected).abs().max() < 2.5 / 255  # PIL rounds on the way


def test_equalise_and_autocontrast_are_pil_s() -> None:
    pixels = pictures(4)
    equal = colour.equalised(pixels.float() / 255, random())
    assert torch.equal(
        (equal * 255).round(), torch.stack([from_pil(ImageOps.equalize(as_pil(p))) * 255 for p in pixels]).round()
    )
    stretched = colour.autocontrasted(pixels.float() / 255, random())
    expected = torch.stack([from_pil(ImageOps.autocontrast(as_pil(one))) for one in pixels])
    assert (stretched - expected).abs().max() < 1.5 / 255


def test_one_colour_survives_every_operation() -> None:
    flat = torch.full((8, 3, 12, 12), 0.5)
    for operation in colour.PHOTOMETRIC:
        assert torch.isfinite(operation(flat, random())).all()
    every = torch.ones(8, len(colour.PHOTOMETRIC), dtype=torch.bool)
    assert torch.isfinite(colour.augmented(flat, every, random())).all()


def test_sharpness_blends_with_pil_s_smoothing() -> None:
    pixels = pictures(1)
    smooth = from_pil(as_pil(pixels[0]).filter(ImageFilter.SMOOTH))
    image = pixels[0].float() / 255
    factor = float(draws.uniform(1, *colour.ENHANCE, random()))
    found = colour.sharpened(image[None], random())[0]
    assert (found - (smooth + factor * (image - smooth))).abs().max() < 1.5 / 255


def test_solarise_and_posterise_draw_their_strength() -> None:
    image = pictures(1).float() / 255
    threshold = float(draws.uniform(1, 0, 256 / 255, random()))
    solar = colour.solarised(image, random())
    torch.testing.assert_close(solar, torch.where(image >= threshold, 1 - image, image))
    bits = int(draws.uniform(1, 4, 9, random()).floor())
    poster = (colour.posterised(image, random()) * 255).round().int()
    assert torch.equal(poster, (image * 255).round().int() & ~(2 ** (8 - bits) - 1))


def test_strong_views_use_four_operations_and_one_hole() -> None:
    none = Views(ViewConfig(kind="strong", operations=0, cutout=0), 24, (0, 0, 0), (1, 1, 1))
    made = none(pictures(), random())
    plain = pictures().float() / 255
    for view, image in zip(made, plain, strict=True):
        assert any(torch.allclose(view, one, atol=1e-5) for one in (image, image.flip(2)))
    cut = Views(ViewConfig(kind="strong", operations=0, cutout=16), 24, MEAN, STD)(pictures(), random())
    assert ((cut == 0).all(dim=1).flatten(1).sum(dim=1) > 0).all()  # the mean colour


def test_blur_keeps_the_mean_and_lessens_the_detail() -> None:
    image = pictures(8).float() / 255
    blurred = colour.blurred(image, (1.0, 2.0), 1.0, random())
    assert (blurred.mean((2, 3)) - image.mean((2, 3))).abs().max() < 0.03
    assert (blurred.var((2, 3)) < image.var((2, 3))).all()


def test_torch_s_own_random_numbers_stay_where_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with draws.seeded(torch.device("cpu"), 0, "layers"):
        torch.rand(7)
    Views(ViewConfig(), 16, MEAN, STD)(pictures(), random())
    assert torch.equal(torch.rand(3), expected)
