"""The tables of a run directory: their columns, and how they are read and written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoal import atomic, foreign, parquet
from shoal.errors import RunError

OK: Final = "ok"
SKIPPED: Final = "skipped"
DUPLICATE: Final = "duplicate"
VANISHED: Final = "vanished"

IMAGES: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime", pa.float64()),  # seconds since the epoch; null where the source has none
        ("sha256", pa.string()),
        ("width", pa.int32()),  # pixels as stored, before EXIF rotation
        ("height", pa.int32()),
        ("status", pa.string()),
        (
            "reason",
            pa.string(),
        ),  # why it was skipped or vanished; of an ok one what decoding had to infer or choose, or null
        ("duplicate_of", pa.int64()),  # id of the original; null otherwise
    ]
)
LABELS: Final = pa.schema([("id", pa.int64()), ("label", pa.string())])
CLUSTERS: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("cluster", pa.int32()),
        ("confidence", pa.float32()),  # 0 to 1
        ("unsure", pa.bool_()),
        ("silhouette", pa.float32()),  # -1 to 1
        ("runner_up", pa.int32()),
    ]
)
MAP: Final = pa.schema([("id", pa.int64()), ("x", pa.float32()), ("y", pa.float32())])
MOST_ROWS: Final = 1 << 28
GROUP_ROWS: Final = 1 << 16  # that are read together: who needs some rows of a large table need not read all
HASHED_ROWS: Final = 1 << 16  # at a time: texts of all rows may be more than fit into one array
_SCHEMAS: Final = {  # by the names of files
    "images.parquet": IMAGES,
    "listing.parquet": IMAGES,
    "labels.parquet": LABELS,
    "clusters.parquet": CLUSTERS,
    "map.parquet": MAP,
    "choose_k.parquet": pa.schema([("k", pa.int32())]),
    "levels.parquet": pa.schema([("id", pa.int64()), ("coarse", pa.int32()), ("fine", pa.int32())]),
    "sweep.parquet": pa.schema([("id", pa.int64())]),
}
_NEEDED: Final = frozenset(("id", "path", "uri", "status", "cluster", "coarse", "fine", "k"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically. The same table gives the same bytes."""
    with atomic.replacing(path) as temporary:
        whole = table.combine_chunks()  # pages would end where chunks do
        pq.write_table(whole, temporary, compression="zstd", row_group_size=GROUP_ROWS)


def digest_of_images(images: pa.Table) -> str:
    """A digest of the images that have a cluster, usable ones and their duplicates; not of places, not of times."""
    clustered = images.filter(pc.is_in(images["status"], pa.array([OK, DUPLICATE])))
    state = hashlib.sha256()
    for name in ("id", "path", "sha256", "status", "duplicate_of"):
        for start in range(0, len(clustered), HASHED_ROWS):
            some = clustered[name].slice(start, HASHED_ROWS).combine_chunks()
            texts = pc.fill_null(some.cast(pa.string()), "None")
            state.update(b"\0" if start else b"")
            update(state, pc.binary_join_element_wise(texts[:-1], "", "\0"))
            update(state, texts[-1:])
        state.update(b"\n")
    return state.hexdigest()


def update(state: hashlib._Hash, texts: pa.StringArray) -> None:
    """Add texts that have no nulls to a hash, one right after the other."""
    _, offsets, data = texts.buffers()
    if len(texts) and data is not None:
        places = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        state.update(memoryview(data)[places[0] : places[-1]])


def count_rows(path: Path) -> int:
    """Of a Parquet file. Raises as `read_table`."""
    with _opened(path) as opened:
        return int(opened.metadata.num_rows)


def read_table(path: Path, columns: list[str] | None = None, rows: range | None = None) -> pa.Table:
    """A Parquet file, or some of its columns, or some of its rows, one after the other.

    Raises:
        FileNotFoundError: there is none.
        RunError: it is not readable, or a column that is known here is missing, of another type, or has no value where
            each row needs one.
    """
    with _opened(path) as opened:
        if opened.metadata.num_rows > MOST_ROWS:
            raise RunError(f"{path} has {opened.metadata.num_rows:,} rows; expected at most {MOST_ROWS:,}")
        missing = sorted(set(columns or ()) - set(opened.schema_arrow.names))
        if missing:
            raise RunError(f"{path} has no column {missing[0]!r}; expected {', '.join(columns or ())}")
        table = parquet.whole(opened, columns) if rows is None else _some_rows(opened, columns, rows)
        table.validate(full=True)  # texts that are none, for one
    for field in _SCHEMAS.get(path.name, ()):
        if field.name in table.column_names:
            _check_column(path, field, table[field.name])
        elif columns is None:
            raise RunError(f"{path} has no column {field.name!r}")
    return table


@contextmanager
def _opened(path: Path) -> Iterator[parquet.File]:
    try:
        with foreign.plain_file(path) as file, parquet.opened(file) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise RunError(f"{path} is not readable as a table: {' '.join(str(error).split())[:200]}") from error


def _some_rows(opened: parquet.File, columns: list[str] | None, rows: range) -> pa.Table:
    """Rows of the groups that hold some of `rows`, without the others."""
    sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    stops = list(accumulate(sizes))
    groups = [
        group
        for group, (size, stop) in enumerate(zip(sizes, stops, strict=True))
        if stop > rows.start and stop - size < rows.stop
    ]
    first = stops[groups[0]] - sizes[groups[0]] if groups else 0
    return parquet.whole(opened, columns, groups).slice(rows.start - first, len(rows))


def by_id(table: pa.Table) -> pa.Table:
    """By rising id. It nearly always is: sorting would hold every value twice."""
    return table if (np.diff(table["id"].to_numpy()) > 0).all() else parquet.in_order(table, "id")


def _check_column(path: Path, field: pa.Field, column: pa.ChunkedArray) -> None:
    if column.type != field.type:
        raise RunError(f"{path}: column {field.name!r} is of type {column.type}; expected {field.type}")
    if field.name in _NEEDED and column.null_count:
        raise RunError(f"{path}: column {field.name!r} has {column.null_count:,} rows without a value; expected none")
