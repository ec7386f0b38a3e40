"""Tables read, and put in order, by the thread that asks for them.

Arrow's own threads may still hold a Python object, such as the file they read from, when the interpreter ends; taking
its lock then ends the thread, and with it the process, which aborts or waits for ever after all its work is done
(apache/arrow issues 34314 and 50482). So no thread of Arrow's is begun here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

File: TypeAlias = pq.ParquetFile  # noqa: TID251

PIECE_BYTES: Final = 1 << 20  # that are read at once of a column: pages as they are needed, not all of a row group


def opened(file: IO[bytes], read_dictionary: Sequence[str] = ()) -> File:
    """A Parquet file; those columns of texts as dictionaries, which hold a repeated one once. Close it, as a context.

    Raises:
        pa.ArrowException, OSError: it is none, or cannot be read.
    """
    named = list(read_dictionary)
    return File(file, buffer_size=PIECE_BYTES, pre_buffer=False, read_dictionary=named)


def batches(
    table: File, rows: int, columns: Sequence[str], row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of all row groups or of some, at most `rows` rows at once."""
    groups = None if row_groups is None else list(row_groups)
    yield from table.iter_batches(rows, row_groups=groups, columns=list(columns), use_threads=False)


def whole(table: File, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None) -> pa.Table:
    """All columns or some, of all row groups or of some."""
    groups = range(table.num_row_groups) if row_groups is None else row_groups
    return table.read_row_groups(list(groups), columns=None if columns is None else list(columns), use_threads=False)


def in_order(table: pa.Table, *columns: str, last_first: bool = False) -> pa.Table:
    """Rows by a column, those equal in it by the next one; by falling values of the first one if `last_first`."""
    orders: list[Literal["ascending", "descending"]] = ["descending" if last_first else "ascending"]
    orders += ["ascending"] * (len(columns) - 1)
    return table.take(pc.sort_indices(table, sort_keys=list(zip(columns, orders, strict=True))))
