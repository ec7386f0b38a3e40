"""What files are: read, hashed and probed in a few threads, in order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.cores import core_count
from shoal.errors import DecodeError
from shoal.images.decode import Header, probe
from shoal.images.formats import NO_IMAGE, TEXT
from shoal.images.listed import Texts, is_image_name
from shoal.images.reading import ImageReader
from shoal.images.storage import LOCAL

MOST_LOCAL_READERS: Final = 4
REMOTE_READERS: Final = 16  # waiting for a network is not work
AHEAD: Final = 8  # times as many under way as readers: enough to keep all busy, few enough to bound memory
CHUNK: Final = 32  # local images that a reader takes at a time
BLOCK: Final = 256  # contents that are Python objects at a time
SCHEMA: Final = pa.schema(
    [records.IMAGES.field(name) for name in ("size_bytes", "sha256", "width", "height", "reason")]
)


@dataclass(frozen=True, slots=True)
class Content:
    """What reading one file told; `reason`: why it is no image."""

    size_bytes: int | None = None
    sha256: str | None = None
    header: Header | None = None
    reason: str | None = None


def look_at_all(paths: Texts, uris: Texts, reader: ImageReader) -> Iterator[Content]:
    """Of each pair of path and URI what is there, in order. Should the caller stop, what has not begun is not done."""
    local = pc.all(pc.starts_with(uris, LOCAL)).as_py() is not False
    size = CHUNK if local else 1

    def look(start: int) -> list[Content]:
        pairs = zip(*(column[start : start + size].to_pylist() for column in (paths, uris)), strict=True)
        return [_look_at(reader, path, uri) for path, uri in pairs]

    readers = min(MOST_LOCAL_READERS, core_count()) if local else REMOTE_READERS
    under_way: deque[Future[list[Content]]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="index") as pool:
        try:
            for start in range(0, len(paths), size):
                under_way.append(pool.submit(look, start))
                if len(under_way) >= AHEAD * readers:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_all(contents: Iterable[Content], advance: Callable[[int], None]) -> pa.Table:
    """Contents as a table of `SCHEMA`; `advance` is told how many have come."""
    remaining, batches = iter(contents), []
    while some := list(islice(remaining, BLOCK)):
        columns = {
            "size_bytes": [content.size_bytes for content in some],
            "sha256": [content.sha256 for content in some],
            "width": [content.header and content.header.width for content in some],
            "height": [content.header and content.header.height for content in some],
            "reason": [content.reason for content in some],
        }
        batches.append(pa.RecordBatch.from_pydict(columns, SCHEMA))
        advance(len(some))
    return pa.Table.from_batches(batches, SCHEMA).combine_chunks()


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
    """Other files go by their extensions; what is called like an image, and is a text, by that."""
    extension = PurePosixPath(path).suffix
    is_other = reason == NO_IMAGE or (reason == TEXT and not is_image_name(path))
    return f"{NO_IMAGE} ({extension})" if is_other and extension else reason
