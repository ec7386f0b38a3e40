"""Format by format: what is shown is what was written, by the format's own definition."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from messy import encode, picture, pixels
from messy import png as png_file
from shoal.errors import DecodeError
from shoal.images.decode import decode, decode_scaled, probe
from shoal.images.levels import find_range, to_levels
from tiffs import packed

RGB = pixels(1)
GREY = np.asarray(picture(1, "L"))
OPACITY = np.linspace(60, 255, 64 * 48).reshape(48, 64, 1).astype(np.uint8)
ON_WHITE = RGB * (OPACITY / 255) + 255 * (1 - OPACITY / 255)
GREY_ON_WHITE = GREY[..., None] * (OPACITY / 255) + 255 * (1 - OPACITY / 255)
LOSSLESS = 2.0


def difference(data: bytes, wanted: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    shown = np.asarray(decode(data)).astype(float)
    assert probe(data).width in shown.shape
    return float(np.abs(shown - (wanted if wanted.ndim == 3 else wanted[..., None])).mean())


def png(values: np.ndarray, depth: int, colour: int, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of numbers [height, width, channels], with chunks before its pixels."""
    flat = values.reshape(len(values), -1)
    rows = flat.astype(">u2").view(np.uint8).reshape(len(flat), -1) if depth == 16 else None
    lines = rows.tobytes() if rows is not None else packed(flat, depth)
    step = len(lines) // len(flat)
    lines = b"".join(b"\0" + lines[start : start + step] for start in range(0, len(lines), step))
    made = png_file(values.shape[1], values.shape[0], depth, colour, lines)
    return made[:33] + before + made[33:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# -- PNG -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_png_grey(depth: int) -> None:
    most = 2**depth - 1
    values = GREY.astype(np.uint32) * most // 255
    assert difference(png(values[..., None], depth, 0), values / most * 255) <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_png_colours_and_alpha(depth: int) -> None:
    factor = 257 if depth == 16 else 1
    assert difference(png(RGB.astype(np.uint32) * factor, depth, 2), RGB) == 0
    layer = np.concatenate([RGB, OPACITY], axis=2).astype(np.uint32) * factor
    assert difference(png(layer, depth, 6), ON_WHITE) <= 1
    grey_layer = np.dstack([GREY, OPACITY]).astype(np.uint32) * factor
    assert difference(png(grey_layer, depth, 4), GREY_ON_WHITE) <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_palettes(depth: int) -> None:
    random = np.random.default_rng(depth)
    colours = random.integers(0, 256, (2**depth, 3), dtype=np.uint8)
    values = random.integers(0, 2**depth, (48, 64, 1))
    palette = chunk(b"PLTE", colours.tobytes())
    assert difference(png(values, depth, 3, palette), colours[values[..., 0]]) == 0
    clear = palette + chunk(b"tRNS", b"\0")
    wanted = np.where(values == 0, 255, colours[values[..., 0]])
    assert difference(png(values, depth, 3, clear), wanted) == 0


@pytest.mark.parametrize("depth", [8, 16])
def test_png_colour_keys(depth: int) -> None:
    values = RGB.astype(np.uint32) * (257 if depth == 16 else 1)
    values[:10] = (1, 2, 3)
    wanted = RGB.copy()
    wanted[:10] = 255
    assert difference(png(values, depth, 2, chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))), wanted) == 0
    values = GREY.astype(np.uint32)[..., None] * (257 if depth == 16 else 1)
    values[:10] = 7
    wanted = GREY.copy()
    wanted[:10] = 255
    if depth == 8:
        wanted[GREY == 7] = 255
    assert difference(png(values, depth, 0, chunk(b"tRNS", struct.pack(">H", 7))), wanted) == 0


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_few_bits_in_a_deep_png_are_told_by_the_brightest_value(bits: int, colour: int) -> None:
    most = 2**bits - 1
    channels = {0: GREY[..., None], 2: RGB, 4: np.dstack([GREY, GREY * 0 + 255]), 6: np.dstack([RGB, GREY * 0 + 255])}[
        colour
    ]
    values = channels.astype(np.uint32) * most // 255
    if colour >= 4:
        values[..., -1] = 65535
    wanted = GREY if colour in (0, 4) else RGB
    data = png(values, 16, colour)
    assert difference(data, wanted) <= 1
    assert decode_scaled(data).note == f"{bits} bits in 16, told by the brightest value"


def test_a_deep_png_that_says_its_bits_is_as_dark_as_it_says() -> None:
    values = GREY[..., None].astype(np.uint32) * 16
    data = png(values, 16, 0, chunk(b"sBIT", b"\x0c"))
    assert difference(data, GREY / 16) <= 1
    assert decode_scaled(data).note is None


def test_an_interlaced_deep_png() -> None:
    assert difference(imagecodecs.png_encode(RGB.astype(np.uint16) * 257), RGB) == 0


def test_what_lies_beside_the_pixels_of_a_png_does_no_harm() -> None:
    plain = encode(picture(1), "PNG")
    long_text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b'{"n":1},' * 250_000))
    damaged = [
        chunk(kind, b"name\0of no use")[:-1] + b"?" for kind in (b"tEXt", b"iTXt", b"pHYs", b"iCCP", b"eXIf", b"abCd")
    ]
    for more in (long_text, *damaged, chunk(b"iTXt", b"\0"), chunk(b"zTXt", b"x\0\0not compressed")):
        for place in (33, len(plain) - 12):
            assert difference(plain[:place] + more + plain[place:], RGB) == 0


@pytest.mark.parametrize("end", [b"", b"\0\0", b"\0\0\0\0IEND", b"\0\0\0\x20tEXtcut off"])
def test_a_png_without_its_end_is_whole_if_its_pixels_are(end: bytes) -> None:
    assert difference(encode(picture(1), "PNG")[:-12] + end, RGB) == 0


def test_a_png_whose_checksum_is_cut_off_is_whole() -> None:
    assert difference(encode(picture(1), "PNG")[:-14], RGB) == 0


@pytest.mark.parametrize("lost", [60, 400])
def test_a_png_that_lacks_pixels_is_truncated(lost: int) -> None:
    with pytest.raises(DecodeError, match=r"^truncated PNG$"):
        decode(encode(picture(1), "PNG")[:-lost])


# -- BMP -------------------------------------------------------------------------------------------------------------


def bmp(
    rows: bytes,
    bits: int,
    *,
    compression: int = 0,
    header: int = 40,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    height: int = 48,
) -> bytes:
    """64 pixels wide; `rows` from the lowest, each filled up to four bytes."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, 64, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, 64, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    info += struct.pack(f"<{len(masks)}I", *masks)
    info = info.ljust(header, b"\0") + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def test_bmp_of_every_depth() -> None:
    flipped = RGB[::-1].astype(np.uint32)
    blue_first = flipped[..., ::-1].astype(np.uint8)
    assert difference(bmp(blue_first.tobytes(), 24), RGB) == 0
    assert difference(bmp(blue_first.tobytes(), 24, header=12), RGB) == 0
    assert difference(bmp(np.dstack([blue_first, blue_first[..., :1] * 0]).tobytes(), 32), RGB) == 0
    upside_down = bmp(RGB[..., ::-1].tobytes(), 24, height=-48)
    assert np.abs(np.asarray(decode(upside_down)).astype(int) - RGB).max() == 0
    five = flipped[..., 0] >> 3 << 10 | flipped[..., 1] >> 3 << 5 | flipped[..., 2] >> 3
    assert difference(bmp(five.astype("<u2").tobytes(), 16), RGB) < 5
    six = flipped[..., 0] >> 3 << 11 | flipped[..., 1] >> 2 << 5 | flipped[..., 2] >> 3
    assert (
        difference(bmp(six.astype("<u2").tobytes(), 16, compression=3, header=56, masks=(0xF800, 0x7E0, 0x1F, 0)), RGB)
        < 5
    )


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_palettes(bits: int) -> None:
    random = np.random.default_rng(bits)
    colours = random.integers(0, 256, (2**bits, 3), dtype=np.uint8)
    values = random.integers(0, 2**bits, (48, 64))
    palette = np.concatenate([colours[:, ::-1], np.zeros((2**bits, 1), np.uint8)], axis=1).tobytes()
    assert difference(bmp(packed(values[::-1], bits), bits, palette=palette), colours[values]) == 0


def test_bmp_with_alpha() -> None:
    layer = np.concatenate([RGB[..., ::-1], OPACITY], axis=2)[::-1]
    data = bmp(layer.tobytes(), 32, compression=3, header=108, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    assert difference(data, ON_WHITE) <= 1


def test_bmp_with_used_reserved_bytes() -> None:
    data = encode(picture(1), "BMP")
    assert difference(data[:6] + b"GR32" + data[10:], RGB) == 0


@pytest.mark.parametrize(("compression", "what"), [(4, "JPEG inside"), (5, "PNG inside")])
def test_bmp_that_is_not_read(compression: int, what: str) -> None:
    with pytest.raises(DecodeError, match=f"^BMP with {what} is not read$"):
        decode(bmp(b"x" * 99, 0, compression=compression))


# -- PBM, PGM, PPM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [1, 7, 255, 300, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
def test_pnm(kind: int, white: int) -> None:
    levels = RGB if kind in (3, 6) else GREY
    values = levels.astype(np.uint32) * white // 255
    header = f"P{kind}\n# made by hand\n64 48 # and so on\n{white}\n".encode()
    if kind in (2, 3):
        body = "\n".join(" ".join(map(str, row)) for row in values.reshape(48, -1)).encode()
    else:
        body = values.astype(">u2" if white > 255 else "u1").tobytes()
    assert difference(header + body, values / white * 255) <= 1


def test_pbm() -> None:
    bits = (GREY > 128).astype(np.uint8)
    wanted = (1 - bits) * 255
    assert difference(b"P4 64 48\n" + packed(bits, 1), wanted) == 0
    for between in ("", " "):
        text = "\n".join(between.join(map(str, row)) for row in bits)
        assert difference(f"P1\n# c\n64 48\n{text}\n".encode(), wanted) == 0


def test_twelve_bits_in_a_pgm_of_sixteen() -> None:
    data = b"P5 64 48 65535\n" + (GREY.astype(np.uint16) * 16).astype(">u2").tobytes()
    assert difference(data, GREY) <= 1
    assert decode_scaled(data).note == "12 bits in 16, told by the brightest value"


@pytest.mark.parametrize("body", [b"", b"1 2 3", b"x" * 9000, b"-5 " * 9216])
def test_pnm_that_is_broken(body: bytes) -> None:
    for kind in (b"P3", b"P6"):
        if kind == b"P6" and len(body) >= 9000:
            continue
        with pytest.raises(DecodeError, match="PPM"):
            decode(kind + b" 64 48 255\n" + body)


# -- JPEG 2000, AVIF, HEIC, WebP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["jp2", "j2k"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg2000(codec: str, bits: int, signed: bool) -> None:
    for levels in (GREY, RGB):
        values = levels.astype(np.int64) * (2**bits - 1) // 255 - (2 ** (bits - 1) if signed else 0)
        dtype = np.dtype(("i" if signed else "u") + ("1" if bits == 8 else "2"))
        data = imagecodecs.jpeg2k_encode(
            values.astype(dtype), level=0, codecformat=codec, bitspersample=bits, reversible=True
        )
        assert difference(bytes(data), levels) < LOSSLESS


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_deep_colours_in_jpeg2000_need_a_package(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.dstack([GREY] * channels).astype(np.uint16) * 16
    data = bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=12, reversible=True))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for act in (probe, decode):
        with pytest.raises(
            DecodeError, match=rf"^JPEG 2000 with {channels} channels of 12 bits needs the package imagecodecs"
        ):
            act(data)


def test_jpeg2000_with_alpha() -> None:
    assert difference(encode(Image.fromarray(np.concatenate([RGB, OPACITY], axis=2)), "JPEG2000"), ON_WHITE) < LOSSLESS
    assert difference(encode(Image.fromarray(np.dstack([GREY, OPACITY])), "JPEG2000"), GREY_ON_WHITE) < LOSSLESS


def test_a_dark_jpeg2000_of_twelve_bits_is_as_dark_as_it_says() -> None:
    values = GREY.astype(np.uint16) // 2
    data = bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="jp2", bitspersample=12, reversible=True))
    assert difference(data, values / 16) < 1
    assert decode_scaled(data).note is None


def smooth(mode: str = "RGB") -> Image.Image:
    """What lossy codecs keep almost whole."""
    return picture(1).resize((16, 12)).resize((256, 192), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif(bits: int) -> None:
    values = np.asarray(smooth()).astype(np.uint32) * (2**bits - 1) // 255
    data = imagecodecs.avif_encode(values.astype(np.uint8 if bits == 8 else np.uint16), level=98, bitspersample=bits)
    assert difference(bytes(data), np.asarray(smooth())) < LOSSLESS


def test_avif_of_grey() -> None:
    assert difference(encode(smooth("L"), "AVIF", quality=98), np.asarray(smooth("L"))) < LOSSLESS


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "RGB;16", "L;16"])
def test_heic(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.asarray(smooth(mode.split(";", maxsplit=1)[0]))
    wanted = np.asarray(smooth("L" if mode[0] == "L" else "RGB"))
    if mode.endswith("16"):
        values = values.astype(np.uint16) * 257
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", True)
    made = pillow_heif.from_bytes(mode, (256, 192), values.tobytes())
    buffer = io.BytesIO()
    made.save(buffer, quality=98, chroma=444)
    assert difference(buffer.getvalue(), wanted) < LOSSLESS


def test_webp() -> None:
    assert difference(encode(picture(1), "WEBP", lossless=True), RGB) == 0
    layer = Image.fromarray(np.concatenate([RGB, OPACITY], axis=2))
    assert difference(encode(layer, "WEBP", lossless=True, exact=True), ON_WHITE) <= 1


# -- GIF, ICO, QOI, PSD ----------------------------------------------------------------------------------------------


def test_gif() -> None:
    image = picture(1).quantize(64)
    for options in ({"interlace": 0}, {"interlace": 1}):
        assert difference(encode(image, "GIF", **options), np.asarray(image.convert("RGB"))) == 0


def test_qoi() -> None:
    assert difference(encode(picture(1), "QOI"), RGB) == 0


def test_ico() -> None:
    for options in ({"bitmap_format": "bmp"}, {"bitmap_format": "png"}):
        data = encode(picture(1), "ICO", sizes=[(16, 16), (64, 48)], **options)
        assert difference(data, RGB) == 0, options


def test_a_large_png_in_an_icon_is_refused_by_its_size() -> None:
    bomb = png_file(20_000, 20_000, 8, 2, b"")
    data = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(bomb), 22) + bomb
    for act in (probe, decode):
        with pytest.raises(DecodeError, match="too many pixels"):
            act(data)


def psd(planes: np.ndarray, mode: int, bits: int = 8, palette: bytes = b"") -> bytes:
    """A file without layers, of [channels, height, width]."""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, len(planes), planes.shape[1], planes.shape[2], bits, mode)
    return header + struct.pack(">I", len(palette)) + palette + bytes(8) + b"\0\0" + planes.tobytes()


def test_psd() -> None:
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    assert difference(psd(planes, 3), RGB) == 0
    assert difference(psd(GREY[None], 1), GREY) == 0
    inks = np.asarray(picture(1, "CMYK"))
    assert difference(psd(np.ascontiguousarray(255 - inks.transpose(2, 0, 1)), 4), RGB) < LOSSLESS


def test_psd_that_is_not_read() -> None:
    with pytest.raises(DecodeError, match=r"^PSD with 16 bits a channel is not read$"):
        decode(psd(np.zeros((3, 48, 64), ">u2"), 3, 16))


def test_no_reason_has_text_of_a_library() -> None:
    random = np.random.default_rng(0)
    made: dict[str, Any] = {
        kind: encode(picture(2), kind) for kind in ("PNG", "BMP", "GIF", "TIFF", "WEBP", "ICO", "JPEG2000", "QOI")
    }
    made["PSD"] = psd(np.zeros((3, 48, 64), np.uint8), 3)
    for data in made.values():
        for _ in range(60):
            broken = bytearray(data)
            for place in random.integers(4, min(len(data), 200), 6):
                broken[place] = random.integers(0, 256)
            try:
                decode(bytes(broken))
            except DecodeError as error:
                assert not any(mark in str(error) for mark in ("Error", "'", "index", "NoneType", "object", "0x"))  # noqa: PT017


def test_numbers_at_the_ends_of_what_floats_hold_are_levels_too() -> None:
    ends = np.array([[-1e308, 0.0, 1e308]])
    assert to_levels(ends, find_range(ends)).tolist() == [[0, 128, 255]]
    tiny = np.array([[0.0, 5e-324]])
    assert to_levels(tiny, find_range(tiny)).shape == (1, 2)
    signalling = np.array([[0x7FA00000, 0x3F800000, 0x7F800000]], np.uint32).view(np.float32)
    assert to_levels(signalling, find_range(signalling)).tolist() == [[0, 255, 0]]
