"""Decoding: right pixels for every common kind of image, a short reason for everything else."""

from __future__ import annotations

import functools
import io
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from messy import (
    OK,
    bomb_png,
    deep_png,
    encode,
    encode_heic,
    make_messy_folder,
    picture,
    pixels,
    png,
    rotated_jpeg,
    transparent_palette,
)
from profiles import rgb_profile
from shoal.errors import DecodeError
from shoal.images.decode import Header, decode, probe
from shoal.images.limits import MOST_HELD
from tiffs import tiff


def difference(image: Image.Image, wanted: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(np.asarray(image).astype(float) - wanted).mean())


KINDS = (
    *("JPEG", "progressive", "PNG", "PNG16", "GIF", "BMP", "TIFF", "LZW", "floats", "stack", "WEBP", "AVIF", "HEIC"),
    *("PPM", "PPM16", "JPEG2000", "J2K16", "ICO", "QOI"),
)


@functools.cache
def whole(kind: str) -> bytes:
    """A sound file of each kind."""
    image, deep = picture(12), pixels(12).astype(np.uint16) * 257
    made: dict[str, Callable[[], bytes]] = {
        "progressive": lambda: encode(image, "JPEG", progressive=True, icc_profile=rgb_profile("AdobeRGB", 2.2)),
        "PNG16": lambda: deep_png(12),
        "LZW": lambda: tiff(deep, photometric="rgb", compression="lzw", predictor=2, rowsperstrip=5),
        "floats": lambda: tiff(deep / 65535, photometric="rgb", compression="zlib", predictor=3, tile=(16, 16)),
        "stack": lambda: tiff(np.stack([deep[..., 0] * 0, deep[..., 0]]), photometric="minisblack"),
        "HEIC": lambda: encode_heic(image),
        "PPM16": lambda: b"P6 64 48 4095\n" + (deep >> 4).astype(">u2").tobytes(),
        "J2K16": lambda: bytes(imagecodecs.jpeg2k_encode(deep, level=0, codecformat="jp2", reversible=True)),
    }
    return made[kind]() if kind in made else encode(image, kind)


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("decode") / "messy"
    return folder, make_messy_folder(folder)


def test_every_kind_of_file_is_decoded_or_has_its_reason(messy: tuple[Path, dict[str, str]]) -> None:
    folder, expected = messy
    decided_elsewhere = ("link", "FIFO", "too large", "cannot be read")
    tried = 0
    for name, outcome in expected.items():
        if any(word in outcome for word in decided_elsewhere) or "%" in name:
            continue
        data = (folder / name).read_bytes()
        tried += 1
        if outcome == OK:
            image = decode(data)
            assert (image.mode, type(image)) == ("RGB", Image.Image), name
            continue
        with pytest.raises(DecodeError) as caught:
            decode(data)
        reason = str(caught.value)
        assert outcome.split(" (.")[0] in reason, name
        assert "\n" not in reason
        assert len(reason) < 200, name
    assert tried > 50


@pytest.mark.parametrize(
    ("kind", "options", "allowed"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("PPM", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG2000", {}, 1),
        ("JPEG", {"quality": 95, "subsampling": 0}, 2),
        ("AVIF", {"quality": 90}, 3),
    ],
)
def test_pixels_are_those_that_were_saved(kind: str, options: dict, allowed: float) -> None:
    assert difference(decode(encode(picture(1), kind, **options)), pixels(1)) <= allowed


def test_heic_is_read() -> None:
    data = encode_heic(picture(1))
    assert probe(data) == Header(64, 48, "HEIF")
    assert difference(decode(data), pixels(1)) < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("least_size", [None, 8])
def test_exif_orientation_is_as_pillow_turns_it(orientation: int, least_size: int | None) -> None:
    from PIL import ImageOps

    data = rotated_jpeg(3, orientation)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = decode(data, least_size=least_size)
    if least_size is None:
        assert difference(image, np.asarray(wanted)) == 0
    else:
        assert min(image.size) >= least_size
        assert difference(image.resize(wanted.size, Image.Resampling.BICUBIC), np.asarray(wanted)) < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_outside_jpeg(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encode(picture(3), kind, exif=exif, **options))
    assert difference(image, np.rot90(pixels(3), -1)) == 0


def test_broken_exif_is_no_reason_to_lose_an_image() -> None:
    for block in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40):
        data = encode(picture(4), "JPEG")
        app1 = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(block)) + b"Exif\0\0" + block
        assert decode(data[:2] + app1 + data[2:]).size == (64, 48)


def test_transparency_lies_on_white() -> None:
    layer = np.dstack([np.zeros((2, 3, 3), np.uint8), np.array([[0, 128, 255]] * 2, np.uint8)])
    values = np.asarray(decode(encode(Image.fromarray(layer), "PNG")))
    assert values[0].tolist() == [[255] * 3, [127] * 3, [0] * 3]


def test_transparent_palette_lies_on_white() -> None:
    image = transparent_palette()
    clear = np.asarray(image) == 0
    values = np.asarray(decode(encode(image, "PNG")))
    assert clear.any()
    assert (values[clear] == 255).all()
    assert difference(Image.fromarray(values[~clear]), np.asarray(image.convert("RGB"))[~clear]) == 0


def test_colour_key_lies_on_white() -> None:
    values = pixels(1).copy()
    values[:10] = (1, 2, 3)
    image = Image.fromarray(values)
    decoded = np.asarray(decode(encode(image, "PNG", transparency=(1, 2, 3))))
    assert (decoded[:10] == 255).all()
    assert (decoded[10:] == values[10:]).all()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        values = np.asarray(decode(encode(Image.fromarray(grey), kind)))
        assert difference(Image.fromarray(values[..., 0]), grey / 257) <= 0.5, kind
        assert (values[..., 0] == values[..., 2]).all()
    assert difference(decode(deep_png(2)), pixels(2)) <= 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-3.0, 9000.0)])
def test_floats_keep_their_shades(low: float, high: float) -> None:
    ramp = np.linspace(0, 1, 64 * 48).reshape(48, 64)
    values = (low + ramp * (high - low)).astype(np.float32)
    assert difference(decode(encode(Image.fromarray(values), "TIFF")).convert("L"), ramp * 255) < 1


def test_floats_that_are_not_finite_become_black() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    decoded = np.asarray(decode(encode(Image.fromarray(values), "TIFF")))[..., 0]
    assert decoded[0, 0] == decoded[1, 1] == 0
    assert decoded[2, 2] == 128


def test_cmyk_keeps_its_colours() -> None:
    for kind, options in (("JPEG", {"quality": 95, "subsampling": 0}), ("TIFF", {})):
        assert difference(decode(encode(picture(5, "CMYK"), kind, **options)), pixels(5)) < 4, kind


def test_first_frame_is_taken() -> None:
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(picture(6), kind, save_all=True, append_images=[picture(7)], **options)
        assert difference(decode(data), pixels(6)) < (6 if kind == "GIF" else 0.01), kind


@settings(max_examples=60)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    least_size=st.integers(1, 60),
    progressive=st.booleans(),
    subsampling=st.sampled_from([0, 1, 2]),
)
def test_reduced_scale_keeps_the_least_size(
    width: int, height: int, least_size: int, progressive: bool, subsampling: int
) -> None:
    image = picture(8, height=height, width=width)
    data = encode(image, "JPEG", progressive=progressive, subsampling=subsampling)
    decoded = decode(data, least_size=least_size)
    assert min(decoded.size) >= min(least_size, *image.size)
    assert any(decoded.size == (-(-width // divisor), -(-height // divisor)) for divisor in (1, 2, 4, 8))


def test_a_large_jpeg_is_reduced() -> None:
    data = encode(picture(9, height=800, width=1200), "JPEG", quality=95)
    reduced = decode(data, least_size=100)
    assert reduced.size == (150, 100)
    wanted = Image.open(io.BytesIO(data)).resize((150, 100), Image.Resampling.BOX)
    assert difference(reduced, np.asarray(wanted)) < 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("least_size", [None, 12])
def test_no_truncated_jpeg_passes(progressive: bool, least_size: int | None) -> None:
    data = encode(picture(10, height=50, width=70), "JPEG", progressive=progressive)
    for length in range(len(data) - 2):  # the last two bytes are the end marker: all pixels come before
        with pytest.raises(DecodeError):
            decode(data[:length], least_size=least_size)


@pytest.mark.parametrize("kind", KINDS)
def test_no_truncated_file_raises_anything_else(kind: str) -> None:
    data = whole(kind)
    for length in range(0, len(data), max(1, len(data) // 150)):
        try:
            decode(data[:length])
        except DecodeError as error:
            assert str(error)  # noqa: PT017  (either outcome is right here; no other exception is)


@settings(max_examples=250)
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_no_corruption_raises_anything_but_decode_error(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(whole(kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    for act in (probe, decode, lambda content: decode(content, least_size=10)):
        try:
            act(bytes(data))
        except DecodeError as error:
            assert str(error)  # noqa: PT017


@settings(max_examples=150)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"P6 "])
)
def test_any_bytes_raise_decode_error(tail: bytes, magic: bytes) -> None:
    try:
        decode(magic + tail)
    except DecodeError as error:
        assert str(error)  # noqa: PT017


def test_bombs_are_refused_by_their_header() -> None:
    for data in (bomb_png(), _enlarged_jpeg(), _enlarged_bmp()):
        for act in (probe, decode):
            with pytest.raises(DecodeError, match="too many pixels"):
                act(data)


def test_the_most_pixels_allowed_pass_the_probe() -> None:
    most = int(MOST_HELD // 13)
    assert probe(png(most // 10, 10, 8, 0, b"")).width == most // 10
    with pytest.raises(DecodeError, match=f"at most {most:,} of a PNG are decoded"):
        probe(png(most + 1, 1, 8, 0, b""))


def test_what_cannot_be_scaled_is_limited_by_what_it_holds() -> None:
    deep, plain = (png(10_000, 9_000, depth, 2, b"") for depth in (16, 8))
    assert probe(plain).width == 10_000
    for act in (probe, decode):
        with pytest.raises(DecodeError, match="too many pixels"):
            act(deep)


def test_probe_reads_sizes_before_rotation() -> None:
    assert probe(rotated_jpeg(1, 6)) == Header(64, 48, "JPEG")
    assert decode(rotated_jpeg(1, 6)).size == (48, 64)
    for kind, name in (("PNG", "PNG"), ("WEBP", "WebP"), ("GIF", "GIF"), ("AVIF", "AVIF"), ("TIFF", "TIFF")):
        assert probe(encode(picture(1), kind)) == Header(64, 48, name)


def test_warnings_of_pillow_stay_inside() -> None:
    truncated_tag = bytearray(encode(picture(1), "TIFF"))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in (bytes(truncated_tag[:-40]), _large_png(), _apng_without_frames()):
            threads = [threading.Thread(target=_try, args=(data,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert [str(warning.message) for warning in caught] == []
    assert list(warnings.filters) == before


def _try(data: bytes) -> None:
    try:
        probe(data)
        decode(data[:100_000])
    except DecodeError:
        return


def _large_png() -> bytes:
    """More pixels than Pillow warns of, fewer than it refuses."""
    return png(10_000, 10_000, 8, 0, b"\0" * 10)


def _apng_without_frames() -> bytes:
    data = encode(picture(1), "PNG")
    control = struct.pack(">II", 0, 0)
    import zlib

    chunk = struct.pack(">I", 8) + b"acTL" + control + struct.pack(">I", zlib.crc32(b"acTL" + control))
    return data[:33] + chunk + data[33:]


def _enlarged_jpeg() -> bytes:
    data = bytearray(encode(picture(1), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    return bytes(data)


def _enlarged_bmp() -> bytes:
    data = bytearray(encode(picture(1), "BMP"))
    data[18:26] = struct.pack("<ii", 100_000, 100_000)
    return bytes(data)
