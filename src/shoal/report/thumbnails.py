"""Small pictures of images: taken from those that the run keeps, in threads, each turned into what the page needs."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from shoal.cores import core_count
from shoal.errors import DecodeError
from shoal.images.decode import decode
from shoal.images.storage import is_local
from shoal.pictures.originals import Original
from shoal.pictures.pictures import Pictures
from shoal.progress import Progress

TILE: Final = 44  # pixels of a square on the map's sheet
SQUARE_UP_TO: Final = 1.4  # images up to this much longer than wide are cut square; longer ones are shown whole
LEAST_KEPT: Final = 192  # what `shoal browse` shows of an image: it has what the report had, and the next report too
MOST_LOCAL_READERS: Final = 8
REMOTE_READERS: Final = 16  # waiting for a network is not work
MOST_REASONS: Final = 3

OriginalOf = Callable[[int], Original]


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown of an image: a JPEG for a row, or none, and a tile for the map, or none."""

    jpeg: bytes | None
    tile: Image.Image | None
    is_whole: bool  # shown uncut, so it is not square

    @property
    def uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg or b"").decode()

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.jpeg or b""))


@dataclass(frozen=True, slots=True)
class Taken:
    """Pictures by id, and for those that could not be had, by id, the reason."""

    pictures: dict[int, Picture]
    missing: dict[int, str]

    @property
    def sentence(self) -> str:
        """What a person is told of the missing ones; empty if there are none."""
        if not self.missing:
            return ""
        counts = Counter(self.missing.values()).most_common()
        told = counts[0][0] if len(counts) == 1 else "; ".join(f"{why} ({n:,})" for why, n in counts[:MOST_REASONS])
        more = "; and others" if len(counts) > MOST_REASONS else ""
        wanted = len(self.pictures) + len(self.missing)
        return f"{len(self.missing):,} of {wanted:,} pictures could not be had: {told}{more}."


def take(
    pictures: Pictures,
    original: OriginalOf,
    large: Iterable[int],
    tiles: Iterable[int],
    side: int,
    progress: Progress,
) -> Taken:
    """The pictures of the images whose ids are given.

    Args:
        original: gives an image by its id.
        large: ids that need a JPEG of at most `side` pixels; tiles: ids that need a tile.
    """
    in_rows, on_map = set(large), set(tiles)
    wanted = sorted(in_rows | on_map)
    originals = [original(number) for number in wanted]

    def one(number: int, original: Original) -> Picture | str:
        try:
            return _take(pictures, original, side if number in in_rows else None, number in on_map)
        except DecodeError as error:
            return str(error)

    taken = Taken({}, {})
    is_near = all(is_local(original.uri) for original in originals)
    readers = min(MOST_LOCAL_READERS, core_count()) if is_near else REMOTE_READERS
    with ThreadPoolExecutor(readers, "thumbnails") as pool, progress.task("Pictures", len(wanted)) as task:
        for number, found in zip(wanted, pool.map(one, wanted, originals), strict=True):
            task.advance()
            if isinstance(found, Picture):
                taken.pictures[number] = found
            else:
                taken.missing[number] = found
    return taken


def sheet(tiles: Sequence[Image.Image]) -> tuple[bytes, int]:
    """All tiles on one JPEG, row by row, and how many there are in a row."""
    columns = max(1, int(np.ceil(np.sqrt(len(tiles)))))
    rows = -(-len(tiles) // columns)
    whole = Image.new("RGB", (columns * TILE, max(rows, 1) * TILE), "#888888")
    for number, tile in enumerate(tiles):
        whole.paste(tile, (number % columns * TILE, number // columns * TILE))
    return _jpeg(whole, 72), columns


def _take(pictures: Pictures, original: Original, side: int | None, wants_tile: bool) -> Picture:
    """`side` is that of a picture for a row, None where only a tile is wanted. Raises DecodeError."""
    longer, shorter = max(original.width or 1, original.height or 1), min(original.width or 1, original.height or 1)
    is_whole = longer > SQUARE_UP_TO * shorter
    needed = side or TILE
    # Cutting an oblong square leaves its shorter side.
    size = needed if is_whole else round(needed * longer / shorter)
    jpeg = pictures.exact(original, max(size, LEAST_KEPT)).jpeg
    kept = decode(jpeg, least_size=None if side else TILE)
    tile = kept.resize((TILE, TILE), Image.Resampling.BILINEAR, _square(kept), 3.0) if wants_tile else None
    return Picture(_jpeg(_shown(kept, side, is_whole), 82) if side else None, tile, is_whole)


def _shown(kept: Image.Image, side: int, is_whole: bool) -> Image.Image:
    """Cut square or left whole, within `side` pixels a side. What is small stays so: the browser can blow it up too."""
    box = (0, 0, *kept.size) if is_whole else _square(kept)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, side / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return kept.resize(size, Image.Resampling.HAMMING, box, 3.0)


def _square(image: Image.Image) -> tuple[int, int, int, int]:
    """The largest square in the middle: left, top, right, bottom."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
