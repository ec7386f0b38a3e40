"""Numbers of any kind brought to grey levels: which of them is black and which is white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

INFERRED_BITS: Final = (10, 12, 14, 16, 24, 32)
ROWS_BYTES: Final = 1 << 24  # of the numbers that are worked on at a time

_TABLE: Final = 1 << 16  # numbers of 16 bits: for more of them than that, each is looked up

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that are black and white; `note` says how they were found, where that had to be inferred."""

    black: float
    white: float
    note: str | None = None


def find_range(values: Numbers, said: Range | None = None) -> Range:
    """Which numbers are black and white: what the file says, else what the numbers themselves tell.

    Whole numbers of 8 bits or less: their full range. Wider ones without a negative among them: the smallest of 10, 12,
    14, 16, 24, 32 bits, and of their own, that holds the greatest. Floats: 0 to 1 where all fit; 0 to 255 where all fit
    and the greatest is over 64. Everything else: from the least to the greatest. What is not finite does not count.

    Args:
        values: whole numbers or floats of any shape.
        said: what the file says, if it says so; not believed where a number lies outside.
    """
    kind, width = values.dtype.kind, 8 * values.dtype.itemsize
    if kind in "bu" and width <= 8 and said is None:
        return Range(0, 1 if kind == "b" else 255)
    least, most = _extremes(values)
    if said is not None and said.black <= least and most <= said.white and said.black < said.white:
        return said
    if kind == "f":
        return _range_of_floats(least, most)
    if least < 0:
        return Range(least, most, f"{width}-bit numbers with signs, from {least} to {most}")
    own = width - (kind == "i")
    bits = next(bits for bits in (*(bits for bits in INFERRED_BITS if bits < own), own) if most < 2**bits)
    return Range(0, 2**bits - 1, f"{bits} bits in {width}, told by the brightest value" if bits < own else None)


def to_levels(values: Numbers, found: Range) -> npt.NDArray[np.uint8]:
    """Grey levels 0..255 of the same shape, rounded; what is not finite becomes black."""
    if values.dtype == np.uint8 and (found.black, found.white) == (0, 255):
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2 and values.size > _TABLE:
        every = np.arange(_TABLE >> 16 - 8 * values.dtype.itemsize, dtype=values.dtype.newbyteorder("="))
        return to_levels(every, found)[values]
    levels = np.empty(values.shape, np.uint8)
    black, half = found.black / 2, found.white / 2 - found.black / 2  # halves: the whole may be more than a float holds
    step = max(1, ROWS_BYTES // max(1, values[:1].size * 8))
    for start in range(0, len(values), step):
        with np.errstate(invalid="ignore"):  # a NaN that signals
            rows = values[start : start + step].astype(np.float64)
        rows[~np.isfinite(rows)] = found.black
        part = np.clip((rows / 2 - black) / half, 0.0, 1.0) if half > 0 else np.zeros_like(rows)
        levels[start : start + step] = part * 255.0 + 0.5
    return levels


def _range_of_floats(least: float, most: float) -> Range:
    if least >= 0 and most <= 1:
        return Range(0.0, 1.0)
    if least >= 0 and 64 < most <= 255:
        return Range(0.0, 255.0, "floats, taken as 0 to 255")
    return Range(least, most, f"floats, from {least:.4g} to {most:.4g}")


def _extremes(values: Numbers) -> tuple[float, float]:
    if values.dtype.kind != "f":
        return (int(values.min()), int(values.max())) if values.size else (0, 0)
    least, most = np.inf, -np.inf
    step = max(1, ROWS_BYTES // max(1, values[:1].size * values.dtype.itemsize))
    for start in range(0, len(values), step):
        rows = values[start : start + step]
        finite = rows[np.isfinite(rows)]
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
    return (least, most) if least <= most else (0.0, 0.0)
