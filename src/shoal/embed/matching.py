"""Which given embedding is which image's: by their order, or by their paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal.embed.given import Given
from shoal.embed.newcomers import Newcomers
from shoal.embeddings import PART_ROWS, Float32, Ids
from shoal.errors import DecodeError, EmbeddingsError
from shoal.images.folder import is_image_name
from shoal.images.gate import canonical
from shoal.images.item import Item
from shoal.images.location import file_uri, is_uri
from shoal.spool import Spool

Texts: TypeAlias = "pa.Array | pa.ChunkedArray"

NONE: Final = -1  # no row
NOT_GIVEN: Final = "no embedding is given for it"
NOT_FINITE: Final = "its embedding is empty, or holds NaN or infinite values"
ALL_ZEROS: Final = "its embedding is all zeros"
OUT_OF_RANGE: Final = "its embedding is too large or too small (expected numbers from 1e-15 to 1e15)"
LEAST, MOST = 1e-15, 1e15  # of a row's largest number: its square has to be a number in single precision, too


@dataclass(frozen=True, slots=True)
class Entries:
    """What a source lists, in its order: paths and URIs, and which of the paths are named like an image's."""

    paths: Texts
    uris: Texts
    is_named: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, items: Sequence[Item]) -> Entries:
        return cls.of_columns(pa.array([item.path for item in items]), pa.array([item.uri for item in items]))

    @classmethod
    def of_columns(cls, paths: Texts, uris: Texts) -> Entries:
        is_named = np.array([is_image_name(path.as_py()) for path in paths], np.bool_)
        return cls(paths.cast(pa.large_string()), uris.cast(pa.large_string()), is_named)

    def __len__(self) -> int:
        return len(self.is_named)


def rows_of(given: Given, entries: Entries) -> Ids:
    """The row of each entry's embedding, int64 [entries]; NONE where it has none.

    Raises:
        EmbeddingsError: their number is another, or no path is an entry's.
    """
    return _by_order(given, entries) if given.paths is None else _by_path(given, given.paths, entries)


def _by_order(given: Given, entries: Entries) -> Ids:
    """A row for every entry; or for those that are named like images, whatever else lies beside them."""
    named = int(entries.is_named.sum())
    if given.count == len(entries):
        return np.arange(len(entries))
    if given.count == named:
        return np.where(entries.is_named, np.cumsum(entries.is_named) - 1, NONE)
    images = f", {named:,} of them named like images" if named != len(entries) else ""
    raise EmbeddingsError(
        f"{given.name} has {given.count:,} rows, and the source lists {len(entries):,} files{images}; expected a row "
        "for each, in the source's order (or let SOURCE be a .txt with a path on each line, in the order of the rows)"
    )


def _by_path(given: Given, paths: pa.ChunkedArray, entries: Entries) -> Ids:
    rows = _found(entries.paths, paths)
    if (rows == NONE).any():
        rows = np.where(rows == NONE, _found(entries.uris, _as_uris(paths)), rows)
    if (rows == NONE).all():
        raise EmbeddingsError(
            f"{given.name} has {given.count:,} rows, and no path in it is one of the source's {len(entries):,} files; "
            f"its first is {_first(paths)}, the source's {_first(entries.paths)}; expected paths that are relative to "
            "the source, or full ones"
        )
    return rows


def _found(wanted: Texts, known: pa.ChunkedArray) -> Ids:
    rows: Ids = pc.fill_null(pc.index_in(wanted, value_set=known, skip_nulls=True), NONE).to_numpy(zero_copy_only=False)
    return rows.astype(np.int64)


def _as_uris(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(map(_as_uri, paths.to_pylist()), pa.large_string())])


def _as_uri(path: str | None) -> str | None:
    """Of a full path or a URI; None of a relative one."""
    try:
        if path is not None and is_uri(path):
            return canonical(path)
        return file_uri(path) if path is not None and os.path.isabs(path) else None  # noqa: PTH117
    except (DecodeError, ValueError):
        return None


def _first(paths: Texts) -> str:
    return repr(next((path.as_py() for path in paths if path.is_valid), ""))[:200]


def unusable(features: Float32) -> dict[int, str]:
    """Which rows of features are no use, and why."""
    largest = np.abs(features).max(axis=1)
    reasons = np.select(
        [~np.isfinite(largest), largest == 0, (largest < LEAST) | (largest > MOST)],
        [NOT_FINITE, ALL_ZEROS, OUT_OF_RANGE],
        "",
    )
    return {int(row): str(reasons[row]) for row in np.flatnonzero(reasons != "")}


def newcomers_of(given: Given, items: Iterable[Item], spool: Spool) -> Iterator[Newcomers]:
    """Items that belong to no run, with their given features, some at a time; no image is opened.

    Raises as `rows_of`, and as `Given.rows`.
    """
    listed = list(items)
    return _newcomers(given, zip(listed, rows_of(given, Entries.of(listed)).tolist(), strict=True), spool)


def _newcomers(given: Given, pairs: Iterator[tuple[Item, int]], spool: Spool) -> Iterator[Newcomers]:
    with given.rows(spool) as rows:
        while some := list(islice(pairs, PART_ROWS)):
            skipped = [(item, item.problem or NOT_GIVEN) for item, row in some if item.problem or row == NONE]
            usable = [(item, row) for item, row in some if not item.problem and row != NONE]
            features = rows.read(np.array([row for _, row in usable], np.int64))
            reasons = unusable(features)
            skipped += [(usable[place][0], reason) for place, reason in reasons.items()]
            good = [place for place in range(len(usable)) if place not in reasons]
            yield Newcomers([usable[place][0] for place in good], features[good], skipped)
