"""Embeddings in a .npy file, read by its own offsets.

A memory map of a file that somebody cuts off meanwhile would end the process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shoal.array_header import ArrayHeader
from shoal.embed.vectors import BLOCK_BYTES, EXPECTED, check, single, telling_of
from shoal.embeddings import Float32, Ids
from shoal.errors import EmbeddingsError


@dataclass(frozen=True, slots=True)
class StoredArray:
    """The values of an array in an open file."""

    file: IO[bytes]
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    offset: int
    is_fortran: bool = False

    @classmethod
    def open(cls, file: IO[bytes], name: str) -> StoredArray:
        """Read the header.

        Raises:
            EmbeddingsError: it is no .npy, is cut off, or holds something else than embeddings.
        """
        try:
            header = ArrayHeader.read(file)
        except ValueError as error:
            raise EmbeddingsError(f"{name} is not readable as a .npy file: {error}; expected {EXPECTED}") from error
        dtype, shape, offset = header.dtype, header.shape, header.offset
        check(name, dtype, shape)
        size, needed = file.seek(0, os.SEEK_END), offset + shape[0] * shape[1] * dtype.itemsize
        if size < needed:
            raise EmbeddingsError(f"{name} is cut off: it has {size:,} bytes; expected {needed:,}")
        return cls(file, name, dtype, (shape[0], shape[1]), offset, header.is_fortran and min(shape) > 1)

    def read(self, numbers: Ids) -> Float32:
        found = np.empty((len(numbers), self.shape[1]), np.float32)
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        for where in np.split(np.arange(len(numbers)), breaks):
            if len(where):
                values = self._span(int(numbers[where[0]]) * self.shape[1], len(where) * self.shape[1])
                found[where] = single(values.reshape(len(where), -1))
        return found

    def fill_by_row(self, target: BinaryIO) -> None:
        """Write an array that lies column by column row by row, in single precision."""
        count, dim = self.shape
        block = max(1, BLOCK_BYTES // (4 * dim))
        for start in range(0, count, block):
            size = min(block, count - start)
            columns = np.empty((dim, size), np.float32)
            for column in range(dim):
                columns[column] = single(self._span(column * count + start, size))
            target.write(np.ascontiguousarray(columns.T).tobytes())

    def _span(self, start: int, count: int) -> npt.NDArray[Any]:
        """`count` values from number `start`, as they lie in the file."""
        with telling_of(self.name):
            self.file.seek(self.offset + start * self.dtype.itemsize)
            data = self.file.read(count * self.dtype.itemsize)
        if len(data) < count * self.dtype.itemsize:
            raise EmbeddingsError(f"{self.name} was cut off while it was read")
        return np.frombuffer(data, self.dtype)
