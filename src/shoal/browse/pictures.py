"""Pictures of the run's images: small ones made once and kept on disk within bounds, large ones made on demand.

What is sent is always encoded anew, so nothing of the file but its pixels leaves: no EXIF, no place where it was taken.
"""

from __future__ import annotations

import io
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image

from shoal.cores import core_count
from shoal.images.decode import decode, probe
from shoal.images.reading import ImageReader
from shoal.images.views import thumbnail

SIZES: Final = (96, 192, 384)
LARGEST: Final = 2048
MEDIA_TYPE: Final = "image/jpeg"
CACHE_BYTES: Final = 1 << 29
BLOCK_BYTES: Final = 4096  # what a file takes on disk, at the least
IN_FOLDER: Final = 1000
FORMAT: Final = "v1"  # changes when the same image gives another picture


class Pictures:
    """Makes and keeps pictures; may be used from several threads."""

    def __init__(self, folder: Path, most_bytes: int = CACHE_BYTES) -> None:
        self._folder = folder / "thumbnails" / FORMAT
        self._most_bytes = most_bytes
        self._reader = ImageReader()
        self._decoding = threading.BoundedSemaphore(core_count() + 1)
        self._bound = threading.Lock()
        self._held: int | None = None  # bytes on disk; counted when the first picture is written

    def small(self, image: int, uri: str, sha256: str, size: int) -> bytes:
        """A JPEG whose longest side has `size` pixels (fewer if the image is smaller). Raises DecodeError."""
        path = self._folder / str(size) / str(image // IN_FOLDER) / f"{image}-{sha256[:16]}.jpg"
        with suppress(OSError):
            return path.read_bytes()
        with self._decoding:
            made = _jpeg(_fitted(self._reader.read(uri), size), 80)
        self._keep(path, made)
        return made

    def large(self, uri: str) -> bytes:
        """A JPEG of at most LARGEST pixels a side. Raises DecodeError."""
        with self._decoding:
            return _jpeg(_fitted(self._reader.read(uri), LARGEST), 90)

    def _keep(self, path: Path, data: bytes) -> None:
        """Write a picture beside its place and rename it; a full or read-only disk costs speed, nothing else."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)  # not synced: a lost picture is made again, a torn one is never renamed
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        with self._bound:
            self._held = self._count() if self._held is None else self._held + _on_disk(len(data))
            if self._held > self._most_bytes:
                self._held = self._shrink()

    def _count(self) -> int:
        return sum(_on_disk(found.st_size) for _, found in self._stats())

    def _shrink(self) -> int:
        """Delete the oldest pictures down to four fifths of the bound; what is left, in bytes."""
        aged = sorted((found.st_mtime_ns, _on_disk(found.st_size), path) for path, found in self._stats())
        held = sum(size for _, size, _ in aged)
        for _, size, path in aged:
            if held <= self._most_bytes * 4 // 5:
                break
            with suppress(OSError):
                path.unlink()
            held -= size
        return held

    def _stats(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self._folder.rglob("*.jpg"):
            with suppress(OSError):
                found.append((path, path.stat()))
        return found


def _fitted(data: bytes, size: int) -> Image.Image:
    """Upright RGB within `size` pixels a side; a smaller image keeps its size."""
    header = probe(data)
    return decode(data) if max(header.width, header.height) <= size else thumbnail(data, size)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.info.clear()  # Pillow would write a file's comment again
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _on_disk(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
