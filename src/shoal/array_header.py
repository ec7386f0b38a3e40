"""What a .npy file says of itself before its values (NEP 1): type, order and shape.

numpy reads this line as Python text, by Python's own parser; and CPython before 3.11.8 and 3.12.2 fails there at random
while another thread parses too ("AST constructor recursion depth mismatch", python/cpython issue 106905).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from shoal.errors import RunError

MAGIC: Final = b"\x93NUMPY"
MOST_BYTES: Final = 1 << 16  # an array of numbers needs 128
_ENTRY: Final = (
    r"""['"](?:descr['"]\s*:\s*['"](?P<descr>[^'"\\]{2,16})['"]"""
    r"""|fortran_order['"]\s*:\s*(?P<order>True|False)"""
    r"""|shape['"]\s*:\s*\((?P<shape>[\d\sL,]*)\))\s*"""
)
_TEXT: Final = re.compile(r"\{\s*(?:X(?:,\s*X){2})(?:,\s*)?\}\s*".replace("X", re.sub(r"\?P<\w+>", "?:", _ENTRY)))
_VALUES: Final = re.compile(_ENTRY)


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    offset: int  # bytes before the values

    @classmethod
    def read(cls, file: IO[bytes]) -> ArrayHeader:
        """The header of an array of numbers, from the start of `file`.

        Raises:
            ValueError: it is none; says why in a few words.
        """
        start = file.read(8)
        if len(start) < 8 or start[:6] != MAGIC:
            raise ValueError("it does not begin as a .npy file")
        if start[6] not in (1, 2):
            raise ValueError(f"version {start[6]} of .npy")  # the third is for names of fields in other scripts
        layout = "<H" if start[6] == 1 else "<I"
        count = file.read(struct.calcsize(layout))
        if len(count) < struct.calcsize(layout):
            raise ValueError("its header is cut off")
        (size,) = struct.unpack(layout, count)
        if size > MOST_BYTES:
            raise ValueError(f"its header has {size:,} bytes")
        text = file.read(size)
        if len(text) < size:
            raise ValueError("its header is cut off")
        return cls(*_parsed(text.decode("latin-1")), offset=8 + len(count) + size)


def _parsed(text: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    found = {}
    if _TEXT.fullmatch(text):
        found = {match.lastgroup: match[match.lastgroup] for match in _VALUES.finditer(text) if match.lastgroup}
    if len(found) < 3:
        raise ValueError("it holds records" if re.match(r"\{\s*'descr'\s*:\s*\[", text) else "its header is damaged")
    try:
        dtype = np.dtype(found["descr"])
        shape = tuple(int(size.strip("L ")) for size in found["shape"].split(",") if size.strip())
    except (TypeError, ValueError) as error:
        raise ValueError("its header is damaged") from error
    return dtype, shape, found["order"] == "True"


def memory_map(path: Path) -> npt.NDArray[Any]:
    """The array in a file as a read-only memory map.

    Raises:
        RunError: it is not there, cut off, or none.
    """
    try:
        with path.open("rb") as file:
            header = ArrayHeader.read(file)
            if header.dtype.hasobject:
                raise ValueError("it holds Python objects")
            order: Literal["C", "F"] = "F" if header.is_fortran else "C"
            if 0 in header.shape:  # nothing can be mapped
                return np.empty(header.shape, header.dtype, order)
            return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)
    except (OSError, ValueError, OverflowError) as error:
        raise RunError(f"{path} is not readable as an array: {' '.join(str(error).split())[:200]}") from error
