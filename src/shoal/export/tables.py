"""A run as one table: CSV with a row an image, CSV with a column a cluster, Parquet.

CSV is UTF-8 without a byte-order mark, quoted as RFC 4180 has it, with CRLF between records. Texts that a spreadsheet
would run as formulas are written as `shoal.cells` has it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoal.cells import guarded
from shoal.export.names import cluster_name, told_apart
from shoal.export.rows import BLOCK, Rows, positions_by_cluster
from shoal.parquet import codes, joined

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("cluster", pa.int32()),
        ("confidence", pa.float32()),
        ("unsure", pa.bool_()),
        ("runner_up", pa.int32()),
        ("silhouette", pa.float32()),
        ("duplicate_of", pa.string()),  # path of the original; null for an image that is none's duplicate
        ("uri", pa.string()),
        ("name", pa.string()),  # of the cluster; null if it has none
        ("name_strength", pa.float32()),  # of a name that is a guess, in nats; null for one that a person gave
    ]
)
PARQUET_ROWS = 1 << 20  # of a group, which is read and written at once
Cell = str | float | bool | None


def long_csv(rows: Rows) -> bytes:
    """One line an image, the columns of `SCHEMA`; what is null is an empty cell, a truth value is `true` or `false`."""
    return _csv_bytes([SCHEMA.names], _lines(table(rows)))


def wide_csv(rows: Rows) -> bytes:
    """One column a cluster, padded with empty cells: the stem of each file, or its path.

    The path stands where the stem would not tell which image is meant. Heads are names that people gave, see
    `told_apart`, and else `cluster_0` ….
    """
    texts, members = _telling(rows), positions_by_cluster(rows)
    numbered = {number: cluster_name(number) for number in members}
    shown = {number: rows.shown[number] for number in members if number in rows.shown}
    given = {number: one.name for number, one in shown.items() if not one.is_guess}
    heads = told_apart(numbered | given, {number: numbered[number] for number in given})
    whole = joined(texts)
    columns = [whole.take(pa.array(places)) for places in members.values()]
    return _csv_bytes([list(heads.values())], _side_by_side(columns))


def parquet(blocks: Iterable[pa.Table]) -> bytes:
    """Blocks of `table`, one after the other."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for block in blocks:
            writer.write_table(block.combine_chunks(), PARQUET_ROWS)
    return bytes(sink.getvalue())


def table(rows: Rows) -> pa.Table:
    """The columns of `SCHEMA`, typed."""
    clusters = pa.array(list(rows.shown), pa.int32())
    names = pa.array([shown.name for shown in rows.shown.values()], pa.string())
    strengths = pa.array([shown.strength for shown in rows.shown.values()], pa.float32())
    which = pc.index_in(rows.table["cluster"], value_set=clusters)
    called = {"name": names.take(which.combine_chunks()), "name_strength": strengths.take(which.combine_chunks())}
    columns = {**{name: rows.table[name] for name in SCHEMA.names if name not in called}, **called}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def _telling(rows: Rows) -> pa.ChunkedArray:
    """By which text each image is known in a list."""
    stems = pa.array((row.stem for row in rows), pa.string())
    paths, number = rows.table["path"], codes(stems)
    is_one = pa.array(np.bincount(number)[number] == 1)
    is_path = pc.is_in(stems, value_set=paths)
    is_telling = pc.and_(is_one, pc.or_(pc.equal(stems, paths), pc.invert(is_path)))
    return pc.if_else(is_telling, stems, paths)


def _lines(table: pa.Table) -> Iterator[Sequence[Cell]]:
    for batch in table.to_batches(BLOCK):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _side_by_side(columns: Sequence[pa.Array]) -> Iterator[Sequence[Cell]]:
    """Lines of columns of unequal length, padded with nothing."""
    block = max(1, BLOCK // max(len(columns), 1))
    for start in range(0, max(map(len, columns), default=0), block):
        parts = [column.slice(start, block).to_pylist() for column in columns]
        for line in range(max(map(len, parts))):
            yield [part[line] if line < len(part) else None for part in parts]


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(np.float32(value))  # the shortest text that reads back as the same float32
    return guarded(str(value)) if isinstance(value, str) else str(value)


def _csv_bytes(*parts: Iterable[Sequence[Cell]]) -> bytes:
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="utf-8", newline="", write_through=False) as text:
        for lines in parts:
            csv.writer(text, lineterminator="\r\n").writerows(map(_cell, line) for line in lines)
        text.flush()
        return written.getvalue()
