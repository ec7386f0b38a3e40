"""Animations and grounds: what a person would take for the picture is what is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from messy import encode, picture, pixels
from shoal.images.decode import decode, decode_scaled
from shoal.images.limits import MOST_FRAMES

RGB = pixels(1)
KINDS: dict[str, dict[str, Any]] = {
    "GIF": {},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "TIFF": {},
}


def difference(image: Image.Image, wanted: np.ndarray) -> float:
    return float(np.abs(np.asarray(image).astype(float) - wanted).mean())


def animation(kind: str, frames: list[Image.Image]) -> bytes:
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", ["black", "white", "#336699"])
def test_the_first_frame_that_is_not_blank_is_shown(kind: str, colour: str) -> None:
    blank = Image.new("RGB", (64, 48), colour)
    decoded = decode_scaled(animation(kind, [blank, blank.copy(), picture(1), picture(2)]))
    assert difference(decoded.image, RGB) < 8
    assert "the first that is not blank" in (decoded.note or "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_frame_that_shows_something_is_kept(kind: str) -> None:
    decoded = decode_scaled(animation(kind, [picture(1), picture(2)]))
    assert difference(decoded.image, RGB) < 8
    assert decoded.note == ("plane 1 of 2" if kind == "TIFF" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_of_blank_frames_only_the_first_is_shown(kind: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("#000", "#00f", "#f00")]
    decoded = decode_scaled(animation(kind, frames))
    assert np.asarray(decoded.image).max() <= 2
    assert decoded.note == ("plane 1 of 3" if kind == "TIFF" else None)


def test_a_broken_later_frame_does_not_lose_the_first() -> None:
    blank = Image.new("RGB", (64, 48))
    for kind in ("GIF", "TIFF"):
        data = animation(kind, [blank, picture(1)])
        assert decode(data[: len(data) - 700]).size == (64, 48)


def test_frames_that_are_looked_at_are_counted() -> None:
    blank = [Image.new("RGB", (2, 2), (number % 2, 0, 0)) for number in range(MOST_FRAMES + 5)]
    last = Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]] * 2, np.uint8))
    assert decode_scaled(animation("GIF", [*blank, last])).note is None


# -- the ground of transparent pictures ------------------------------------------------------------------------------


def drawn(colour: Any, kind: str = "RGBA", outline: Any = None) -> Image.Image:
    image = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((12, 6, 50, 42), fill=colour, outline=outline, width=2)
    return image.convert(kind) if kind == "RGBA" else image.convert("LA")


@pytest.mark.parametrize("kind", ["RGBA", "LA"])
@pytest.mark.parametrize("colour", ["white", "#f4f4f4", "#fffff0", (255, 255, 255, 120)])
def test_what_is_nearly_white_shows_on_dark(colour: Any, kind: str) -> None:
    decoded = decode_scaled(encode(drawn(colour, kind), "PNG"))
    levels = np.asarray(decoded.image.convert("L")).astype(int)
    assert abs(levels[24, 32] - levels[0, 0]) > 60
    assert decoded.note == "nearly white on transparency: laid on dark grey"


@pytest.mark.parametrize("colour", ["black", "red", "#888888", "#ffcc00", (0, 0, 0, 120)])
def test_everything_else_shows_on_white(colour: Any) -> None:
    decoded = decode_scaled(encode(drawn(colour), "PNG"))
    levels = np.asarray(decoded.image).astype(int)
    assert levels[0, 0].tolist() == [255] * 3
    assert np.abs(levels[24, 32] - 255).max() > 60
    assert decoded.note is None


def test_a_white_shape_with_a_thin_line_round_it_shows() -> None:
    levels = np.asarray(decode(encode(drawn("white", outline="black"), "PNG"))).astype(int)
    assert abs(int(levels[24, 32].mean()) - int(levels[0, 0].mean())) > 60 or levels.min() < 30


def test_kinds_of_white_icons_differ_once_they_are_laid_on_their_ground() -> None:
    square = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    ImageDraw.Draw(square).rectangle((12, 6, 50, 42), fill="white")
    disc = decode(encode(drawn("white"), "PNG"))
    assert difference(decode(encode(square, "PNG")), np.asarray(disc)) > 10


def test_nothing_drawn_is_white() -> None:
    for value in (0, 255):
        empty = Image.fromarray(np.dstack([np.full((8, 8, 3), value, np.uint8), np.zeros((8, 8), np.uint8)]))
        assert (np.asarray(decode(encode(empty, "PNG"))) == 255).all()
