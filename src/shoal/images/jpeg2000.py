"""JPEG 2000 beyond what Pillow makes of it: what its headers say, and colours of more than 8 bits."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np
from PIL import Image

from shoal.errors import DecodeError
from shoal.images.levels import Range, find_range, to_levels
from shoal.images.reasons import imagecodecs

DEEP_HELD: Final = 45.0  # bytes a pixel of deep colours: OpenJPEG has four bytes for each number
_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_RESTRICTED, _ANY = 2, 3  # ways in which a profile may be given
_ENUMERATED, _INKS, _SYCC = 1, 12, 18


@dataclass(frozen=True, slots=True)
class Jpeg2000Header:
    """Channels, bits of each, whether they have signs, the enumerated colour space (0: none), the ICC profile."""

    channels: int
    bits: int
    is_signed: bool
    space: int
    profile: bytes

    @property
    def is_deep(self) -> bool:
        """Whether it has colours of more than 8 bits: Pillow, rounding, turns their brightest white to black."""
        return self.channels > 1 and self.bits > 8

    @property
    def range(self) -> Range | None:
        """What its numbers mean, if it says so: 16 bits are what programs write for any number of them."""
        return None if self.bits == 16 else Range(0, 2**self.bits - 1)


def read_header(data: bytes) -> Jpeg2000Header:
    """Raises struct.error: it is cut off."""
    start = data.find(_CODESTREAM)
    channels, depth = struct.unpack_from(">HB", data, start + 40) if start >= 0 else (0, 0)
    space, profile = 0, b""
    colour = data.find(b"colr", 0, start)
    if colour >= 4:
        (length,) = struct.unpack_from(">I", data, colour - 4)
        method = data[colour + 4]
        if method == _ENUMERATED:
            (space,) = struct.unpack_from(">I", data, colour + 7)
        elif method in (_RESTRICTED, _ANY):
            profile = data[colour + 7 : colour - 4 + length]
    return Jpeg2000Header(channels, (depth & 0x7F) + 1, depth >= 0x80, space, profile)


def deep_decoder(header: Jpeg2000Header) -> ModuleType:
    """Raises DecodeError: it needs a package that is not installed, or has channels that are not read."""
    kind = f"JPEG 2000 with {header.channels} channels of {header.bits} bits"
    if header.channels > 4 or header.space == _SYCC:
        raise DecodeError(f"{kind}{', YCbCr,' if header.space == _SYCC else ''} is not read")
    return imagecodecs(kind)


def read_deep(data: bytes, header: Jpeg2000Header) -> tuple[Image.Image, str | None]:
    """The 8-bit image, LA, RGB, RGBA or CMYK, and a note where bits had to be inferred.

    Raises:
        DecodeError: as `deep_decoder` does.
        Exception: whatever imagecodecs raises for a broken file.
    """
    values = deep_decoder(header).jpeg2k_decode(data)
    if header.is_signed:
        values = (values.astype(np.int32) + (1 << header.bits - 1)).astype(np.uint16)
    colours = header.channels if header.space == _INKS or header.channels % 2 else header.channels - 1
    found = find_range(values[..., :colours], header.range)
    levels = np.ascontiguousarray(to_levels(values[..., :colours], found))
    if header.space == _INKS and colours == 4:
        return Image.fromarray(levels, "CMYK"), found.note
    opacity = to_levels(values[..., colours:], Range(0, 2**header.bits - 1))
    return Image.fromarray(np.concatenate([levels, opacity], axis=-1)), found.note
