"""Views: as resize and then crop would give them, fast paths included."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from messy import encode, picture, rotated_jpeg
from shoal.errors import DecodeError
from shoal.images.views import model_input, thumbnail


def textured(height: int, width: int) -> Image.Image:
    """A picture with detail at every scale, as photographs have."""
    rng = np.random.default_rng(0)
    total = np.zeros((height, width, 3))
    for octave in range(2, 9):
        size = (max(1, height >> (8 - octave)), max(1, width >> (8 - octave)))
        noise = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)).astype(float) / 2 ** (octave - 1)
    return Image.fromarray(np.clip(total * 255 / total.max(), 0, 255).astype(np.uint8))


def resize_then_crop(data: bytes, size: int, shorter: int, method: Image.Resampling) -> np.ndarray:
    """The plain way, as torchvision's Resize and CenterCrop go."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    resized = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    image = image.resize(resized, method)
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size))).astype(int)


def view(
    data: bytes, size: int = 96, crop_fraction: float = 0.875, interpolation: str = "bicubic", resize: str = "crop"
):
    return model_input(data, size=size, crop_fraction=crop_fraction, interpolation=interpolation, resize=resize).pixels


@settings(max_examples=40)
@given(
    width=st.integers(1, 260),
    height=st.integers(1, 260),
    size=st.sampled_from([32, 96, 97]),
    crop_fraction=st.sampled_from([0.875, 0.9, 1.0]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_crop_equals_resize_and_then_crop(
    width: int, height: int, size: int, crop_fraction: float, interpolation: str
) -> None:
    data = encode(picture(1, height=height, width=width), "PNG")
    pixels = view(data, size, crop_fraction, interpolation).astype(int)
    wanted = resize_then_crop(data, size, int(size / crop_fraction), Image.Resampling[interpolation.upper()])
    assert pixels.shape == (size, size, 3)
    assert np.abs(pixels - wanted).max() <= 2


@settings(max_examples=20)
@given(width=st.integers(1, 200), height=st.integers(1, 200))
def test_squash_equals_a_plain_resize(width: int, height: int) -> None:
    image = picture(2, height=height, width=width)
    pixels = view(encode(image, "PNG"), size=64, resize="squash")
    assert np.abs(pixels.astype(int) - np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (643, 580), (1025, 771), (2003, 1501)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_at_reduced_scale_stays_close_to_a_full_decode(width: int, height: int, progressive: bool) -> None:
    data = encode(textured(height, width), "JPEG", quality=90, progressive=progressive)
    pixels = view(data, size=224).astype(int)
    wanted = resize_then_crop(data, 224, 256, Image.Resampling.BICUBIC)
    assert np.abs(pixels - wanted).mean() < 2
    # Nothing is shifted: a shift by half a pixel to any side fits worse.
    for axis in (0, 1):
        shifted = (wanted + np.roll(wanted, 1, axis)) / 2
        inner = np.s_[2:-2, 2:-2]
        assert np.abs(pixels - wanted)[inner].mean() < np.abs(pixels - shifted)[inner].mean()


def test_a_rotated_image_is_seen_upright() -> None:
    upright, turned = rotated_jpeg(3, 1), rotated_jpeg(3, 6)
    assert (
        np.abs(np.rot90(view(upright, crop_fraction=1.0), -1).astype(int) - view(turned, crop_fraction=1.0)).mean() < 1
    )


def test_large_drawings_are_reduced_first() -> None:
    data = encode(textured(1500, 2100), "BMP")
    pixels = view(data).astype(int)
    wanted = resize_then_crop(data, 96, 109, Image.Resampling.BICUBIC)
    assert np.abs(pixels - wanted).mean() < 1


def test_what_cannot_be_decoded_is_said() -> None:
    for act in (view, lambda data: thumbnail(data, 64)):
        with pytest.raises(DecodeError, match="empty file"):
            act(b"")


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (33, 20), (3000, 2), (1, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_thumbnail_has_its_longest_side(width: int, height: int, kind: str) -> None:
    small = thumbnail(encode(picture(4, height=height, width=width), kind), 100)
    assert small.mode == "RGB"
    assert max(small.size) == 100
    assert min(small.size) == max(1, round(100 * min(width, height) / max(width, height)))


def test_a_thumbnail_is_upright_and_says_nothing_of_where() -> None:
    small = thumbnail(rotated_jpeg(5, 6), 32)
    assert small.size == (24, 32)
    assert "exif" not in small.info
    assert not small.getexif()
