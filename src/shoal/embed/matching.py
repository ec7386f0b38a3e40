"""Which given embedding is which image's: by their order, or by their paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal.embed.given import Given
from shoal.embed.newcomers import Newcomers
from shoal.embed.vectors import quoted
from shoal.embeddings import Float32, Ids
from shoal.errors import DecodeError, EmbeddingsError
from shoal.images.contents import look_at_all
from shoal.images.gate import canonical
from shoal.images.listed import Listed, Texts, named_like_images
from shoal.images.location import file_uri, is_uri, split_fragment
from shoal.images.reading import ImageReader
from shoal.spool import Spool

NONE: Final = -1  # no row
SOME: Final = 1024  # new images that are looked at before their rows are read
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
    def of(cls, paths: Texts, uris: Texts) -> Entries:
        return cls(paths.cast(pa.large_string()), uris.cast(pa.large_string()), named_like_images(paths))

    def __len__(self) -> int:
        return len(self.is_named)


def rows_of(given: Given, entries: Entries) -> Ids:
    """The row of each entry's embedding, int64 [entries]; NONE where it has none.

    Raises:
        EmbeddingsError: their number is another, or no path is an entry's.
    """
    return _by_order(given, entries) if given.paths is None else _by_path(given, given.paths, entries)


def require_rows(given: Given, listed: Listed) -> None:
    """Refuse embeddings that do not fit what a source lists, before any of it is read. Raises as `rows_of`."""
    rows_of(given, Entries.of(listed.paths, listed.uris))


def _by_order(given: Given, entries: Entries) -> Ids:
    """A row for every entry; or for those that are named like images, whatever else lies beside them."""
    order = _order(given, entries)
    is_named = entries.is_named[order]
    named = int(is_named.sum())
    if given.count in (len(entries), named):
        rows = np.full(len(entries), NONE)
        rows[order if given.count == len(entries) else order[is_named]] = np.arange(given.count)
        return rows
    images = f", {named:,} of them named like images" if named != len(entries) else ""
    raise EmbeddingsError(
        f"{given.name} has {given.count:,} rows, and the source lists {len(entries):,} files{images}; expected a row "
        "for each, in the source's order (or let SOURCE be a .txt with a path on each line, in the order of the rows)"
    )


def _order(given: Given, entries: Entries) -> Ids:
    """The numbers of the entries in the order that the rows have.

    Files that were named one by one have the order in which they were named. Where folders or tables were named among
    other things, it is the source's order; where theirs is another, rows could be meant either way.
    """
    order = np.arange(len(entries))
    if not given.named:
        return order
    places = _found(entries.uris, pa.chunked_array([pa.array(given.named, pa.large_string())]))
    if (places != NONE).all():
        return np.argsort(places, kind="stable")
    places = _places_of_roots(given.named, entries.uris)
    backwards = np.flatnonzero((places[1:] < places[:-1]) | (places[1:] == NONE))
    if len(backwards) or places[0] == NONE:
        first = entries.paths[int(backwards[0]) + 1 if places[0] != NONE else 0].as_py()
        raise EmbeddingsError(
            f"{given.name} has rows in an order, and SOURCE names folders, patterns or tables among other things, in "
            f"another order than that in which they are listed ({quoted(repr(first))} comes elsewhere); expected one "
            "folder, files alone, or a .txt with a path on each line, in the order of the rows"
        )
    return order


def _places_of_roots(named: Sequence[str], uris: Texts) -> Ids:
    """The number of the first thing named that each URI is or lies in; NONE if there is none."""
    numbers = {uri.rstrip("/"): number for number, uri in reversed(list(enumerate(named)))}
    return np.fromiter((_place_of(uri.as_py(), numbers) for uri in uris), np.int64, len(uris))


def _place_of(uri: str, numbers: Mapping[str, int]) -> int:
    base, _ = split_fragment(uri)
    found = []
    while base:
        found += [numbers[base]] if base in numbers else []
        base = base.rpartition("/")[0]
    return min(found, default=NONE)


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
    return quoted(repr(next((path.as_py() for path in paths if path.is_valid), "")))


def unusable(features: Float32) -> dict[int, str]:
    """Which rows of features are no use, and why."""
    largest = np.abs(features).max(axis=1)
    reasons = np.select(
        [~np.isfinite(largest), largest == 0, (largest < LEAST) | (largest > MOST)],
        [NOT_FINITE, ALL_ZEROS, OUT_OF_RANGE],
        "",
    )
    return {int(row): str(reasons[row]) for row in np.flatnonzero(reasons != "")}


def newcomers_of(given: Given, listed: Listed, spool: Spool) -> Iterator[Newcomers]:
    """Images that belong to no run, with their given features, some at a time; what is no image has none.

    Raises as `rows_of`, and as `Given.rows`.
    """
    return _newcomers(given, listed, rows_of(given, Entries.of(listed.paths, listed.uris)), spool)


def _newcomers(given: Given, listed: Listed, rows: Ids, spool: Spool) -> Iterator[Newcomers]:
    reader = ImageReader(spool)
    with given.rows(spool) as opened:
        for start in range(0, len(listed), SOME):
            part = Listed(listed.table.slice(start, SOME))
            some = list(part.items())
            readable = part.where(pc.is_null(part.table["problem"]).to_numpy())
            looked_at = look_at_all(readable.paths, readable.uris, reader)
            problems = [item.problem or next(looked_at).reason for item in some]
            of_some = rows[start : start + SOME]
            is_wanted = np.array([problem is None for problem in problems], np.bool_) & (of_some != NONE)
            usable = [some[place] for place in np.flatnonzero(is_wanted).tolist()]
            features = opened.read(of_some[is_wanted])
            reasons = unusable(features)
            skipped = [(some[place], problems[place] or NOT_GIVEN) for place in np.flatnonzero(~is_wanted).tolist()] + [
                (usable[place], reason) for place, reason in reasons.items()
            ]
            good = [place for place in range(len(usable)) if place not in reasons]
            yield Newcomers([usable[place] for place in good], features[good], skipped)
