"""JPEG: its header in linear time, its end, and what decoding it holds."""

from __future__ import annotations

import struct
import subprocess
import sys
import time

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from messy import encode, picture, pixels
from shoal.errors import DecodeError
from shoal.images import jpeg
from shoal.images.decode import Header, decode, decode_scaled, probe
from shoal.images.limits import MOST_HELD

HAYSTACKS = {
    "fill": b"\xff" * 10_000_000,
    "restarts": b"\xff\xd0" * 5_000_000,
    "stuffing": b"\xff\x00" * 5_000_000,
    "empty segments": b"\xff\xe0\0\2" * 2_500_000,
    "segments of no length": b"\xff\xe0\0\0" * 2_500_000,
    "starts": b"\xff\xd8" * 5_000_000,
    "zeros": bytes(10_000_000),
    "parts of profiles": (b"\xff\xe2\0\x12ICC_PROFILE\0\1\1xx") * 500_000,
}


@pytest.mark.parametrize("kind", HAYSTACKS)
def test_a_header_is_looked_for_in_little_time(kind: str) -> None:
    data = b"\xff\xd8\xff" + HAYSTACKS[kind]
    began = time.perf_counter()
    for act in (probe, decode):
        with pytest.raises(DecodeError, match="JPEG"):
            act(data)
    assert time.perf_counter() - began < 1


def test_what_programs_put_before_the_frame_is_passed_over() -> None:
    plain = encode(picture(1), "JPEG", quality=95, subsampling=0)
    large = b"\xff\xe2" + struct.pack(">H", 65535) + b"MPF\0" + bytes(65529)
    thumbnail = encode(picture(2), "JPEG")
    preview = b"\xff\xe1" + struct.pack(">H", 8 + len(thumbnail)) + b"Exif\0\0" + thumbnail
    for more in (large * 260, preview, b"\xff" * 50, b"junk", b"\xff\xfe\0\2"):
        data = plain[:20] + more + plain[20:]
        assert probe(data) == Header(64, 48, "JPEG")
        assert np.abs(np.asarray(decode(data)).astype(int) - pixels(1)).mean() < 2


# -- the end ---------------------------------------------------------------------------------------------------------


def scans(data: bytes) -> list[int]:
    """Where each scan's header begins."""
    return [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_jpeg_without_its_end_marker_is_whole(progressive: bool, mode: str, lost: int) -> None:
    data = encode(picture(10, mode, height=50, width=70), "JPEG", progressive=progressive)
    assert np.array_equal(np.asarray(decode(data[:-lost])), np.asarray(decode(data)))
    thumbnail = encode(picture(2), "JPEG")
    preview = b"\xff\xe1" + struct.pack(">H", 8 + len(thumbnail)) + b"Exif\0\0" + thumbnail
    with_preview = data[:2] + preview + data[2:]
    assert np.array_equal(np.asarray(decode(with_preview[:-lost])), np.asarray(decode(data)))


def test_a_progressive_jpeg_that_ends_between_two_scans_is_truncated() -> None:
    data = encode(picture(10, height=50, width=70), "JPEG", progressive=True)
    for place in scans(data)[1:]:
        table = data.rfind(b"\xff\xc4", 0, place)
        for end in (place, table):
            for tail in (b"", b"\xff"):
                with pytest.raises(DecodeError, match="truncated"):
                    decode(data[:end] + tail)


# -- what is held ----------------------------------------------------------------------------------------------------


def enlarged(data: bytes, width: int, height: int) -> bytes:
    frame = next(place for place in range(len(data)) if data[place] == 0xFF and data[place + 1] in (0xC0, 0xC2))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def test_a_progressive_jpeg_is_counted_by_its_coefficients() -> None:
    for progressive in (False, True):
        data = encode(picture(1), "JPEG", progressive=progressive, subsampling=0)
        header = jpeg.read_header(enlarged(data, 9000, 9000))
        assert header is not None
        assert header.whole == progressive
        assert header.held(8) == 8 * 9000**2 / 64 + (2 * 3 * 9000**2 if progressive else 0)
    header = jpeg.read_header(encode(picture(1), "JPEG", progressive=True, subsampling=2))
    assert header is not None
    assert header.samples == 1.5


def test_scans_for_each_colour_are_counted_by_their_coefficients() -> None:
    data = encode(picture(1), "JPEG")
    start = data.index(b"\xff\xda")
    apart = data[:start] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[start + 14 :]
    header = jpeg.read_header(apart)
    assert header is not None
    assert header.whole


def test_limits_go_by_what_is_held() -> None:
    plain = encode(picture(1), "JPEG")
    progressive = encode(picture(1), "JPEG", progressive=True, subsampling=0)
    too_many = int((MOST_HELD / 6) ** 0.5) + 100
    assert probe(enlarged(plain, too_many, too_many)).width == too_many
    with pytest.raises(DecodeError, match="too many pixels"):
        probe(enlarged(progressive, too_many, too_many))
    with pytest.raises(DecodeError, match="too many pixels"):
        probe(enlarged(plain, 65_000, 65_000))
    with pytest.raises(DecodeError, match="too many pixels"):
        decode(enlarged(plain, too_many, too_many))  # at full scale


def test_more_scans_than_any_program_writes_are_refused() -> None:
    data = encode(picture(1), "JPEG", progressive=True)
    last = scans(data)[-1]
    with pytest.raises(DecodeError, match="JPEG of too many scans"):
        decode(data[:-2] + data[last:-2] * 200 + data[-2:])
    with pytest.raises(DecodeError, match="JPEG of too many scans"):
        decode(enlarged(data[:-2] + data[last:-2] * 80 + data[-2:], 20_000, 20_000), least_size=256)


_MEASURE = """
import sys
from shoal.images.decode import decode

def most_bytes():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

data, small = (open(path, "rb").read() for path in sys.argv[1:])
decode(small)
before = most_bytes()
image = decode(data, least_size=256)
print(most_bytes() - before, *image.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is told in other units")
@pytest.mark.parametrize("progressive", [False, True])
def test_what_is_counted_is_what_is_held(progressive: bool, tmp_path) -> None:
    large, small = tmp_path / "large.jpg", tmp_path / "small.jpg"
    picture(1).resize((4000, 4000)).save(large, "JPEG", quality=60, progressive=progressive)
    picture(1).save(small, "JPEG")
    found = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(large), str(small)], capture_output=True, text=True, check=True
    )
    held, width, _ = map(int, found.stdout.split())
    header = jpeg.read_header(large.read_bytes())
    assert header is not None
    assert width == 500
    assert held < header.held(8) * 1.2 + 12_000_000
    if progressive:
        assert held > header.held(8) * 0.5


def test_a_very_large_photograph_is_read_at_a_reduced_scale() -> None:
    data = encode(picture(1).resize((16320, 12240)), "JPEG", quality=50)
    assert probe(data) == Header(16320, 12240, "JPEG")
    decoded = decode_scaled(data, 256)
    assert (decoded.image.size, decoded.full_width) == ((2040, 1530), 16320)
    small = np.asarray(decoded.image.resize((64, 48), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - pixels(1)).mean() < 3


def test_inks_are_reduced_too() -> None:
    data = encode(picture(1, "CMYK").resize((1200, 900)), "JPEG", quality=95)
    decoded = decode_scaled(data, 100)
    assert (decoded.image.size, decoded.full_width) == ((150, 113), 1200)
    assert np.abs(np.asarray(decoded.image.resize((64, 48))).astype(int) - pixels(1)).mean() < 6


def test_jpeg_ls_is_named() -> None:
    with pytest.raises(DecodeError, match=r"^JPEG-LS is not read$"):
        decode(bytes(imagecodecs.jpegls_encode(pixels(1))))


@pytest.mark.parametrize(("bits", "is_lossless"), [(12, False), (8, True), (12, True), (16, True)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpegs_of_other_kinds_need_a_package(
    bits: int, is_lossless: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = np.asarray(picture(1, mode))
    values = (levels.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint8 if bits == 8 else np.uint16)
    options = {"lossless": True, "predictor": 1} if is_lossless else {"level": 98}
    data = bytes(imagecodecs.jpeg_encode(values, bitspersample=bits, **options))
    assert np.abs(np.asarray(decode(data).convert(mode)).astype(int) - levels).mean() < 3
    if bits == 8:
        return  # libjpeg-turbo reads some of these itself
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    named = f"^{'lossless ' if is_lossless else ''}JPEG of {bits} bits needs the package imagecodecs"
    for act in (probe, decode):
        with pytest.raises(DecodeError, match=named):
            act(data)
