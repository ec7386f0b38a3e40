"""Small pictures of images: read once, in threads, each turned into what the page needs of it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from shoal.errors import ShoalError
from shoal.images.reading import ImageReader
from shoal.images.views import thumbnail
from shoal.progress import Progress

TILE: Final = 44  # pixels of a square on the map's sheet
SQUARE_UP_TO: Final = 1.4  # images up to this much longer than wide are cut square; longer ones are shown whole
LOCAL_READERS: Final = min(8, os.cpu_count() or 1)
REMOTE_READERS: Final = 16  # waiting for a network is not work

Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Picture:
    """What is left of an image: a JPEG for a row, or none, and a tile for the map, or none."""

    jpeg: bytes | None
    tile: Image.Image | None
    is_whole: bool  # shown uncut, so it is not square

    @property
    def uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg or b"").decode()

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.jpeg or b""))


def take(
    uris: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    large: Iterable[int],
    tiles: Iterable[int],
    side: int,
    progress: Progress,
) -> dict[int, Picture]:
    """Pictures by id; what cannot be read now is left out.

    Args:
        uris: of every image, by id; sizes: their width and height as stored, by id.
        large: ids that need a JPEG of at most `side` pixels; tiles: ids that need a tile.
    """
    in_rows, on_map = set(large), set(tiles)
    wanted = sorted(in_rows | on_map)
    reader = ImageReader()

    def one(number: int) -> Picture | None:
        shape = _Shape.of(sizes[number], side if number in in_rows else TILE)
        return _take(reader.read, uris[number], shape, number in in_rows, number in on_map)

    is_local = all(uris[number].startswith("file:") for number in wanted)
    pictures = {}
    readers = LOCAL_READERS if is_local else REMOTE_READERS
    with ThreadPoolExecutor(readers, "thumbnails") as pool, progress.task("Pictures", len(wanted)) as task:
        for number, picture in zip(wanted, pool.map(one, wanted), strict=True):
            task.advance()
            if picture is not None:
                pictures[number] = picture
    return pictures


def sheet(tiles: Sequence[Image.Image]) -> tuple[bytes, int]:
    """All tiles on one JPEG, row by row, and how many there are in a row."""
    columns = max(1, int(np.ceil(np.sqrt(len(tiles)))))
    rows = -(-len(tiles) // columns)
    whole = Image.new("RGB", (columns * TILE, max(rows, 1) * TILE), "#888888")
    for number, tile in enumerate(tiles):
        whole.paste(tile, (number % columns * TILE, number // columns * TILE))
    return _jpeg(whole, 72), columns


@dataclass(frozen=True, slots=True)
class _Shape:
    """How large a thumbnail has to be: `longest` pixels along its longer side, uncut if `is_whole`."""

    longest: int
    is_whole: bool

    @classmethod
    def of(cls, size: tuple[int, int], side: int) -> _Shape:
        longer, shorter = max(size), max(min(size), 1)
        is_whole = longer > SQUARE_UP_TO * shorter
        # Cutting an oblong square leaves its shorter side. A small image is not blown up: the browser does it as well.
        needed = side if is_whole else round(side * longer / shorter)
        return cls(max(1, min(needed, longer)), is_whole)


def _take(read: Read, uri: str, shape: _Shape, wants_jpeg: bool, wants_tile: bool) -> Picture | None:
    try:
        small = thumbnail(read(uri), shape.longest)
    except (ShoalError, OSError):  # gone or changed since it was clustered: the page says so in its place
        return None
    tile = _square(small).resize((TILE, TILE), Image.Resampling.BILINEAR) if wants_tile else None
    shown = small if shape.is_whole else _square(small)
    return Picture(_jpeg(shown, 82) if wants_jpeg else None, tile, shape.is_whole)


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
