"""Embeddings in a Parquet table of paths and vectors.

A file may say that it holds far more than it has bytes for, so nothing is read before what it says was looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoal import parquet
from shoal.embed.vectors import BLOCK_BYTES, check_shape, quoted, single, telling_of
from shoal.errors import EmbeddingsError

PATH, EMBEDDING = "path", "embedding"
MOST_PATH: Final = 1 << 14  # bytes of a path or URI
MOST_TIMES: Final = 1000  # what a file holds may be so many times its size
LITTLE: Final = 256 << 20  # bytes; or at most this
VALUE_BYTES: Final = 8  # of a number at most, and of a place in a table
PATHS_AT_A_TIME: Final = 1 << 14


def look_at_table(file: IO[bytes], name: str) -> tuple[pa.ChunkedArray, int]:
    """The paths of a table, large_string [rows], and how many dimensions its embeddings have.

    Raises:
        EmbeddingsError: it has no such columns, holds a path twice, or says that it holds vastly more than its size.
    """
    size = file.seek(0, os.SEEK_END)
    with parquet.opened(file) as table:
        kind = _checked_columns(table.schema_arrow, name)
        _check_size(name, size, _claimed(table.metadata))
        dim = kind.list_size if pa.types.is_fixed_size_list(kind) else next(_lengths(table), 0)
    # As a dictionary a path that is repeated is held once, however often.
    with parquet.opened(file, [PATH]) as table:
        paths = pa.chunked_array(_paths(table, name, size), pa.large_string())
    counted = pc.value_counts(paths.drop_null())
    twice = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        raise _is_twice(name, twice[0])
    check_shape(name, (len(paths), dim), "a table of")
    return paths, dim


def fill_from_table(file: IO[bytes], name: str, dim: int, target: BinaryIO) -> None:
    """Write the embeddings of a table one after the other, in single precision; a row without one is NaN.

    Raises:
        EmbeddingsError: it cannot be read, or a row has another number of dimensions.
    """
    rows = max(1, BLOCK_BYTES // (VALUE_BYTES * dim))
    done = 0
    with telling_of(name), parquet.opened(file) as table:
        for batch in parquet.batches(table, rows, [EMBEDDING]):
            column = batch.column(EMBEDDING)
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero((lengths != dim) & (lengths != 0))
            if len(wrong):
                raise EmbeddingsError(
                    f"{name}: row {done + int(wrong[0]):,} has {int(lengths[wrong[0]]):,} numbers; expected "
                    f"{dim:,}, as in the first"
                )
            values = np.full((len(column), dim), np.nan, np.float32)
            numbers = pc.list_flatten(column).cast(pa.float64()).to_numpy(zero_copy_only=False)
            values[lengths == dim] = single(numbers.reshape(-1, dim))
            target.write(values.tobytes())
            done += len(column)


def _checked_columns(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of the embeddings. Raises EmbeddingsError unless there is one column of each kind, of its type."""
    if PATH not in schema.names or EMBEDDING not in schema.names:
        raise EmbeddingsError(
            f"{name} has the columns {quoted(', '.join(schema.names[:20]))}; expected {PATH}, and {EMBEDDING} with a "
            "list of numbers in each row"
        )
    for column in (PATH, EMBEDDING):
        if schema.names.count(column) > 1:
            raise EmbeddingsError(f"{name} has {schema.names.count(column)} columns called {column}; expected one")
    kind = schema.field(EMBEDDING).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise EmbeddingsError(
            f"{name}: column {EMBEDDING} is of type {quoted(kind)}; expected a list of floats in each row"
        )
    path = schema.field(PATH).type
    text = path.value_type if pa.types.is_dictionary(path) else path
    if not (pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_string_view(text)):
        raise EmbeddingsError(f"{name}: column {PATH} is of type {quoted(path)}; expected text")
    return kind


def _claimed(metadata: pq.FileMetaData) -> int:
    """How many bytes the two columns take unpacked, by what the file says."""
    claimed = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in (PATH, EMBEDDING):
                claimed += max(chunk.total_uncompressed_size, chunk.num_values * VALUE_BYTES)
    return claimed


def _check_size(name: str, size: int, unpacked: int) -> None:
    if unpacked > max(LITTLE, MOST_TIMES * size):
        raise EmbeddingsError(
            f"{name} has {size:,} bytes, and would take {unpacked:,} unpacked; expected at most {MOST_TIMES:,} times "
            "as many"
        )


def _paths(table: parquet.File, name: str, size: int) -> Iterator[pa.LargeStringArray]:
    unpacked = 0
    for batch in parquet.batches(table, PATHS_AT_A_TIME, [PATH]):
        column = batch.column(PATH)
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        known = column.dictionary.cast(pa.large_string())
        longest = pc.max(pc.binary_length(known)).as_py() or 0
        if longest > MOST_PATH:
            raise EmbeddingsError(f"{name} has a path of {longest:,} bytes; expected at most {MOST_PATH:,}")
        counted = pc.value_counts(column.indices.drop_null())
        twice = counted.filter(pc.greater(counted.field("counts"), 1))
        if len(twice):
            first = twice[0]
            raise _is_twice(name, {"values": known[first["values"].as_py()], "counts": first["counts"]})
        paths = known.take(column.indices)
        unpacked += paths.nbytes
        _check_size(name, size, unpacked)
        yield paths


def _is_twice(name: str, counted: pa.StructScalar | dict[str, pa.Scalar]) -> EmbeddingsError:
    path, times = counted["values"].as_py(), counted["counts"].as_py()
    return EmbeddingsError(f"{name} has {times:,} rows for {quoted(repr(path))}; expected one for each image")


def _lengths(table: parquet.File) -> Iterator[int]:
    for batch in parquet.batches(table, 64, [EMBEDDING]):
        yield from (length for length in pc.list_value_length(batch.column(EMBEDDING)).to_pylist() if length)
