"""JPEG by libjpeg-turbo: the header in microseconds, pixels at full, half, quarter or eighth scale.

Only what it decodes beyond doubt: 8 bits, grey, colour or four inks, with no warning on the way. Everything else is
left to others.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

import simplejpeg
from PIL import Image

# By components: what libjpeg-turbo is asked for, the image's mode and how Pillow takes it over. Four bytes a pixel, as
# Pillow keeps RGB: that is a plain copy. Programs store inks inverted.
_KINDS: Final = {1: ("RGBX", "RGB", "RGBX"), 3: ("RGBX", "RGB", "RGBX"), 4: ("CMYK", "CMYK", "CMYK;I")}
DIVISORS: Final = (8, 4, 2)
MOST_PIXELS: Final = 1 << 29  # as stored: what an eighth of the scale decodes in some seconds
MOST_SCANS: Final = 100  # each goes over the whole picture again, however few bytes it has
MOST_SCANNED: Final = 20_000_000_000  # pixels of all scans together

_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1, 0xC9})
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_APP1, _APP2, _END, _SCAN = 0xE1, 0xE2, 0xD9, 0xDA
_ORIENTATION = 0x0112
_ICC = b"ICC_PROFILE\0"
_END_MARKER, _SCAN_MARKER = b"\xff\xd9", b"\xff\xda"
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # not stuffing, fill, restarts: those have no length
MOST_SEGMENTS: Final = 4096  # before the frame header: a profile of 16 MB takes 255
MOST_BETWEEN: Final = 1 << 16  # bytes between those segments that belong to none


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What comes before the pixels.

    Attributes:
        width, height: pixels as stored.
        samples: numbers a pixel, those of all components together, as they are subsampled.
        orientation: as in EXIF, 1 to 8.
        whole: the decoder has to hold all coefficients, two bytes each, at any scale: progressive, or scan by scan.
        profile: the ICC profile, or empty.
        is_lossless: kept by differences of pixels, not by waves.
        pixels_at: where in the bytes the frame header ends. What lies before may have a small JPEG of its own.
    """

    width: int
    height: int
    components: int
    precision: int
    samples: float
    orientation: int
    whole: bool
    profile: bytes
    is_lossless: bool
    pixels_at: int

    def held(self, divisor: int) -> float:
        """Bytes that decoding at 1/`divisor` holds: the picture twice, and the coefficients if all are needed."""
        pixels = self.width * self.height
        return 8 * pixels / divisor**2 + (2 * self.samples * pixels if self.whole else 0)


def read_header(data: bytes) -> JpegHeader | None:
    """Read the markers up to the frame header; None if there is no whole one within reach."""
    orientation, position, between = 1, 2, 0
    parts: dict[int, bytes] = {}
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(data, position, position + MOST_BETWEEN + 2)
        if found is None:
            return None
        between += found.start() - position
        body = found.end() + 2
        marker = data[found.start() + 1]
        if marker in (_END, _SCAN) or body > len(data) or between > MOST_BETWEEN:
            return None
        after = body - 2 + int.from_bytes(data[body - 2 : body], "big")
        if marker in _START_OF_FRAME:
            return _frame(data, body, after, marker, orientation, parts)
        if marker == _APP1 and data[body : body + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[body + 6 : after])
        elif marker == _APP2 and data[body : body + 12] == _ICC and body + 12 < len(data):
            parts[data[body + 12]] = data[body + 14 : after]
        position = max(after, body)
    return None


def _frame(
    data: bytes, body: int, after: int, marker: int, orientation: int, parts: dict[int, bytes]
) -> JpegHeader | None:
    if body + 6 > len(data):
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", data, body)
    factors: list[int] = [(byte >> 4) * (byte & 15) for byte in data[body + 7 : body + 6 + 3 * components : 3]]
    samples = sum(factors) / max(factors) if max(factors, default=0) else components
    # A component that is subsampled in one direction only, beside one in the other, counts as more: never as less.
    scan = data.find(_SCAN_MARKER, after)
    in_scan = data[scan + 4] if 0 <= scan < len(data) - 4 else components
    whole = marker not in _SEQUENTIAL or in_scan < components
    profile = b"".join(parts[number] for number in sorted(parts))
    return JpegHeader(
        width, height, components, precision, samples, orientation, whole, profile, marker in _LOSSLESS, after
    )


def is_jpeg_ls(data: bytes) -> bool:
    """Whether it begins as a JPEG-LS, which has a frame header of its own."""
    return data.find(b"\xff\xf7", 2, MOST_BETWEEN) >= 0


def has_too_many_scans(data: bytes, header: JpegHeader) -> bool:
    """Whether its scans are more than any program writes, or would take many seconds."""
    scans = data.count(_SCAN_MARKER, header.pixels_at)
    return scans > MOST_SCANS or scans * header.width * header.height > MOST_SCANNED


def mended(data: bytes, header: JpegHeader) -> bytes | None:
    """The same JPEG with an end marker, if that is all it lacks; None if it has one, or if scans are missing.

    Whether the last scan is whole is seen only in decoding it. That no scan is missing: of every component, every
    coefficient has been sent down to its last bit.
    """
    if data.rfind(_END_MARKER, header.pixels_at) > data.rfind(_SCAN_MARKER):
        return None
    return data + _END_MARKER if _sends_everything(data, header) else None


def _sends_everything(data: bytes, header: JpegHeader) -> bool:
    missing_bits: dict[int, list[int]] = {}
    scan = data.find(_SCAN_MARKER, header.pixels_at)
    while scan >= 0:
        count = data[scan + 4] if scan + 4 < len(data) else 0
        components = data[scan + 5 : scan + 5 + 2 * count : 2]
        tail = data[scan + 5 + 2 * count : scan + 8 + 2 * count]
        if len(tail) < 3:
            return False
        first, last, low = tail[0], min(tail[1], 63), tail[2] & 15
        for component in components:
            bits = missing_bits.setdefault(component, [15] * 64)
            bits[first : last + 1] = [low] * (last - first + 1)
        scan = data.find(_SCAN_MARKER, scan + 2)
    return len(missing_bits) >= header.components and not any(any(bits) for bits in missing_bits.values())


def divisor(header: JpegHeader, least_size: int | None) -> int:
    """1, 2, 4 or 8: the most by which the image can be reduced if its shorter side is to keep `least_size` pixels.

    Powers of two have vector code; 3/8 to 7/8 of the size take longer to decode than all of it.
    """
    if least_size is None:
        return 1
    shorter = min(header.width, header.height)
    return next((divisor for divisor in DIVISORS if shorter >= divisor * least_size), 1)


def decode_turbo(data: bytes, header: JpegHeader, divisor: int) -> Image.Image | None:
    """Decode as stored (no rotation) at 1/`divisor` of the size, RGB or CMYK; None if Pillow has to judge."""
    kinds = _KINDS.get(header.components)
    if header.precision != 8 or kinds is None:
        return None
    colours, mode, raw_mode = kinds
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            colours,
            min_width=-(-header.width // divisor),
            min_height=-(-header.height // divisor),
            strict=True,
        )
    except (ValueError, RuntimeError, MemoryError):
        return None
    height, width = pixels.shape[:2]
    return Image.frombytes(mode, (width, height), pixels, "raw", raw_mode)


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
