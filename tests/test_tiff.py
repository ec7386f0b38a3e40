"""TIFF: every kind of sample shows what was written, or is refused by name."""

from __future__ import annotations

import io
import itertools
import sys
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from messy import encode, picture, pixels
from shoal.errors import DecodeError
from shoal.images.decode import Header, decode, decode_scaled, probe
from tiffs import by_hand, packed, tiff

RGB = pixels(1)
GREY = np.asarray(picture(1, "L"))
LOSSLESS = 2.0  # grey levels, on average: less than this is the same picture


def difference(data: bytes, wanted: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    shown = np.asarray(decode(data)).astype(float)
    return float(np.abs(shown - (wanted if wanted.ndim == 3 else wanted[..., None])).mean())


def scaled(values: np.ndarray, dtype: str) -> np.ndarray:
    """8-bit levels as numbers of a type, over its whole range; floats from 0 to 1."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (values / 255).astype(kind)
    whole = np.iinfo(kind)
    levels = values.astype(float) / 255 * (float(whole.max) - float(whole.min)) + float(whole.min)
    return np.clip(levels, float(whole.min), np.nextafter(float(whole.max), 0)).astype(kind)


TYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "planar", "tiled"])
def test_every_type_of_number_keeps_its_shades(dtype: str, order: str, photometric: str) -> None:
    wanted = GREY if photometric.startswith("minis") else RGB
    values = scaled(255 - GREY if photometric == "miniswhite" else wanted, dtype)
    options: dict[str, Any] = {"photometric": photometric}
    if photometric == "planar":
        values, options = np.ascontiguousarray(values.transpose(2, 0, 1)), {"planarconfig": "separate"}
    if photometric in ("planar", "tiled"):
        options = {**options, "photometric": "rgb", "tile": (16, 32)}
    # Numbers with signs go from the least to the greatest: both are there.
    if np.dtype(dtype).kind == "i" or dtype == "u8":
        values.flat[0], values.flat[1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    assert difference(tiff(values, byteorder=order, **options), wanted) < LOSSLESS


PACKINGS = [
    *itertools.product(["none", "lzw", "zlib", "deflate", "packbits", "lzma", "zstd"], [1], ["u1", "u2", "f4"]),
    *itertools.product(["lzw", "zlib", "lzma", "zstd"], [2], ["u1", "u2"]),
    *itertools.product(["lzw", "zlib", "lzma", "zstd"], [3], ["f4"]),
]


@pytest.mark.parametrize(("compression", "predictor", "dtype"), PACKINGS)
@pytest.mark.parametrize("layout", ["strips", "tiles", "planes", "bigtiff"])
def test_every_compression_of_bytes_is_read_without_more_packages(
    compression: str, predictor: int, dtype: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = scaled(RGB, dtype)
    options: dict[str, Any] = {"photometric": "rgb", "rowsperstrip": 7, "bigtiff": layout == "bigtiff"}
    if layout == "tiles":
        options = {"photometric": "rgb", "tile": (32, 16)}
    if layout == "planes":
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
        options["planarconfig"] = "separate"
    data = tiff(values, compression=compression, predictor=predictor if predictor != 1 else None, **options)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert difference(data, RGB) < 1


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpeg2000", "png", "jpegxl", "lerc"])
def test_compressions_of_images(compression: str) -> None:
    level = {"webp": 100, "jpegxl": 100, "jpeg": 98}.get(compression)
    options: dict[str, Any] = {"compressionargs": {"level": level}} if level else {}
    assert difference(tiff(RGB, photometric="rgb", compression=compression, **options), RGB) < LOSSLESS


@pytest.mark.parametrize(("compression", "name"), [("jpeg2000", "JPEG"), ("lerc", "LERC"), ("png", "PNG")])
def test_what_a_package_is_missing_for_is_said(compression: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff(scaled(RGB, "u2") if compression == "png" else RGB, photometric="rgb", compression=compression)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for act in (probe, decode):
        with pytest.raises(
            DecodeError, match=rf"^TIFF with the compression .*{name}.* needs the package imagecodecs \(pip"
        ):
            act(data)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_bits_in_sixteen_are_told_by_the_brightest_value(bits: int) -> None:
    values = (GREY.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    decoded = decode_scaled(tiff(values, photometric="minisblack"))
    assert difference(tiff(values, photometric="minisblack"), GREY) <= 1
    assert decoded.note == (None if bits == 16 else f"{bits} bits in 16, told by the brightest value")


@pytest.mark.parametrize(
    "said", [{"extratags": [(281, 3, 1, 16383, True)]}, {"description": '<Pixels SignificantBits="14"/>'}]
)
def test_what_the_file_says_of_its_bits_comes_first(said: dict[str, Any]) -> None:
    dark = (GREY.astype(np.uint16) * 16).clip(0, 4000)
    decoded = decode_scaled(tiff(dark, photometric="minisblack", **said))
    assert decoded.note is None
    assert np.abs(np.asarray(decoded.image)[..., 0] - dark / 16383 * 255).mean() < 1


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_packed_bits(bits: int, photometric: int) -> None:
    most = 2**bits - 1
    values = GREY.astype(np.uint32) * most // 255
    wanted = values / most * 255
    stored = values if photometric else most - values
    tags = {256: 64, 257: 48, 258: bits, 259: 1, 262: photometric}
    order = ">" if bits == 16 else "<"
    assert difference(by_hand(tags, packed(stored, bits), order), wanted) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("narrow", [False, True])
def test_palettes(bits: int, narrow: bool) -> None:
    random = np.random.default_rng(bits)
    colours = random.integers(0, 256, (3, 2**bits))
    values = random.integers(0, 2**bits, (48, 64))
    tags = {
        256: 64,
        257: 48,
        258: bits,
        259: 1,
        262: 3,
        320: tuple(((colours if narrow else colours * 257).ravel()).tolist()),
    }
    assert difference(by_hand(tags, packed(values, bits), ">"), colours.T[values]) == 0


def test_associated_and_unassociated_alpha() -> None:
    opacity = np.linspace(40, 255, 64 * 48).reshape(48, 64, 1).astype(np.uint8)
    wanted = RGB * (opacity / 255) + 255 * (1 - opacity / 255)
    for dtype in ("u1", "u2", "f4"):
        plain = scaled(np.concatenate([RGB, opacity], axis=2), dtype)
        assert difference(tiff(plain, photometric="rgb", extrasamples=["unassalpha"]), wanted) < 1.5, dtype
        multiplied = scaled(np.concatenate([RGB * (opacity / 255), opacity], axis=2), dtype)
        assert difference(tiff(multiplied, photometric="rgb", extrasamples=["assocalpha"]), wanted) < 1.5, dtype


def test_channels_beyond_colours_are_named() -> None:
    five = np.dstack([RGB, GREY, GREY])
    decoded = decode_scaled(tiff(five, photometric="rgb", extrasamples=[0, 0]))
    assert decoded.note == "5 channels, of which the first 3 are shown"
    assert np.abs(np.asarray(decoded.image).astype(int) - RGB).max() == 0


def test_three_greys_are_taken_as_colours() -> None:
    decoded = decode_scaled(tiff(RGB, photometric="minisblack", planarconfig="contig"))
    assert decoded.note == "three channels, taken as red, green and blue"
    assert np.abs(np.asarray(decoded.image).astype(int) - RGB).max() == 0


def test_inks() -> None:
    inks = np.asarray(picture(1, "CMYK"))
    for dtype in ("u1", "u2"):
        for planes in (False, True):
            values = scaled(inks, dtype)
            values = np.ascontiguousarray(values.transpose(2, 0, 1)) if planes else values
            layout = "separate" if planes else "contig"
            assert difference(tiff(values, photometric="separated", planarconfig=layout), RGB) < LOSSLESS


@pytest.mark.parametrize("photometric", [8, 9])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab(photometric: int, bits: int) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.applyTransform(picture(1), ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    assert image is not None
    values = np.stack([np.asarray(image.getchannel(band)) for band in range(3)], axis=-1)  # a and b from 128
    if photometric == 8:
        values[..., 1:] ^= 128
    stored = values.astype(np.uint16) << 8 if bits == 16 else values
    tags = {256: 64, 257: 48, 258: (bits,) * 3, 259: 1, 262: photometric, 277: 3}
    assert difference(by_hand(tags, stored.astype(f"<u{bits // 8}").tobytes()), RGB) < 4  # 8 bits of L*a*b* are coarse


def test_ycbcr() -> None:
    values = np.asarray(picture(1, "YCbCr"))
    assert difference(by_hand(YCBCR, values.tobytes()), RGB) < LOSSLESS


def test_fax_and_jpeg_strips() -> None:
    bits = picture(1, "1")
    for compression in ("group3", "group4", "tiff_ccitt"):
        assert difference(encode(bits, "TIFF", compression=compression), np.asarray(bits) * 255.0) == 0, compression
    for mode in ("L", "RGB", "CMYK"):
        data = encode(picture(1, mode), "TIFF", compression="jpeg", quality=98)
        assert difference(data, np.asarray(picture(1, mode).convert("RGB"))) < 3, mode


@pytest.mark.parametrize("kind", ["zeros", "ones"])
def test_a_stack_shows_its_first_plane_that_is_not_blank(kind: str) -> None:
    for dtype in ("u1", "u2", "f4"):
        planes = np.stack(
            [scaled(GREY * 0 + (kind == "ones") * 7, dtype)] * 2 + [scaled(GREY, dtype), scaled(255 - GREY, dtype)]
        )
        for options in ({"imagej": True}, {"ome": True}, {}):
            data = tiff(planes, **options, metadata={"axes": "ZYX"}, photometric="minisblack")
            assert difference(data, GREY) < 1, (dtype, options)
            assert (decode_scaled(data).note or "").startswith("plane 3 of 4, the first that is not blank")


def test_pages_of_other_sizes_are_looked_at_too() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.full((9, 7), 255, np.uint8), photometric="minisblack", metadata=None)
        writer.write(GREY, photometric="minisblack", metadata=None)
    assert difference(buffer.getvalue(), GREY) == 0


def test_four_samples_without_more_being_said_are_colours_and_alpha() -> None:
    layer = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    layer[:9, :, 3] = 0
    tags = {256: 64, 257: 48, 258: (8,) * 4, 259: 1, 262: 2, 277: 4}
    assert difference(by_hand(tags, layer.tobytes()), np.where(layer[..., 3:] == 0, 255, RGB)) == 0


def test_a_blank_file_is_read_as_it_is() -> None:
    for planes in (GREY * 0, np.stack([GREY * 0] * 3)):
        assert difference(tiff(planes, photometric="minisblack"), GREY * 0) == 0


def test_a_small_version_or_mask_before_the_picture_is_passed_over() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(RGB[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(RGB, photometric="rgb", metadata=None)
    assert probe(buffer.getvalue()) == Header(64, 48, "TIFF")
    assert difference(buffer.getvalue(), RGB) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_orientation(orientation: int, dtype: str) -> None:
    from shoal.images.orientation import turned

    data = tiff(scaled(RGB, dtype), photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    assert difference(data, np.asarray(turned(Image.fromarray(RGB), orientation))) < 1


YCBCR = {256: 64, 257: 48, 258: (8, 8, 8), 259: 1, 262: 6, 277: 3, 530: (1, 1), 532: (0, 255, 128, 255, 128, 255)}
REFUSED: dict[str, tuple[bytes, str]] = {
    "four channels": (
        tiff(np.dstack([RGB, GREY]).astype(np.uint16), photometric="minisblack", planarconfig="contig"),
        "4 channels of 16 bits",
    ),
    "five planes": (
        tiff(np.stack([GREY] * 5), photometric="minisblack", planarconfig="separate"),
        "5 channels of 8 bits",
    ),
    "two channels": (
        tiff(np.dstack([GREY, GREY]), photometric="minisblack", planarconfig="contig"),
        "2 channels of 8 bits",
    ),
    "six inks": (
        tiff(np.dstack([RGB, RGB]), photometric="separated", extratags=[(332, 3, 1, 2, True)]),
        "6 channels of 8 bits",
    ),
    "complex": (tiff(GREY.astype(np.complex64), photometric="minisblack"), "samples of 64 bits complex"),
    "unequal": (
        by_hand({256: 4, 257: 2, 258: (5, 6, 5), 259: 1, 262: 2, 277: 3}, bytes(16)),
        "samples of 5, 6, 5 bits",
    ),
    "24 bits": (by_hand({256: 4, 257: 2, 258: 24, 259: 1, 262: 1}, bytes(24)), "samples of 24 bits"),
    "mosaic": (by_hand({256: 4, 257: 2, 258: 16, 259: 1, 262: 32803}, bytes(16)), "the raw mosaic of a camera"),
    "subsampled": (by_hand({**YCBCR, 530: (2, 2)}, bytes(64 * 48 * 3 // 2)), "subsampled YCbCr that is not compressed"),
    "unknown": (by_hand({256: 4, 257: 2, 258: 8, 259: 1, 262: 777}, bytes(8)), "photometric 777"),
    "compression": (by_hand({256: 4, 257: 2, 258: 8, 259: 32766, 262: 1}, bytes(8)), "the compression"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_sound_file_that_is_not_read_is_refused_by_name(case: str) -> None:
    data, named = REFUSED[case]
    with pytest.raises(DecodeError) as caught:
        decode(data)
    reason = str(caught.value)
    assert reason.startswith(f"TIFF with {named}")
    assert reason.endswith("is not read")


def test_numbers_that_stand_for_no_data_are_black() -> None:
    for dtype, gap in (("f4", "-3.4028234663852886e+38"), ("f8", "-9999"), ("i2", "-32768"), ("i4", "-9999")):
        values = GREY.astype(dtype) * 3 - 100
        values[:9, :9] = float(gap)
        data = tiff(values, photometric="minisblack", extratags=[(42113, 2, 0, gap, True)])
        kept = np.delete(GREY.ravel(), np.ravel_multi_index(np.mgrid[:9, :9].reshape(2, -1), GREY.shape)).astype(float)
        wanted = (GREY - kept.min()) * 255 / (kept.max() - kept.min())
        wanted[:9, :9] = 0
        assert difference(data, wanted) < 1, dtype


def test_a_pyramid_is_one_picture() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(RGB, photometric="rgb", metadata=None)
        writer.write(RGB[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert decode_scaled(buffer.getvalue()).note is None


def test_a_truncated_tiff_is_said_to_be_so() -> None:
    data = by_hand({256: 64, 257: 48, 258: 8, 259: 1, 262: 1, 273: 8}, GREY.tobytes())
    short = by_hand({256: 64, 257: 4800, 258: 8, 259: 1, 262: 1, 273: 8}, GREY.tobytes())
    assert difference(data, GREY) == 0
    with pytest.raises(DecodeError, match=r"^truncated TIFF$"):
        decode(short)
