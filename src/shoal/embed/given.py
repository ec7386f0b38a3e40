"""Embeddings that a person gives in place of a backbone's: an array, a .npy, or a Parquet table of paths and vectors.

They are looked at, and refused in one line, before any image is read; rows are read when they are wanted.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shoal.embed.npy import StoredArray
from shoal.embed.vector_table import fill_from_table, look_at_table
from shoal.embed.vectors import EXPECTED, Rows, check, opened, single, telling_of
from shoal.embeddings import PART_ROWS, Float32, Ids
from shoal.errors import DiskSpaceError, EmbeddingsError
from shoal.images.location import display_path, is_uri
from shoal.images.sources import named_by
from shoal.rundir import digest_of
from shoal.runfiles import IN_MEMORY
from shoal.spool import Spool

ARRAY, TABLE = ".npy", ".parquet"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Embeddings that were given.

    Attributes:
        name: by which errors and reports call them.
        asked: what run.json keeps of them.
        digest: of all that they hold.
        count, dim: [count, dim].
        dtype: what the run keeps them as: float16 or float32.
        paths: whose embedding each row is; None: they are in the order of the source.
        named: where several words name the source: what they name, in their order, as URIs.
        file: where they lie, if they do.
        values: else they themselves.
    """

    name: str
    asked: str
    digest: str
    count: int
    dim: int
    dtype: str
    paths: pa.ChunkedArray | None = None
    named: tuple[str, ...] = ()
    file: str = ""
    values: npt.NDArray[Any] | None = None

    def of_source(self, spec: Sequence[str]) -> Given:
        """For a source that is named so: a row is of the file that was named in its place, not listed there.

        Raises:
            SourceError: a pattern matches nothing.
        """
        return self if self.paths is not None else dataclasses.replace(self, named=named_by(spec))

    @contextmanager
    def rows(self, spool: Spool) -> Iterator[Rows]:
        """Open them for reading. `spool` takes what has to be unpacked.

        Raises:
            EmbeddingsError: they were changed since they were looked at, or cannot be read. DiskSpaceError.
        """
        if self.values is not None:
            yield _ArrayRows(self.values)
            return
        with ExitStack() as until_the_end:
            file = until_the_end.enter_context(opened(self.file, self.name))
            if _digest(self.file, self.name) != self.digest:
                raise EmbeddingsError(f"{self.name} was changed while it was used; run the same command again")
            if self.file.lower().endswith(TABLE):
                unpacked = self._unpacked(spool, lambda target: fill_from_table(file, self.name, self.dim, target))
                yield until_the_end.enter_context(unpacked)
                return
            stored = StoredArray.open(file, self.name)
            if stored.is_fortran:
                yield until_the_end.enter_context(self._unpacked(spool, stored.fill_by_row))
            else:
                yield stored

    @contextmanager
    def _unpacked(self, spool: Spool, fill: Callable[[BinaryIO], None]) -> Iterator[StoredArray]:
        """The rows one after the other, in a file without a name on the disk that `spool` uses."""
        file = spool.file(f"embeddings {self.digest}", fill)
        if file is None:
            raise DiskSpaceError(
                f"there is no room for the {4 * self.count * self.dim:,} bytes that {self.name} takes unpacked"
            )
        with file:
            yield StoredArray(file, self.name, np.dtype(np.float32), (self.count, self.dim), 0)


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
    text = os.fspath(given)
    path, name = os.path.abspath(os.path.expanduser(text)), display_path(text)  # noqa: PTH100, PTH111  (as SOURCE is)
    ending = Path(path).suffix.lower()
    if is_uri(text) or ending not in (ARRAY, TABLE):
        raise EmbeddingsError(f"--embeddings has value {name!r}; expected a .npy or .parquet file on this machine")
    with opened(path, name) as file, telling_of(name):
        if ending == ARRAY:
            stored = StoredArray.open(file, name)
            (count, dim), dtype, paths = stored.shape, _kept_as(stored.dtype), None
        else:
            paths, dim = look_at_table(file, name)
            count, dtype = len(paths), "float32"
    return Given(name, path, _digest(path, name), count, dim, dtype, paths, file=path)


def _open_array(values: npt.NDArray[Any]) -> Given:
    name = "embeddings"
    check(name, values.dtype, values.shape)
    state = hashlib.sha256()
    for start in range(0, len(values), PART_ROWS):
        state.update(np.ascontiguousarray(values[start : start + PART_ROWS]).data)
    digest = digest_of(state.hexdigest(), str(values.dtype), list(values.shape))
    count, dim = values.shape
    return Given(
        name, f"{IN_MEMORY}, {values.dtype} [{count}, {dim}]", digest, count, dim, _kept_as(values.dtype), values=values
    )


def _kept_as(given: np.dtype[Any]) -> str:
    return "float16" if given == np.float16 else "float32"


@dataclass(frozen=True, slots=True)
class _ArrayRows:
    values: npt.NDArray[Any]

    def read(self, numbers: Ids) -> Float32:
        return single(self.values[numbers])


def _digest(path: str, name: str) -> str:
    """SHA-256 of a file, worked out once for as long as nothing speaks for a change of it."""
    with telling_of(name):
        status = Path(path).stat()
    return _digest_of(path, name, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=16)
def _digest_of(path: str, name: str, size: int, modified: int, inode: int) -> str:
    with opened(path, name) as file, telling_of(name):
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
