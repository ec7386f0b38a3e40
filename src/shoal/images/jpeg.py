"""JPEG by libjpeg-turbo: the header in microseconds, pixels at full, half, quarter or eighth scale.

Only what it decodes beyond doubt: baseline or progressive 8-bit grey and colour, with no warning on the way.
Everything else is left to Pillow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import simplejpeg
from PIL import Image

_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_APP1, _END, _SCAN = 0xE1, 0xD9, 0xDA
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Width and height in pixels as stored; `orientation` as in EXIF, 1 to 8."""

    width: int
    height: int
    components: int
    precision: int
    orientation: int


def read_header(data: bytes) -> JpegHeader | None:
    """Read the markers up to the frame header; None if there is no whole one."""
    orientation = 1
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return None
        marker = data[position + 1]
        if marker in (0x00, 0xFF):  # stuffing and fill bytes
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker in (_END, _SCAN):
            return None
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = position + 4
        if marker in _SOF:
            if body + 6 > len(data):
                return None
            precision, height, width, components = struct.unpack_from(">BHHB", data, body)
            return JpegHeader(width, height, components, precision, orientation)
        if marker == _APP1 and data[body : body + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[body + 6 : position + 2 + length])
        position += 2 + length


def divisor(header: JpegHeader, least_size: int | None) -> int:
    """1, 2, 4 or 8: the most by which the image can be reduced if its shorter side is to keep `least_size` pixels.

    Powers of two have vector code; 3/8 to 7/8 of the size take longer to decode than all of it.
    """
    if least_size is None:
        return 1
    shorter = min(header.width, header.height)
    return next((divisor for divisor in (8, 4, 2) if shorter >= divisor * least_size), 1)


def decode_turbo(data: bytes, header: JpegHeader, divisor: int) -> Image.Image | None:
    """Decode as stored (no rotation) at 1/`divisor` of the size; None if Pillow has to judge."""
    if header.precision != 8 or header.components not in (1, 3):
        return None
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGBX",  # four bytes a pixel, as Pillow keeps RGB: taking them over is a plain copy
            min_width=-(-header.width // divisor),
            min_height=-(-header.height // divisor),
            strict=True,
        )
    except (ValueError, RuntimeError, MemoryError):
        return None
    height, width = pixels.shape[:2]
    return Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX")


def _exif_orientation(block: bytes) -> int:
    """The orientation in a TIFF-structured EXIF block; 1 where it is missing or broken."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, entry)
            if tag == _ORIENTATION:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
