"""What was fetched or unpacked, kept on disk until a command ends, so that nothing is fetched or unpacked twice.

The files have no names where the system allows that: nobody has to clear them away, whatever is killed.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from shoal.disk import nearest_existing

MOST_BYTES: Final = 1 << 36
LEFT_FREE: Final = 1 << 30  # bytes of the disk that others may need meanwhile
CHECK_BYTES: Final = 16 << 20  # so much is written between two looks at the disk

Fill = Callable[[BinaryIO], None]


class Spool:
    """Bytes by key. What there is no room for is not kept. May be used from several threads.

    Args:
        folder: on the disk to be used, made when it is needed; None: where temporary files lie.
        most_bytes: kept at most, together.

    Attributes:
        keeps_all: whole remote files are kept too, for a command that comes back to them; without it only archives that
            can be had as a whole only.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.keeps_all = False
        self._folder = folder
        self._room = _Room(folder, most_bytes)
        self._lock = threading.Lock()
        self._small: _Stored | None = None
        self._places: dict[str, tuple[int, int]] = {}  # of small things: offset and size in their common file
        self._large: dict[str, _Stored | None] = {}  # None: no room
        self._under_way: dict[str, threading.Lock] = {}

    def settle(self, folder: Path) -> None:
        """From now on keep everything, in `folder`."""
        self.keeps_all = True
        self._folder = self._room.place = folder

    def get(self, key: str) -> bytes | None:
        """What was put under `key`."""
        place = self._places.get(key)
        return None if place is None or self._small is None else self._small.read(*place)

    def put(self, key: str, data: bytes) -> bool:
        """Keep `data`, if there is room. Is it kept?"""
        with self._lock:
            if key in self._places:
                return True
            if not self._room.take(len(data)):
                return False
            try:
                if self._small is None:
                    self._small = _Stored(self._folder)
                offset = self._small.append(data)
            except OSError as error:
                self._room.is_full_after(error)
                return False
            self._places[key] = (offset, len(data))
            return True

    def file(self, key: str, fill: Fill) -> IO[bytes] | None:
        """A seekable file of its own, that `fill` writes when it is first asked for; None if there is no room for it.

        Raises:
            Whatever `fill` raises.
        """
        with self._lock:
            turn = self._under_way.setdefault(key, threading.Lock())
        with turn:
            if key not in self._large:
                self._large[key] = self._filled(fill)
            stored = self._large[key]
        return None if stored is None else io.BufferedReader(_Reader(stored))

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            for stored in (self._small, *self._large.values()):
                if stored is not None:
                    stored.close()
            self._small = None
            self._places.clear()
            self._large.clear()

    def _filled(self, fill: Fill) -> _Stored | None:
        try:
            stored = _Stored(self._folder)
        except OSError as error:
            self._room.is_full_after(error)
            return None
        try:
            fill(_Writer(stored, self._room))  # type: ignore[arg-type]  # it only writes
        except _NoRoomError:
            stored.close()
            return None
        except BaseException:
            stored.close()
            raise
        return stored


class _NoRoomError(Exception):
    """Raised through `fill`, which may catch OSError for its own reasons."""


class _Room:
    """How much may still be kept; says once that there is no more."""

    def __init__(self, folder: Path | None, most_bytes: int) -> None:
        self.place = folder or Path(tempfile.gettempdir())
        self._left = most_bytes
        self._until_look = 0
        self._lock = threading.Lock()
        self._is_told = False

    def take(self, size: int) -> bool:
        with self._lock:
            self._until_look -= size
            if self._until_look < 0:
                self._until_look = CHECK_BYTES
                with suppress(OSError):
                    self._left = min(self._left, shutil.disk_usage(nearest_existing(self.place)).free - LEFT_FREE)
            if size > self._left:
                self._tell()
                return False
            self._left -= size
            return True

    def is_full_after(self, error: OSError) -> None:
        """The disk took no more; or, if it is not that, raise the error."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise error
        with self._lock:
            self._left = 0
            self._tell()

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            logging.getLogger(__name__).warning(
                "%s has no more room for what is fetched or unpacked: some of it will be, again", self.place
            )


class _Stored:
    """A file that is read by place."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  (it stays open)
        self._file: Any = file
        self._lock = threading.Lock()
        self.size = 0
        self.close = weakref.finalize(self, file.close)

    def append(self, data: bytes) -> int:
        """Write at the end, and return where that was."""
        with self._lock:
            self._file.seek(self.size)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            start, self.size = self.size, self.size + len(data)
            return start

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`."""
        size = max(0, min(size, self.size - offset))
        if hasattr(os, "pread"):
            return _whole(lambda done: os.pread(self._file.fileno(), size - done, offset + done), size)
        with self._lock:
            self._file.seek(offset)
            return _whole(lambda done: self._file.read(size - done), size)


def _whole(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(0)
    while len(data) < size and (more := read(len(data))):  # a system reads at most 2 GiB at once
        data += more
    return data


class _Writer:
    """What `fill` writes to."""

    def __init__(self, stored: _Stored, room: _Room) -> None:
        self._stored, self._room = stored, room

    def write(self, data: bytes) -> int:
        if not self._room.take(len(data)):
            raise _NoRoomError
        try:
            self._stored.append(data)
        except OSError as error:
            self._room.is_full_after(error)
            raise _NoRoomError from error
        return len(data)


class _Reader(io.RawIOBase):
    """A place of its own in a file that others read too."""

    def __init__(self, stored: _Stored) -> None:
        self._stored, self._position = stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._stored.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
