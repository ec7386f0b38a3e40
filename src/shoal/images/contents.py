"""What files are: read, hashed and probed in a few threads, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from shoal.cores import core_count
from shoal.errors import DecodeError
from shoal.images.decode import Header, probe
from shoal.images.reading import ImageReader
from shoal.images.storage import is_local

MOST_LOCAL_READERS: Final = 4
REMOTE_READERS: Final = 16  # waiting for a network is not work
CHUNK: Final = 32  # local images that a reader takes at a time


@dataclass(frozen=True, slots=True)
class Content:
    """What reading one file told; `reason`: why it is no image."""

    size_bytes: int | None = None
    sha256: str | None = None
    header: Header | None = None
    reason: str | None = None


def look_at_all(places: Sequence[tuple[str, str]], reader: ImageReader) -> Iterator[Content]:
    """Of each pair of path and URI what is there, in order. Should the caller stop, what has not begun is not done."""
    local = all(is_local(uri) for _, uri in places)
    size = CHUNK if local else 1
    chunks = [places[start : start + size] for start in range(0, len(places), size)]

    def look(chunk: Sequence[tuple[str, str]]) -> list[Content]:
        return [_look_at(reader, path, uri) for path, uri in chunk]

    readers = min(MOST_LOCAL_READERS, core_count()) if local else REMOTE_READERS
    with ThreadPoolExecutor(readers, thread_name_prefix="index") as pool:
        try:
            for contents in pool.map(look, chunks):
                yield from contents
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _look_at(reader: ImageReader, path: str, uri: str) -> Content:
    try:
        data = reader.read(uri)
    except DecodeError as error:
        return Content(reason=_with_extension(str(error), path))
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return Content(len(data), sha256, probe(data))
    except DecodeError as error:
        return Content(len(data), sha256, None, _with_extension(str(error), path))


def _with_extension(reason: str, path: str) -> str:
    extension = PurePosixPath(path).suffix
    return f"{reason} ({extension})" if reason == "not an image" and extension else reason
