"""A run as one table: CSV with a row an image, CSV with a column a cluster, Parquet.

CSV is UTF-8 without a byte-order mark, quoted as RFC 4180 has it, with CRLF between records. Texts that a spreadsheet
would run as formulas are written as `shoal.cells` has it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoal.cells import guarded
from shoal.export.names import cluster_name
from shoal.export.rows import Row

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


def long_csv(rows: list[Row]) -> bytes:
    """One line an image, the columns of `SCHEMA`; what is null is an empty cell, a truth value is `true` or `false`."""
    lines = [[_cell(getattr(row, name)) for name in SCHEMA.names] for row in rows]
    return _csv_bytes([SCHEMA.names, *lines])


def wide_csv(rows: list[Row]) -> bytes:
    """One column a cluster, headed `cluster_0` …, padded with empty cells: the stem of each file, or its path.

    The path stands where the stem would not tell which image is meant.
    """
    columns: dict[int, list[str]] = {number: [] for number in sorted({row.cluster for row in rows})}
    stems, paths = Counter(row.stem for row in rows), {row.path for row in rows}
    for row in rows:
        is_telling = stems[row.stem] == 1 and (row.stem == row.path or row.stem not in paths)
        columns[row.cluster].append(row.stem if is_telling else row.path)
    given = {row.cluster: row.name for row in rows if row.name_strength is None}
    header = [given.get(number) or cluster_name(number) for number in columns]
    lines = [header, *map(list, zip_longest(*columns.values(), fillvalue=""))]
    return _csv_bytes([[_cell(text) for text in line] for line in lines])


def parquet(rows: list[Row]) -> bytes:
    """The columns of `SCHEMA`, typed."""
    table = pa.table({name: [getattr(row, name) for row in rows] for name in SCHEMA.names}, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(np.float32(value))  # the shortest text that reads back as the same float32
    return guarded(str(value)) if isinstance(value, str) else str(value)


def _csv_bytes(lines: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()
