"""Pictures that a program holds, as a source: they are kept as a Parquet table, in the run or in a temporary file."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shoal import atomic
from shoal.errors import DecodeError, SourceError
from shoal.images.item import Item
from shoal.images.left_out import LeftOut
from shoal.images.location import file_uri
from shoal.images.orientation import upright
from shoal.images.storage import reading_errors
from shoal.spool import Spool

GROUP_BYTES: Final = 16 << 20  # of pictures in a row group, about
PNG_MODES: Final = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))
WITH_ALPHA: Final = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}  # other modes become RGB
TIFF_MODES: Final = frozenset(("CMYK", "F", "I"))
KEPT: Final = ("icc_profile", "transparency")  # of what a file's image tells besides pixels: not where it was taken
CHANNELS: Final = (1, 3, 4)
EXPECTED: Final = "a PIL image, or a uint8 array [height, width], [height, width, 3] or [height, width, 4]"
_SCHEMA: Final = pa.schema([("path", pa.string()), ("image", pa.binary())])


def is_picture(value: object) -> bool:
    """Is it an image of Pillow's, or an array?"""
    return isinstance(value, Image.Image | np.ndarray)


class InMemorySource:
    """Pictures as a source; their paths are their numbers.

    Args:
        pictures: PIL images or arrays, gone through once.
    """

    identity = "pictures in memory"
    name = "pictures"

    def __init__(self, pictures: Iterable[Any]) -> None:
        self.spool = Spool()
        self._pictures = pictures
        self._temporary: tuple[str, list[Item]] | None = None

    def items(self, left_out: LeftOut | None = None) -> Iterator[Item]:
        """Every picture in order, from a table in a temporary file. Raises as `write` does."""
        if self._temporary is None:
            descriptor, name = tempfile.mkstemp(prefix="shoal-", suffix=".parquet")
            os.close(descriptor)
            weakref.finalize(self, Path(name).unlink, missing_ok=True)
            _, items = self.write(Path(name))
            self._temporary = name, items
        name, items = self._temporary
        yield from items_in(file_uri(name), items)

    def write(self, target: Path) -> tuple[str, list[Item]]:
        """Write the table. Returns the digest of what it holds, and items whose URIs are their rows: `#row=12`.

        Raises:
            SourceError: one is something else than a picture, or there is none.
        """
        state = hashlib.sha256()
        items: list[Item] = []
        with atomic.replacing(target) as temporary, pq.ParquetWriter(temporary, _SCHEMA, compression="none") as table:
            for rows in _groups(self._pictures, items):
                for path, data in rows:
                    state.update(f"{path}\0{len(data or b'')}\0".encode())
                    state.update(data or b"")
                paths, images = zip(*rows, strict=True)
                table.write_table(pa.table({"path": paths, "image": images}, schema=_SCHEMA))
        if not items:
            raise SourceError(f"source holds no picture; expected at least one: {EXPECTED}")
        return state.hexdigest(), items


def items_in(table: str, items: Iterable[Item]) -> Iterator[Item]:
    """Items of the rows of a table, as `InMemorySource.write` gives them, with the table's URI."""
    return (Item(item.path, f"{table}{item.uri}", problem=item.problem) for item in items)


def _groups(pictures: Iterable[Any], items: list[Item]) -> Iterator[list[tuple[str, bytes | None]]]:
    """Pairs of path and file, as many as make a row group; their items are added to `items`."""
    rows: list[tuple[str, bytes | None]] = []
    size = 0
    for number, picture in enumerate(pictures):
        image = _as_image(picture, number)
        data, problem = None, None
        try:
            data = _encoded(image)
        except DecodeError as error:  # a file that Pillow has opened, and cannot decode
            problem = str(error)
        rows.append((f"{number:08d}.{'tif' if image.mode in TIFF_MODES else 'png'}", data))
        items.append(Item(rows[-1][0], f"#row={number}", problem=problem))
        size += len(data or b"")
        if size >= GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _as_image(picture: Any, number: int) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if not isinstance(picture, np.ndarray):
        raise SourceError(
            f"picture {number:,} is of type {type(picture).__name__}; expected {EXPECTED}, as the first is one"
        )
    is_shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in CHANNELS)
    if picture.dtype != np.uint8 or not is_shaped or 0 in picture.shape:
        raise SourceError(f"picture {number:,} is {picture.dtype} {list(picture.shape)}; expected {EXPECTED}")
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(picture))


def _encoded(image: Image.Image) -> bytes:
    """The file of a picture, every pixel as it is, upright. Raises DecodeError."""
    file = io.BytesIO()
    with reading_errors():
        image = upright(image)
        if image.mode not in PNG_MODES | TIFF_MODES:
            image = image.convert(WITH_ALPHA.get(image.mode, "RGB"))
        kept: dict[str, Any] = {name: image.info[name] for name in KEPT if name in image.info}
        image = image.copy()
        image.info = {}
        if image.mode in TIFF_MODES:
            image.save(file, "TIFF", compression="tiff_adobe_deflate", **kept)
        else:
            image.save(file, "PNG", compress_level=1, **kept)
    return file.getvalue()
