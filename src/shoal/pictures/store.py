"""Pictures kept within a bound on disk: many in a file, since making thousands of files takes longer than the pictures.

A pack is two files: JPEGs one after another, and an index with a record for each. A writer appends to packs of its own
and reads all of them, so that no lock is needed, whatever the file system; whoever needs room deletes the oldest packs.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import struct
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from shoal.disk import SPARE_BYTES

FORMAT: Final = "v2"  # changes when the same image gives another picture
PACKS: Final = 32  # that fit in the bound
LOOK_AGAIN_SECONDS: Final = 1.0  # for what other processes have kept meanwhile
RECORD: Final = struct.Struct("<32sHIII")  # SHA-256 of the image, size of the picture; where it lies, its bytes, CRC-32
_DATA, _INDEX = ".jpgs", ".index"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Key = tuple[bytes, int]
Place = tuple[str, int, int, int]  # pack, offset, length, CRC-32


class PictureStore:
    """JPEGs by the SHA-256 of the image and by size. Threads and processes may share a folder; it may go at any time.

    A full disk, or one that cannot be written, costs speed and nothing else. Several processes together may pass the
    bound by what they are writing, a pack each.
    """

    def __init__(self, folder: Path, most_bytes: int, spare_bytes: int = SPARE_BYTES) -> None:
        """`folder` lies in the run's cache, which is made if need be; `spare_bytes` of the disk are left to others."""
        self._folder = folder
        self._packs = folder / FORMAT
        self._most_bytes = most_bytes
        self._spare_bytes = spare_bytes
        self._knowing = threading.Lock()
        self._places: dict[Key, Place] = {}
        self._known: dict[str, int] = {}  # by pack: bytes of its index that were read, or written here
        self._looked = -LOOK_AGAIN_SECONDS
        self._writing = threading.Lock()
        self._own: str | None = None  # the pack that is written

    def get(self, sha256: str | None, size: int) -> bytes | None:
        """What was kept, if it is there and whole."""
        key = _key(sha256, size)
        place = self._find(key) if key is not None else None
        if key is None or place is None:
            return None
        pack, offset, length, crc = place
        with suppress(OSError), open(self._packs / f"{pack}{_DATA}", "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(length)
            # Packs are not synced: after a power cut an index may speak of pictures that never came to the disk.
            if len(data) == length and zlib.crc32(data) == crc:
                return data
        with self._knowing:
            self._places.pop(key, None)
        return None

    def put(self, sha256: str | None, size: int, data: bytes) -> None:
        """Keep a picture, if there is room. One of bytes that nobody knows (None) is not kept: they may change."""
        key = _key(sha256, size)
        if key is None:
            return
        with self._writing:
            try:
                self._append(key, data)
            except OSError:
                self._give_up_pack()

    def _find(self, key: Key) -> Place | None:
        with self._knowing:
            if key not in self._places and time.monotonic() - self._looked >= LOOK_AGAIN_SECONDS:
                self._look()
                self._looked = time.monotonic()
            return self._places.get(key)

    def _look(self) -> None:
        """Read what has come to the indices since the last look, that of the newest pack last."""
        for _, _, path in sorted(self._files(self._packs)):
            pack, ending = os.path.splitext(os.path.basename(path))
            if ending != _INDEX:
                continue
            with suppress(OSError), open(path, "rb", buffering=0) as file:
                known = self._known.get(pack, 0)
                file.seek(known)
                found = file.read()
                whole = len(found) // RECORD.size * RECORD.size
                for sha256, size, offset, length, crc in RECORD.iter_unpack(found[:whole]):
                    self._places[sha256, size] = (pack, offset, length, crc)
                self._known[pack] = known + whole

    def _append(self, key: Key, data: bytes) -> None:
        pack = self._pack_for(len(data))
        if pack is None:
            return
        offset = _append(self._packs / f"{pack}{_DATA}", data)
        crc = zlib.crc32(data)
        record = RECORD.pack(*key, offset, len(data), crc)
        start = _append(self._packs / f"{pack}{_INDEX}", record)
        with self._knowing:
            self._places[key] = (pack, offset, len(data), crc)
            self._known[pack] = start + len(record)

    def _pack_for(self, length: int) -> str | None:
        """The pack that has room for so many bytes, a new one if need be; None if the disk has none to spare."""
        most = self._most_bytes // PACKS
        if self._own is not None:
            with suppress(OSError):
                held = os.stat(self._packs / f"{self._own}{_DATA}").st_size + self._known.get(self._own, 0)
                if held + length + RECORD.size <= most:
                    return self._own
        self._own = None
        self._folder.parent.mkdir(exist_ok=True)  # the cache; a run that was taken away is not made again
        self._packs.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._packs).free < self._spare_bytes + most:
            return None
        self._make_room(max(most, length + RECORD.size))
        self._own = secrets.token_hex(8)
        return self._own

    def _make_room(self, needed: int) -> None:
        """Delete the oldest packs, and whatever else lies there, until so many bytes can be added."""
        packs: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for written, size, path in self._files(self._folder):
            packs[os.path.splitext(path)[0]].append((written, size, path))
        held = sum(size for files in packs.values() for _, size, _ in files)
        for files in sorted(packs.values(), key=max):
            if held + needed <= self._most_bytes:
                break
            for _, size, path in files:
                with suppress(OSError):
                    os.unlink(path)
                held -= size

    def _give_up_pack(self) -> None:
        """After an error its end may be torn: what is in it is read, but nothing is added; an empty one is removed."""
        if self._own is not None:
            with suppress(OSError):
                index, data = (self._packs / f"{self._own}{ending}" for ending in (_INDEX, _DATA))
                if not index.exists() or index.stat().st_size < RECORD.size:
                    index.unlink(missing_ok=True)
                    data.unlink(missing_ok=True)
        self._own = None

    def _files(self, folder: Path) -> Iterator[tuple[int, int, str]]:
        """Time of writing, bytes and path of everything in a folder."""
        folders = [str(folder)]
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    with suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_mtime_ns, found.st_size, entry.path


def _key(sha256: str | None, size: int) -> Key | None:
    return None if sha256 is None or not _DIGEST.fullmatch(sha256) else (bytes.fromhex(sha256), size)


def _append(path: Path, data: bytes) -> int:
    """Where in the file the data begin. Raises OSError if they did not fit whole."""
    with open(path, "ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        if file.write(data) != len(data):
            raise OSError(f"{path} could not take {len(data)} bytes")
        return start
