"""Reading image bytes out of rows of Parquet files, quick in order and bounded in memory in any order."""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from shoal import parquet
from shoal.errors import DecodeError
from shoal.images.gate import Gate
from shoal.images.storage import reading_errors, too_large

MOST_BATCH_ROWS: Final = 1024
BATCH_BYTES: Final = 8 << 20  # about; a batch is what is unpacked at a time
WINDOW_BYTES: Final = 64 << 20  # of one row group, kept behind the reading point
OPEN_GROUPS: Final = 4
_BYTES_COLUMNS: Final = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")


def bytes_column(schema: pa.Schema) -> str | None:
    """The column that holds image bytes, as Parquet names it (`image`, or `image.bytes` in a struct), or None."""
    for name in _BYTES_COLUMNS:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if _is_binary(kind):
            return name
        if pa.types.is_struct(kind) and any(child.name == "bytes" and _is_binary(child.type) for child in kind):
            return f"{name}.bytes"
    return None


class RowReader:
    """Reads rows from any number of Parquet files; may be used from several threads.

    A row group is read forwards in batches, and the last WINDOW_BYTES of it are kept: rows in about ascending order
    are read once. A row before the window starts its group anew.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {}
        self._groups: OrderedDict[tuple[str, int], _Group] = OrderedDict()

    def read(self, uri: str, row: int) -> bytes:
        """Image bytes of row number `row`, from 0, of the file at `uri`.

        Raises:
            DecodeError: the file is gone or broken, or the row holds no bytes.
        """
        with self._lock, reading_errors():
            table = self._tables.get(uri)
            if table is None:
                table = self._tables[uri] = _Table.open(self._gate, uri)
            number, row_in_group = table.find(row)
            data = self._group(table, number).read(row_in_group)
        problem = "the row holds no image bytes" if data is None else too_large(len(data))
        if data is None or problem is not None:
            raise DecodeError(problem or "")
        return data

    def _group(self, table: _Table, number: int) -> _Group:
        key = (table.uri, number)
        group = self._groups.get(key)
        if group is None:
            while len(self._groups) >= OPEN_GROUPS:
                self._groups.popitem(last=False)
            group = self._groups[key] = _Group(table, number)
        self._groups.move_to_end(key)
        return group


@dataclass(slots=True)
class _Table:
    gate: Gate
    uri: str
    column: str
    starts: list[int]  # first row of each row group, and the number of all rows

    @classmethod
    def open(cls, gate: Gate, uri: str) -> _Table:
        with gate.open(uri) as stream, parquet.opened(stream) as file:
            column = bytes_column(file.schema_arrow)
            if column is None:
                raise DecodeError("the table has no column of image bytes any more")
            starts = [0]
            for number in range(file.num_row_groups):
                starts.append(starts[-1] + file.metadata.row_group(number).num_rows)
        return cls(gate, uri, column, starts)

    def find(self, row: int) -> tuple[int, int]:
        """The row group of a row, and its place there."""
        if row >= self.starts[-1]:
            raise DecodeError("the table does not have this row any more")
        number = bisect.bisect_right(self.starts, row) - 1
        return number, row - self.starts[number]


@dataclass(slots=True)
class _Group:
    table: _Table
    number: int
    batches: Iterator[pa.Array] | None = None
    window: deque[tuple[int, pa.Array]] = field(default_factory=deque)  # first row and values of a batch
    window_bytes: int = 0
    next_row: int = 0

    def read(self, row: int) -> bytes | None:
        if self.batches is None or (self.next_row > row and (not self.window or row < self.window[0][0])):
            self._start()
        while row >= self.next_row:
            self._advance()
        for start, values in reversed(self.window):
            if row >= start:
                data: bytes | None = values[row - start].as_py()
                return data
        raise DecodeError("the table does not have this row any more")

    def _start(self) -> None:
        self.window.clear()
        self.window_bytes = self.next_row = 0
        self.batches = _batches(self.table, self.number)

    def _advance(self) -> None:
        values = next(self.batches, None) if self.batches is not None else None
        if values is None:
            raise DecodeError("the table does not have this row any more")
        self.window.append((self.next_row, values))
        self.next_row += len(values)
        self.window_bytes += values.nbytes
        while self.window_bytes > WINDOW_BYTES and len(self.window) > 1:
            _, dropped = self.window.popleft()
            self.window_bytes -= dropped.nbytes


def _batches(table: _Table, number: int) -> Iterator[pa.Array]:
    # Buffered, and not fetched before: pages are read as they are needed, not the whole column of a group at once.
    with (
        table.gate.open(table.uri) as stream,
        parquet.opened(stream) as file,
    ):
        group = file.metadata.row_group(number)
        row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
        rows = min(max(1, BATCH_BYTES // row_bytes), MOST_BATCH_ROWS)
        for batch in parquet.batches(file, rows, [table.column], [number]):
            values: Any = batch.column(0)
            yield values.field("bytes") if pa.types.is_struct(values.type) else values


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
