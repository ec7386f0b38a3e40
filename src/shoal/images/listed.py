"""What a source lists, as columns: a million entries take a few hundred bytes each, and no Python object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet
from shoal.images.formats import IMAGE_EXTENSIONS
from shoal.images.item import Item
from shoal.images.left_out import LeftOut
from shoal.spool import Spool

Texts: TypeAlias = "pa.Array | pa.ChunkedArray"
Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime", pa.float64()),
        ("label", pa.string()),
        ("problem", pa.string()),
    ]
)
BLOCK: Final = 8192  # entries that are Python objects at a time
NUMBERED: Final = r"#\d+$"  # how paths end that were told apart
# The last part of a path, and its ending as `os.path.splitext` has it: dots in front are no ending.
_ENDING: Final = r"(?:^|/)[.]*[^./][^/]*[.](?P<ending>[^./]+)$"
_ENDINGS: Final = pa.array(sorted(IMAGE_EXTENSIONS))


@dataclass(frozen=True, slots=True)
class Listed:
    """The entries of a source, in its order: a table of `SCHEMA`, whose columns are the fields of `Item`."""

    table: pa.Table

    @classmethod
    def of(cls, items: Iterable[Item]) -> Listed:
        """Collect items, which are gone through once."""
        remaining, batches = iter(items), []
        while some := list(islice(remaining, BLOCK)):
            columns = [pa.array([getattr(item, field.name) for item in some], field.type) for field in SCHEMA]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        return cls(pa.Table.from_batches(batches, SCHEMA))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def paths(self) -> pa.ChunkedArray:
        return self.table["path"]

    @property
    def uris(self) -> pa.ChunkedArray:
        return self.table["uri"]

    def items(self) -> Iterator[Item]:
        """The entries one by one."""
        for batch in self.table.to_batches(BLOCK):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Item(*values)

    def item(self, number: int) -> Item:
        return Item(*(column[number].as_py() for column in self.table.columns))

    def where(self, mask: Bools) -> Listed:
        """The entries for which `mask` [entries] is true."""
        return self if mask.all() else Listed(self.table.filter(pa.array(mask)))

    def named_like_images(self) -> Bools:
        """Which entries have the name of an image's file and no problem, [entries]."""
        has_problem: Bools = pc.is_valid(self.table["problem"]).to_numpy()
        return named_like_images(self.paths) & ~has_problem

    def below(self, place: str) -> Listed:
        """The entries with URIs that begin with `place`."""
        return self._with("uri", pc.binary_join_element_wise(place, self.uris, ""))

    def by_path(self) -> Listed:
        """Ordered by path, then URI; entries that are equal in both are one."""
        table = parquet.in_order(self.table, "path", "uri").combine_chunks()
        if table.num_rows < 2:
            return Listed(table)
        is_again = pc.and_(*(pc.equal(table[name][1:], table[name][:-1]) for name in ("path", "uri"))).to_numpy()
        return Listed(table).where(np.concatenate([[True], ~is_again]))

    def with_distinct_paths(self) -> Listed:
        """Entries whose path was seen before are numbered (`a.jpg#2`), since ids belong to paths."""
        codes = parquet.codes(self.paths)
        counts = np.bincount(codes)
        if len(counts) == len(codes):
            return self
        # No other path is given a number, or is one that is given.
        concerned = np.flatnonzero((counts[codes] > 1) | pc.match_substring_regex(self.paths, NUMBERED).to_numpy())
        numbered = pa.array(_numbered(parquet.take(self.paths, pa.array(concerned)).to_pylist()), pa.string())
        return self._with("path", replaced(self.paths, concerned, numbered))

    def with_class_labels(self) -> Listed:
        """Labelled by folder if laid out as class/file, with two classes or more; otherwise as they are."""
        depth = pc.count_substring(self.paths, "/").to_numpy()
        is_image = named_like_images(self.paths)
        if (depth[is_image] != 1).any():
            return self
        folders = pc.struct_field(pc.extract_regex(self.paths, r"^(?P<folder>[^/]*)/[^/]*$"), "folder")
        if pc.count_distinct(folders.filter(pa.array(is_image))).as_py() < 2:
            return self
        return self._with("label", folders)

    def _with(self, name: str, values: Texts) -> Listed:
        return Listed(self.table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), values))


class Source(Protocol):
    """A place that holds images."""

    @property
    def identity(self) -> str:
        """Canonical text: two sources are the same if and only if it is equal."""

    @property
    def name(self) -> str:
        """A short name, fit for a file name."""

    @property
    def spool(self) -> Spool:
        """Where what was fetched of it is kept."""

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every entry, in an order that only depends on what the source holds; no two have the same path.

        The folders that are not looked into are added to `left_out`.

        Raises:
            SourceError: the source cannot be listed.
        """


def named_like_images(paths: Texts) -> Bools:
    """Which paths have an ending that images have, [paths]."""
    endings = pc.struct_field(pc.extract_regex(paths, _ENDING), "ending")
    found: Bools = pc.is_in(pc.utf8_lower(endings), value_set=_ENDINGS).to_numpy(zero_copy_only=False)
    return found


def is_image_name(name: str) -> bool:
    """Has a file's name an ending that images have?"""
    return os.path.splitext(name)[1][1:].lower() in IMAGE_EXTENSIONS


def replaced(values: Texts, places: Positions, others: Texts) -> pa.ChunkedArray:
    """`values` with `others` at `places`, which rise."""
    which = np.arange(len(values))
    which[places] = len(values) + np.arange(len(places))
    return parquet.take(chained(values, others), pa.array(which))


def chained(*columns: Texts) -> pa.ChunkedArray:
    """One column after the other."""
    parts = [column.chunks if isinstance(column, pa.ChunkedArray) else [column] for column in columns]
    return pa.chunked_array([chunk for chunks in parts for chunk in chunks], columns[0].type)


def _numbered(paths: Iterable[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for path in paths:
        count = seen.get(path, 0) + 1
        seen[path] = count
        if count == 1:
            yield path
            continue
        number = f"{path}#{count}"
        while number in seen:
            count += 1
            number = f"{path}#{count}"
        seen[path] = count  # the next looks no further back
        seen[number] = 1
        yield number
