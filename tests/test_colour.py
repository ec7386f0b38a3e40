"""Profiles: pictures are brought to sRGB, whatever their format, and those in it are left alone."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from messy import encode, encode_heic, picture, pixels
from profiles import grey_profile, in_srgb, ink_profile, rgb_profile
from shoal.images.colour import find_profile
from shoal.images.decode import decode
from tiffs import tiff

RGB = pixels(1)
SPACES = [("AdobeRGB", 2.2), ("ProPhoto", 1.8), ("Display P3", 2.2), ("sRGB", 1.0)]


def difference(image: Image.Image, wanted: np.ndarray) -> float:
    return float(np.abs(np.asarray(image).astype(float) - (wanted if wanted.ndim == 3 else wanted[..., None])).mean())


@pytest.mark.parametrize(("primaries", "gamma"), SPACES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_a_picture_is_brought_to_srgb(primaries: str, gamma: float, kind: str) -> None:
    profile = rgb_profile(primaries, gamma)
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 98, "subsampling": 0},
        "AVIF": {"quality": 98, "subsampling": "4:4:4"},
    }.get(kind, {})
    decoded = decode(encode(picture(1), kind, icc_profile=profile, **options))
    lossy = 4 if kind == "AVIF" else 2 if kind == "JPEG" else 1
    assert difference(decoded, in_srgb(RGB, primaries, gamma)) < lossy
    assert difference(decoded, RGB) > 3


@pytest.mark.parametrize(("primaries", "gamma"), SPACES)
def test_a_reduced_jpeg_is_brought_to_srgb_too(primaries: str, gamma: float) -> None:
    image = picture(1).resize((512, 384), Image.Resampling.BICUBIC)
    data = encode(image, "JPEG", quality=98, icc_profile=rgb_profile(primaries, gamma))
    wanted = in_srgb(np.asarray(image.resize((64, 48), Image.Resampling.BOX)), primaries, gamma)
    assert difference(decode(data, least_size=48), wanted) < 2


def test_all_agree_with_a_colour_library_on_deep_pictures() -> None:
    profile = rgb_profile("AdobeRGB", 2.2)
    wanted = in_srgb(RGB, "AdobeRGB", 2.2)
    for dtype, most in (("u2", 65535), ("f4", 1.0)):
        data = tiff((RGB / 255.0 * most).astype(dtype), photometric="rgb", iccprofile=profile)
        assert difference(decode(data), wanted) < 1


def test_transparent_pictures_are_converted_under_their_transparency() -> None:
    layer = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    layer[:8, :, 3] = 0
    data = encode(Image.fromarray(layer), "PNG", icc_profile=rgb_profile("AdobeRGB", 2.2))
    decoded = np.asarray(decode(data))
    assert (decoded[:8] == 255).all()
    assert difference(Image.fromarray(decoded[8:]), in_srgb(RGB[8:], "AdobeRGB", 2.2)) < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_greys(kind: str) -> None:
    grey = np.asarray(picture(1, "L"))
    data = encode(picture(1, "L"), kind, icc_profile=grey_profile(1.0))
    decoded = decode(data)
    lighter = np.asarray(decoded)[..., 0]
    assert difference(decoded, np.broadcast_to(in_srgb(np.dstack([grey] * 3), "sRGB", 1.0), (48, 64, 3))) < 2
    assert lighter.mean() > grey.mean() + 20


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
@pytest.mark.parametrize("least_size", [None, 24])
def test_inks(kind: str, least_size: int | None) -> None:
    image, profile = picture(1, "CMYK"), ink_profile()
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    decoded = decode(encode(image, kind, icc_profile=profile, **options), least_size=least_size)
    wanted = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert wanted is not None
    shown = wanted.resize(decoded.size, Image.Resampling.BOX)
    assert difference(decoded, np.asarray(shown)) < (2 if least_size is None else 6)
    assert difference(decoded, np.asarray(image.convert("RGB").resize(decoded.size))) > 5


def test_heic() -> None:
    image = picture(1).resize((256, 192), Image.Resampling.BICUBIC)
    image.info["icc_profile"] = rgb_profile("Display P3", 2.2)
    assert difference(decode(encode_heic(image)), in_srgb(np.asarray(image), "Display P3", 2.2)) < 5


def test_srgb_by_whatever_name_is_left_alone() -> None:
    assert find_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) is None
    assert find_profile(rgb_profile("sRGB", None, "c2")) is None
    assert find_profile(rgb_profile("AdobeRGB", None, "sRGB IEC61966-2.1")) is not None
    for kind in ("JPEG", "PNG"):
        plain, with_profile = (encode(picture(1), kind, icc_profile=icc) for icc in (None, rgb_profile("sRGB", None)))
        assert difference(decode(with_profile), np.asarray(decode(plain))) == 0


def test_a_broken_profile_is_ignored() -> None:
    whole = rgb_profile("AdobeRGB", 2.2)
    random = np.random.default_rng(0)
    for broken in (b"x", whole[:100], whole[:140], bytes(3000), b"\xff" * 500, grey_profile(1.0), ink_profile()):
        for kind in ("PNG", "TIFF", "JPEG", "WEBP"):
            options = {"lossless": True} if kind == "WEBP" else {}
            data = encode(picture(1), kind, icc_profile=broken, **options)
            assert difference(decode(data), RGB) < (5 if kind == "JPEG" else 0.01), (broken[:20], kind)
    for _ in range(100):
        broken = bytearray(whole)
        for place in random.integers(0, len(whole), 5):
            broken[place] = random.integers(0, 256)
        assert decode(encode(picture(1), "PNG", icc_profile=bytes(broken))).size == (64, 48)


def test_a_profile_in_several_parts_of_a_jpeg() -> None:
    profile = rgb_profile("AdobeRGB", 2.2)
    data = encode(picture(1), "JPEG", quality=98, subsampling=0)
    third = len(profile) // 3
    parts = [profile[:third], profile[third : 2 * third], profile[2 * third :]]
    segments = [
        b"\xff\xe2" + (len(part) + 16).to_bytes(2, "big") + b"ICC_PROFILE\0" + bytes((number + 1, 3)) + part
        for number, part in enumerate(parts)
    ]
    shuffled = data[:2] + segments[1] + segments[0] + segments[2] + data[2:]
    assert difference(decode(shuffled), in_srgb(RGB, "AdobeRGB", 2.2)) < 2


def test_a_profile_that_was_seen_before_is_known_at_once() -> None:
    profile = rgb_profile("sRGB", None)
    find_profile(profile)
    began = time.perf_counter()
    for _ in range(1000):
        find_profile(bytes(bytearray(profile)))
    assert time.perf_counter() - began < 0.5  # 1,000 times; some tens of microseconds each would be too many
