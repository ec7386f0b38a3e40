"""Tables read, and put in order, by the thread that asks for them.

Arrow's own threads may still hold a Python object, such as the file they read from, when the interpreter ends; taking
its lock then ends the thread, and with it the process, which aborts or waits for ever after all its work is done
(apache/arrow issues 34314 and 50482). So no thread of Arrow's is begun here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

File: TypeAlias = pq.ParquetFile  # noqa: TID251

MOST_TEXT: Final = 2**31 - 1  # bytes in one array of texts, which counts them in 32 bits
TAKEN_ROWS: Final = 1 << 16  # of texts that are too long for one array
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
    return take_rows(table, pc.sort_indices(table, sort_keys=list(zip(columns, orders, strict=True))))


def take_rows(table: pa.Table, places: pa.Array) -> pa.Table:
    """The rows at these places, null for null, however long the texts of a column are together."""
    if all(_fits(column) for column in table.columns):
        return table.take(places)
    return pa.table([take(column, places) for column in table.columns], schema=table.schema)


def take(column: pa.ChunkedArray, places: pa.Array) -> pa.ChunkedArray:
    """The values at these places, null for null; Arrow's own take makes one array of all texts, if they fit."""
    if _fits(column):
        return column.take(places)
    whole = joined(column)
    blocks = (places.slice(start, TAKEN_ROWS) for start in range(0, len(places), TAKEN_ROWS))
    return pa.chunked_array([whole.take(block).cast(pa.string()) for block in blocks], pa.string())


def _fits(column: pa.ChunkedArray) -> bool:
    return column.type != pa.string() or int(column.nbytes) <= MOST_TEXT


def joined(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """Texts as one array, however long they are together."""
    found = texts.cast(pa.large_string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def codes(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Numbers of texts without nulls, [n]: equal ones have the same, counting from 0 as new ones come."""
    found: npt.NDArray[np.int32] = joined(texts).dictionary_encode().indices.to_numpy()
    return found
