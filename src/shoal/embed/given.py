"""Embeddings that a person gives in place of a backbone's: an array, a .npy, or a Parquet table of paths and vectors.

They are looked at, and refused in one line, before any image is read; rows are read when they are wanted, from a file
by its own offsets: a memory map of a file that somebody cuts off meanwhile would end the process.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoal.embeddings import PART_ROWS, Float32, Ids
from shoal.errors import DecodeError, DiskSpaceError, EmbeddingsError
from shoal.images.folder import FolderSource
from shoal.images.gate import Gate
from shoal.images.item import Source
from shoal.images.location import file_uri, is_uri
from shoal.images.remote import RemoteSource
from shoal.images.storage import GONE
from shoal.rundir import digest_of
from shoal.runfiles import ARRAY as IN_MEMORY
from shoal.spool import Spool

MOST_DIMS: Final = 1 << 24
MOST_HEADER: Final = 1 << 16  # bytes of a .npy before its values
BLOCK_BYTES: Final = 8 << 20  # read at a time, about
ARRAY, TABLE = ".npy", ".parquet"
PATH, EMBEDDING = "path", "embedding"  # columns of a table
EXPECTED: Final = "float16, float32 or float64 [images, dimensions]"


class Rows(Protocol):
    """Vectors by number."""

    def read(self, numbers: Ids) -> Float32:
        """float32 [len(numbers), dim]; what single precision cannot hold is infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Embeddings that were given.

    Attributes:
        name: by which errors and reports call them.
        asked: what run.json keeps of them.
        digest: of all that they hold.
        count, dim: [count, dim].
        paths: whose embedding each row is; None: they are in the order of the source.
        named: digest of paths that tell it and are not in the file.
        file: where they lie, if they do.
        values: else they themselves.
    """

    name: str
    asked: str
    digest: str
    count: int
    dim: int
    paths: pa.ChunkedArray | None = None
    named: str = ""
    file: str = ""
    values: npt.NDArray[Any] | None = None

    @contextmanager
    def rows(self, spool: Spool) -> Iterator[Rows]:
        """Open them for reading. `spool` takes what has to be unpacked.

        Raises:
            EmbeddingsError: they were changed since they were looked at, or cannot be read. DiskSpaceError.
        """
        if self.values is not None:
            yield _ArrayRows(self.values)
            return
        with ExitStack() as opened:
            file = opened.enter_context(_open(self.file, self.name))
            if _digest(self.file, self.name) != self.digest:
                raise EmbeddingsError(f"{self.name} was changed while it was used; run the same command again")
            if self.file.lower().endswith(TABLE):
                unpacked = self._unpacked(spool, lambda target: _fill_from_table(self, file, target))
                yield opened.enter_context(unpacked)
                return
            stored = _Stored.open(file, self.name)
            if stored.is_fortran:
                yield opened.enter_context(self._unpacked(spool, lambda target: _fill_in_rows(stored, target)))
            else:
                yield stored

    @contextmanager
    def _unpacked(self, spool: Spool, fill: Callable[[BinaryIO], None]) -> Iterator[_Stored]:
        """The rows one after the other, in a file without a name on the disk that `spool` uses."""
        file = spool.file(f"embeddings {self.digest}", fill)
        if file is None:
            raise DiskSpaceError(
                f"there is no room for the {4 * self.count * self.dim:,} bytes that {self.name} takes unpacked"
            )
        with file:
            yield _Stored(file, self.name, np.dtype(np.float32), (self.count, self.dim), 0)


def open_given(given: str | os.PathLike[str] | npt.NDArray[Any]) -> Given:
    """Look at embeddings: an array [images, dimensions], or the path of a .npy or .parquet file.

    Raises:
        EmbeddingsError: they are something else, or cannot be read.
    """
    if isinstance(given, np.ndarray):
        return _open_array(given)
    if not isinstance(given, str | os.PathLike):
        raise EmbeddingsError(
            f"embeddings is of type {type(given).__name__}; expected an array, {EXPECTED}, or the path of a .npy or "
            ".parquet file"
        )
    name = os.fspath(given)
    path = os.path.abspath(os.path.expanduser(name))  # noqa: PTH100, PTH111  (as the gate names files)
    ending = Path(name).suffix.lower()
    if is_uri(name) or ending not in (ARRAY, TABLE):
        raise EmbeddingsError(f"--embeddings has value {name!r}; expected a .npy or .parquet file on this machine")
    with _open(path, name) as file, _told(name):
        if ending == ARRAY:
            count, dim = _Stored.open(file, name).shape
            paths = None
        else:
            paths, dim = _look_at_table(file, name)
            count = len(paths)
    return Given(name, path, _digest(path, name), count, dim, paths, file=path)


def in_order_of(given: Given, spec: Sequence[str], source: Source) -> Given:
    """Where several files were named, one for each row, a row is of the file that was named in its place.

    The source itself lists files by their paths, in whatever order they were named.
    """
    is_of_files = isinstance(source, FolderSource | RemoteSource) and len(spec) == given.count > 1
    if given.paths is not None or not is_of_files:
        return given
    uris = [one if is_uri(one) else file_uri(os.path.expanduser(one)) for one in spec]  # noqa: PTH111
    paths = pa.chunked_array([pa.array(uris, pa.large_string())])
    return dataclasses.replace(given, paths=paths, named=digest_of(uris))


# -- arrays --------------------------------------------------------------------------------------------------------


def _open_array(values: npt.NDArray[Any]) -> Given:
    name = "embeddings"
    _check(name, values.dtype, values.shape)
    state = hashlib.sha256()
    for start in range(0, len(values), PART_ROWS):
        state.update(np.ascontiguousarray(values[start : start + PART_ROWS]).data)
    digest = digest_of(state.hexdigest(), str(values.dtype), list(values.shape))
    count, dim = values.shape
    return Given(name, f"{IN_MEMORY}, {values.dtype} [{count}, {dim}]", digest, count, dim, values=values)


@dataclass(frozen=True, slots=True)
class _ArrayRows:
    values: npt.NDArray[Any]

    def read(self, numbers: Ids) -> Float32:
        return _single(self.values[numbers])


# -- .npy ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """The values of an array in an open file."""

    file: IO[bytes]
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    offset: int
    is_fortran: bool = False

    @classmethod
    def open(cls, file: IO[bytes], name: str) -> _Stored:
        """Read a .npy's header, which numpy parses without running anything."""
        head = io.BytesIO(file.read(MOST_HEADER))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote
                version = np.lib.format.read_magic(head)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, is_fortran, dtype = read[version](head, max_header_size=MOST_HEADER)
        except KeyError as error:  # the third is for names of fields in other scripts
            raise EmbeddingsError(f"{name} is a .npy of version {error.args[0][0]}; expected {EXPECTED}") from error
        except Exception as error:  # a damaged header is read as Python text, which fails in many ways
            raise EmbeddingsError(f"{name} is not readable as a .npy file; expected {EXPECTED}") from error
        _check(name, dtype, shape)
        offset = head.tell()
        size, needed = file.seek(0, os.SEEK_END), offset + shape[0] * shape[1] * dtype.itemsize
        if size < needed:
            raise EmbeddingsError(f"{name} is cut off: it has {size:,} bytes; expected {needed:,}")
        return cls(file, name, dtype, (shape[0], shape[1]), offset, is_fortran and min(shape) > 1)

    def read(self, numbers: Ids) -> Float32:
        found = np.empty((len(numbers), self.shape[1]), np.float32)
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        for where in np.split(np.arange(len(numbers)), breaks):
            if len(where):
                values = self.span(int(numbers[where[0]]) * self.shape[1], len(where) * self.shape[1])
                found[where] = _single(values.reshape(len(where), -1))
        return found

    def span(self, start: int, count: int) -> npt.NDArray[Any]:
        """`count` values from number `start`, as they lie in the file."""
        with _told(self.name):
            self.file.seek(self.offset + start * self.dtype.itemsize)
            data = self.file.read(count * self.dtype.itemsize)
        if len(data) < count * self.dtype.itemsize:
            raise EmbeddingsError(f"{self.name} was cut off while it was read")
        return np.frombuffer(data, self.dtype)


def _fill_in_rows(stored: _Stored, target: BinaryIO) -> None:
    """Write an array that lies column by column row by row."""
    count, dim = stored.shape
    block = max(1, BLOCK_BYTES // (4 * dim))
    for start in range(0, count, block):
        size = min(block, count - start)
        columns = np.empty((dim, size), np.float32)
        for column in range(dim):
            columns[column] = _single(stored.span(column * count + start, size))
        target.write(np.ascontiguousarray(columns.T).tobytes())


# -- tables --------------------------------------------------------------------------------------------------------


def _look_at_table(file: IO[bytes], name: str) -> tuple[pa.ChunkedArray, int]:
    """The paths of a table, and how many dimensions its embeddings have."""
    with pq.ParquetFile(file) as table:
        schema = table.schema_arrow
        if PATH not in schema.names or EMBEDDING not in schema.names:
            raise EmbeddingsError(
                f"{name} has the columns {', '.join(schema.names[:20])}; expected {PATH}, and {EMBEDDING} with a list "
                "of numbers in each row"
            )
        kind = schema.field(EMBEDDING).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not is_list or not pa.types.is_floating(kind.value_type):
            raise EmbeddingsError(
                f"{name}: column {EMBEDDING} is of type {kind}; expected a list of floats in each row"
            )
        if not pa.types.is_string(schema.field(PATH).type) and not pa.types.is_large_string(schema.field(PATH).type):
            raise EmbeddingsError(f"{name}: column {PATH} is of type {schema.field(PATH).type}; expected text")
        paths = table.read(columns=[PATH])[PATH].cast(pa.large_string())
        dim = kind.list_size if pa.types.is_fixed_size_list(kind) else next(_lengths(table), 0)
    counted = pc.value_counts(paths.drop_null())
    twice = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        path, times = twice[0]["values"].as_py(), twice[0]["counts"].as_py()
        raise EmbeddingsError(f"{name} has {times:,} rows for {path!r}; expected one for each image")
    _check_shape(name, (len(paths), dim), "a table of")
    return paths, dim


def _lengths(table: pq.ParquetFile) -> Iterator[int]:
    for batch in table.iter_batches(64, columns=[EMBEDDING], use_threads=False):
        yield from (length for length in pc.list_value_length(batch.column(0)).to_pylist() if length)


def _fill_from_table(given: Given, file: IO[bytes], target: BinaryIO) -> None:
    """Write the embeddings of a table one after the other, in single precision; a row without one is NaN."""
    rows = max(1, BLOCK_BYTES // (4 * given.dim))
    done = 0
    with _told(given.name), pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as table:
        for batch in table.iter_batches(rows, columns=[EMBEDDING], use_threads=False):
            column = batch.column(0)
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero((lengths != given.dim) & (lengths != 0))
            if len(wrong):
                raise EmbeddingsError(
                    f"{given.name}: row {done + int(wrong[0]):,} has {int(lengths[wrong[0]]):,} numbers; expected "
                    f"{given.dim:,}, as in the first"
                )
            values = np.full((len(column), given.dim), np.nan, np.float32)
            numbers = pc.list_flatten(column).cast(pa.float64()).to_numpy(zero_copy_only=False)
            values[lengths == given.dim] = _single(numbers.reshape(-1, given.dim))
            target.write(values.tobytes())
            done += len(column)


# -- all of them ---------------------------------------------------------------------------------------------------


def _check(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype.kind != "f" or dtype.itemsize > 8 or len(shape) != 2:
        raise EmbeddingsError(f"{name} holds {dtype} {list(shape)}; expected {EXPECTED}")
    _check_shape(name, shape, str(dtype))


def _check_shape(name: str, shape: tuple[int, ...], what: str) -> None:
    if shape[0] < 1 or not 1 <= shape[1] <= MOST_DIMS:
        raise EmbeddingsError(f"{name} holds {what} {list(shape)}; expected {EXPECTED}, none of them 0")


def _single(values: npt.NDArray[Any]) -> Float32:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _digest(path: str, name: str) -> str:
    """SHA-256 of a file, worked out once for as long as nothing speaks for a change of it."""
    with _told(name):
        status = Path(path).stat()
    return _digest_of(path, name, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=16)
def _digest_of(path: str, name: str, size: int, modified: int, inode: int) -> str:
    with _open(path, name) as file, _told(name):
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _open(path: str, name: str) -> IO[bytes]:
    with _told(name):
        return Gate().open(file_uri(path))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what reading a file raises into an EmbeddingsError that names it."""
    try:
        yield
    except (DecodeError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError) or str(error) == GONE:
            raise EmbeddingsError(f"{name} does not exist") from error
        words = getattr(error, "strerror", None) or str(error)
        raise EmbeddingsError(f"{name} cannot be read: {' '.join(words.split())[:200]}") from error
