"""Writing so that what exists is whole: a temporary name beside the target, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

FILLED_BYTES = 2**24  # of one value that are written at a time

Places = int | slice | npt.NDArray[np.int64]
Fill = Callable[[Places, npt.NDArray[Any]], None]


@contextmanager
def replacing(target: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it takes the target's place on success and is removed on an error.

    `temporary`: where nobody else writes, a path that is always the same, so that what a kill leaves is taken up again.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if temporary is None:
        temporary = _beside(target)
    else:
        temporary.unlink(missing_ok=True)
    usual = _usual_mode(temporary)
    try:
        with _told_of(target):
            yield temporary
        temporary.chmod(usual)  # safetensors makes files that nobody but their owner may read
        sync(temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def making_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, of which there is none: it gets that name, or is removed on an error."""
    temporary = _beside(target)
    try:
        with _told_of(target):
            temporary.mkdir(parents=True)
            yield temporary
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _told_of(target: Path) -> Iterator[None]:
    """Have errors of the operating system be OSErrors that name a file, whichever library met them."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(target)) from error
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(target)) from error


def _beside(target: Path) -> Path:
    """A temporary name beside `target` that tells whose it is."""
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _usual_mode(path: Path) -> int:
    """The permissions that a new file gets in that place."""
    path.touch(exist_ok=False)
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def write_bytes(target: Path, data: bytes, temporary: Path | None = None) -> None:
    with replacing(target, temporary) as written:
        written.write_bytes(data)


def write_json(target: Path, value: Any, temporary: Path | None = None) -> None:
    write_bytes(target, json_bytes(value), temporary)


def json_bytes(value: Any) -> bytes:
    """Readable JSON (sorted keys, UTF-8, trailing newline): the same value gives the same bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # the name of a file that is no text: JSON's escapes keep it
        return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def write_array(target: Path, array: npt.NDArray[Any]) -> None:
    """Write what `np.save` writes, byte by byte; but a full disk is told as such."""
    with writing_array(target, array.shape, array.dtype) as append:
        append(array)


@contextmanager
def writing_array(
    target: Path, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> Iterator[Callable[[npt.NDArray[Any]], None]]:
    """Yield what takes the rows of an array of that shape, some at a time; then it is what `write_array` writes."""
    with replacing(target) as written, written.open("wb") as file:
        _write_header(file, shape, dtype)
        yield lambda rows: _write_rows(file, np.ascontiguousarray(rows, dtype))


@contextmanager
def filling_array(target: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, value: float = 0) -> Iterator[Fill]:
    """Yield what puts rows at places of an array of one value, in any order; then it is what `write_array` writes.

    Several threads may put rows at once. The value is written out first, so that a full disk is told here and nobody
    writes to a map that has no room.
    """
    # Windows neither renames nor removes a file that is mapped: nobody is given the map, nor an array that keeps it.
    with replacing(target) as filled, filled.open("w+b") as file:
        _write_header(file, shape, dtype)
        start = file.tell()
        block = max(1, FILLED_BYTES // max(1, math.prod(shape[1:]) * np.dtype(dtype).itemsize))
        for row in range(0, shape[0], block):
            _write_rows(file, np.full((min(block, shape[0] - row), *shape[1:]), value, dtype))
        file.flush()
        with mmap.mmap(file.fileno(), 0) as mapped:

            def fill(places: Places, rows: npt.NDArray[Any]) -> None:
                np.frombuffer(mapped, dtype, math.prod(shape), start).reshape(shape)[places] = rows

            yield fill
            mapped.flush()


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_rows(file: BinaryIO, rows: npt.NDArray[Any]) -> None:
    file.write(rows.data)


def give_second_name(file: Path, other: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(file, other)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EROFS):
            raise
        shutil.copy2(file, other)
        sync(other)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Windows cannot open folders, and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
