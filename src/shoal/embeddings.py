"""The format of `embeddings/`: immutable parts of fixed id ranges, a manifest, memory-mapped reading.

Row i of the whole is the image with id i; rows of images that are not `ok` are zeros. Values are raw (not
normalised) features as the backbone gives them; readers normalise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from shoal import foreign
from shoal.array_header import memory_map
from shoal.errors import RunError
from shoal.halves import fill
from shoal.runfiles import Folder
from shoal.typed import Between, Like, OneOf

PART_ROWS = 1024  # of a part of the first images, so that little is lost where little is done
SMALL_PARTS = 1024
LARGE_PART_ROWS = 16_384  # of all further parts, so that a hundred million images are some thousand files
SUMMED = 8192  # columns, numpy's buffer

Float32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def part_of(ids: Ids) -> Ids:
    """The number of the part that each id lies in: by the id alone, so that a run that grows keeps its parts."""
    beyond = ids - SMALL_PARTS * PART_ROWS
    return np.where(beyond < 0, ids // PART_ROWS, SMALL_PARTS + beyond // LARGE_PART_ROWS)


def part_range(number: int, rows: int) -> range:
    """The ids of a part, of a run that has `rows` of them."""
    if number < SMALL_PARTS:
        return range(number * PART_ROWS, min((number + 1) * PART_ROWS, rows))
    start = SMALL_PARTS * PART_ROWS + (number - SMALL_PARTS) * LARGE_PART_ROWS
    return range(start, min(start + LARGE_PART_ROWS, rows))


def by_part(ids: Ids) -> list[Ids]:
    """Rising ids, cut where parts end."""
    return np.split(ids, np.flatnonzero(np.diff(part_of(ids))) + 1) if len(ids) else []


def part_count(rows: int) -> int:
    """How many parts hold so many ids."""
    return int(part_of(np.array([rows - 1]))[0]) + 1 if rows else 0


@dataclass(frozen=True, slots=True)
class EmbeddingStore:
    """Reads an `embeddings/` folder. Parts are memory-mapped when touched, never held."""

    folder: Folder
    rows: int
    dim: int
    dtype: str
    parts: tuple[str, ...]  # file names; part p holds the ids of `part_range`

    @classmethod
    def open(cls, folder: Folder) -> EmbeddingStore:
        """Raises RunError if the embeddings are not finished."""
        manifest = read_manifest(folder)
        if manifest is None:
            raise RunError(
                f"{folder / 'manifest.json'} is not there: no finished embeddings; run the same shoal cluster again"
            )
        return cls(folder, manifest.rows, manifest.dim, manifest.dtype, tuple(part.file for part in manifest.parts))

    def part(self, number: int) -> npt.NDArray[Any]:
        """One part as a read-only memory map, [rows of the part, dim]. Raises RunError if it is another array."""
        size = len(part_range(number, self.rows))
        return read_array(self.folder / self.parts[number], (size, self.dim), np.dtype(self.dtype))

    def read(self, ids: Ids, columns: slice = slice(None)) -> Float32:
        """Rows of `ids`, in that order, as a new float32 array [len(ids), dim], or only some of its columns.

        Raises:
            RunError: a part is not there, is another array, or holds NaN or infinite values.
        """
        out = np.empty((len(ids), len(range(self.dim)[columns])), dtype=np.float32)
        if (np.diff(ids) < 0).any():  # else a part would be opened again for each id
            order = np.argsort(ids, kind="stable")
            out[order] = self.read(ids[order], columns)
            return out
        parts = part_of(ids)
        edges = np.flatnonzero(np.diff(parts, prepend=-1)).tolist()
        for first, end in pairwise([*edges, len(ids)]):
            number = int(parts[first])
            rows = _rows_of(self.part(number), ids[first:end] - part_range(number, self.rows).start)
            if not fill(out[first:end], rows[:, columns]):  # no encoder's features are written so
                raise RunError(f"{self.folder / self.parts[number]} holds NaN or infinite values; expected numbers")
        return out

    def blocks(self, ids: Ids, size: int = 8192) -> Iterator[tuple[slice, Float32]]:
        """Yield (slice into ids, rows) for consecutive blocks of `ids`."""
        for start in range(0, len(ids), size):
            where = slice(start, min(start + size, len(ids)))
            yield where, self.read(ids[where])


def _rows_of(part: npt.NDArray[Any], places: Ids) -> npt.NDArray[Any]:
    """The rows at these places; where they lie side by side, as they lie there."""
    first, end = int(places[0]), int(places[-1]) + 1
    if end - first == len(places) and (np.diff(places) == 1).all():
        return part[first:end]
    return part[places]


@dataclass(frozen=True, slots=True)
class _Part:
    file: Annotated[str, Like(re.compile(r"part-[0-9]{5,7}\.npy"), "part-NUMBER.npy")]


@dataclass(frozen=True, slots=True)
class Manifest:
    rows: Annotated[int, Between(0, 1 << 40)]
    dim: Annotated[int, Between(1, 1 << 24)]
    dtype: Annotated[str, OneOf(("float16", "float32"))]
    parts: tuple[_Part, ...]


def read_manifest(folder: Folder) -> Manifest | None:
    """What the embeddings in `folder` are; None while they are not finished. Raises RunError if it is not readable."""
    path = folder / "manifest.json"
    try:
        manifest = foreign.read_json(path, Manifest)
    except FileNotFoundError:
        return None
    expected = part_count(manifest.rows)
    if len(manifest.parts) != expected:
        raise RunError(
            f"{path}: parts has {len(manifest.parts):,} values; expected {expected:,}, as {manifest.rows:,} rows have"
        )
    return manifest


def read_array(path: Path, shape: tuple[int | None, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array of a run as a read-only memory map; no pickle.

    Args:
        shape: that it has to have; None: any number.

    Raises:
        RunError: it is not there, cut off, or another array.
    """
    found = memory_map(path)
    fits = found.ndim == len(shape) and all(
        wanted is None or wanted == size for wanted, size in zip(shape, found.shape, strict=True)
    )
    if not fits or found.dtype != dtype:
        expected = f"{dtype} [{', '.join('n' if size is None else str(size) for size in shape)}]"
        raise RunError(f"{path} holds {found.dtype} {list(found.shape)}; expected {expected}")
    return found


def normalise_rows(values: Float32) -> Float32:
    """Scale each row to unit length in place (zero rows stay zero) and return the array."""
    norms = lengths_of(values)[:, None]
    np.divide(values, norms, out=values, where=norms > 0)
    return values


def lengths_of(values: Float32) -> Float32:
    """Euclidean length of each row [n, d], float32 [n], equal for equal rows."""
    squares = np.zeros(len(values), dtype=values.dtype)
    for part in _columns(values):
        squares += np.einsum("nd,nd->n", values[:, part], values[:, part])
    return np.sqrt(squares)


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
