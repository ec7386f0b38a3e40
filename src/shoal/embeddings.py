"""The format of `embeddings/`: immutable parts of fixed id ranges, a manifest, memory-mapped reading.

Row i of the whole is the image with id i; rows of images that are not `ok` are zeros. Values are raw (not
normalised) features as the backbone gives them; readers normalise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import RunError
from shoal.runfiles import Folder

PART_ROWS = 1024
SUMMED = 8192  # columns, numpy's buffer

Float32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EmbeddingStore:
    """Reads an `embeddings/` folder. Parts are memory-mapped when touched, never held."""

    folder: Folder
    rows: int
    dim: int
    dtype: str
    parts: tuple[str, ...]  # file names; part p holds ids p * PART_ROWS up to the next part's first

    @classmethod
    def open(cls, folder: Folder) -> EmbeddingStore:
        """Raises RunError if the embeddings are not finished."""
        manifest = read_manifest(folder)
        if manifest is None:
            raise RunError(
                f"{folder / 'manifest.json'} is not there: no finished embeddings; run the same shoal cluster again"
            )
        return cls(
            folder,
            manifest["rows"],
            manifest["dim"],
            manifest["dtype"],
            tuple(part["file"] for part in manifest["parts"]),
        )

    def part(self, number: int) -> npt.NDArray[Any]:
        """One part as a read-only memory map, [rows of the part, dim]."""
        mapped: npt.NDArray[Any] = np.load(self.folder / self.parts[number], mmap_mode="r")
        return mapped

    def read(self, ids: Ids, columns: slice = slice(None)) -> Float32:
        """Rows of `ids`, in that order, as a new float32 array [len(ids), dim], or only some of its columns."""
        out = np.empty((len(ids), len(range(self.dim)[columns])), dtype=np.float32)
        part_of = ids // PART_ROWS
        for number in np.unique(part_of):
            wanted = np.flatnonzero(part_of == number)
            out[wanted] = self.part(int(number))[ids[wanted] - number * PART_ROWS, columns]
        return out

    def blocks(self, ids: Ids, size: int = 8192) -> Iterator[tuple[slice, Float32]]:
        """Yield (slice into ids, rows) for consecutive blocks of `ids`."""
        for start in range(0, len(ids), size):
            where = slice(start, min(start + size, len(ids)))
            yield where, self.read(ids[where])


def read_manifest(folder: Folder) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def normalise_rows(values: Float32) -> Float32:
    """Scale each row to unit length in place (zero rows stay zero) and return the array."""
    squares = np.zeros(len(values), dtype=values.dtype)
    for part in _columns(values):
        squares += np.einsum("nd,nd->n", values[:, part], values[:, part])
    norms = np.sqrt(squares)[:, None]
    np.divide(values, norms, out=values, where=norms > 0)
    return values


def products(rows: Float32, others: Float32) -> Float32:
    """Dot products of `rows` [n, d] with `others` [m, d], float32 [n, m], equal for equal rows wherever they lie.

    BLAS rounds each by its place in the matrix, which parts equal images where the last bit decides. Here every one is
    a sum in the same order. It takes far longer than BLAS: for what is near a tie, or little.
    """
    found = np.zeros((len(rows), len(others)), dtype=np.float32)
    for part in _columns(rows):
        found += np.einsum("nd,md->nm", rows[:, part], others[:, part])
    return found


def _columns(rows: Float32) -> Iterator[slice]:
    """Slices of columns that einsum adds up in one go: a longer row it would cut only if it had no other to do."""
    for start in range(0, rows.shape[1], SUMMED):
        yield slice(start, start + SUMMED)
