"""Files kept within a bound on disk, by what they were made of; whoever needs room deletes the oldest."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from shoal.disk import SPARE_BYTES

BLOCK_BYTES: Final = 4096  # what a file takes on disk, at the least
RECOUNT: Final = 16  # the disk is looked at again whenever this part of the bound was written
FORMAT: Final = "v2"  # changes when the same image gives another picture
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_START, _END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG


class PictureStore:
    """JPEGs by the SHA-256 of the image and by size. Threads and processes may share a folder; it may go at any time.

    A full disk, or one that cannot be written, costs speed and nothing else. Each process sees what others wrote when
    it counts again, so several together may pass the bound by a sixteenth each.
    """

    def __init__(self, folder: Path, most_bytes: int, spare_bytes: int = SPARE_BYTES) -> None:
        """`folder` lies in the run's cache, which is made if need be; `spare_bytes` of the disk are left to others."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._spare_bytes = spare_bytes
        self._bound = threading.Lock()
        self._held: int | None = None  # bytes on disk when they were counted; None: not yet
        self._written = 0  # bytes since then

    def get(self, sha256: str | None, size: int) -> bytes | None:
        """What was kept, if it is there and whole."""
        if sha256 is None or not _DIGEST.fullmatch(sha256):
            return None
        with suppress(OSError):
            data = self._path(sha256, size).read_bytes()
            # Pictures are not synced: a power cut may leave a file of the right name that is empty or cut off.
            return data if data.startswith(_START) and data.endswith(_END) else None
        return None

    def put(self, sha256: str | None, size: int, data: bytes) -> None:
        """Keep a picture, if there is room. One of bytes that nobody knows (None) is not kept: they may change."""
        if sha256 is None or not _DIGEST.fullmatch(sha256):
            return
        path = self._path(sha256, size)
        part = path.with_name(f"{sha256}.{secrets.token_hex(8)}.part")
        try:
            self._make_folder(path.parent)
            if shutil.disk_usage(path.parent).free < self._spare_bytes:
                return
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            return
        self._keep_within_bound(_on_disk(len(data)))

    def _path(self, sha256: str, size: int) -> Path:
        return self._folder / FORMAT / str(size) / sha256[0] / f"{sha256}.jpg"

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._folder.parent.mkdir(exist_ok=True)  # the cache; a run that was taken away is not made again
            folder.mkdir(parents=True, exist_ok=True)

    def _keep_within_bound(self, added: int) -> None:
        with self._bound:
            self._written += added
            if self._held is None or self._written > self._most_bytes // RECOUNT:
                self._held, self._written = sum(size for _, size, _ in self._files()), 0
            if self._held + self._written > self._most_bytes:
                self._held, self._written = self._shrink(), 0

    def _shrink(self) -> int:
        """Delete the oldest files down to four fifths of the bound; what is left, in bytes."""
        aged = sorted(self._files())
        held = sum(size for _, size, _ in aged)
        for _, size, path in aged:
            if held <= self._most_bytes * 4 // 5:
                break
            with suppress(OSError):
                os.unlink(path)
            held -= size
        return held

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """Time of writing, bytes on disk and path of everything there: earlier formats' files and torn ones go too."""
        folders = [str(self._folder)]
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    with suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_mtime_ns, _on_disk(found.st_size), entry.path


def _on_disk(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
