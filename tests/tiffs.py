"""TIFF files from their parts, for what no library writes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import tifffile


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """What tifffile writes of `values`."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **{"metadata": None, **options})
    return buffer.getvalue()


def by_hand(tags: dict[int, int | tuple[int, ...]], data: bytes, order: str = "<") -> bytes:
    """A file of one strip: `data`. Tags that follow from it are added; values are written as 32-bit numbers."""
    every = {273: 8, 277: 1, 278: tags[257], 279: len(data), **tags}
    at = 8 + len(data)
    entries, more = b"", b""
    more_at = at + 2 + 12 * len(every) + 4
    for tag, value in sorted(every.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, more = struct.pack(order + "I", more_at + len(more)), more + packed
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    directory = struct.pack(order + "H", len(every)) + entries + bytes(4)
    return magic + struct.pack(order + "I", at) + data + directory + more


def packed(values: np.ndarray, bits: int) -> bytes:
    """Numbers of `bits` bits, highest first; each row begins at a byte."""
    digits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()
