"""Pictures that a program holds, as a source: a Parquet table in the run, or a nameless file while they are used."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shoal import atomic
from shoal.errors import DecodeError, DiskSpaceError, SourceError
from shoal.images.clouds import MEMORY
from shoal.images.item import Item
from shoal.images.left_out import LeftOut
from shoal.images.listed import Listed
from shoal.images.orientation import upright
from shoal.images.storage import reading_errors
from shoal.progress import Progress
from shoal.runfiles import PICTURES
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
        count: how many they are; 0: nobody knows.
        progress: shows how far their encoding is.
    """

    identity = "pictures in memory"
    name = "pictures"

    def __init__(self, pictures: Iterable[Any], count: int = 0, progress: Progress | None = None) -> None:
        self.spool = Spool()
        self._pictures = pictures
        self._count = count
        self._progress = progress or Progress()
        self._listed: Listed | None = None

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every picture in order, kept in the spool. Raises as `write` does; DiskSpaceError."""
        if self._listed is None:
            self._listed = Listed.of(self._kept_in_spool())
        return self._listed

    def _kept_in_spool(self) -> Iterator[Item]:
        for number, (item, data) in enumerate(self._files()):
            uri = f"{MEMORY}://{PICTURES}/{item.path}"
            if data is not None and not self.spool.put(uri, data):
                raise DiskSpaceError(
                    f"there is no room in {tempfile.gettempdir()} for pictures in memory beyond the first "
                    f"{number:,}; make room, or give fewer at a time"
                )
            yield dataclasses.replace(item, uri=uri)

    def write(self, target: Path) -> tuple[str, Listed]:
        """Write the table. Returns the digest of what it holds, and a listing whose URIs are its rows: `#row=12`.

        Raises:
            SourceError: one is something else than a picture, or there is none.
        """
        state = hashlib.sha256()
        with atomic.replacing(target) as temporary, pq.ParquetWriter(temporary, _SCHEMA, compression="none") as table:
            listed = Listed.of(self._written(table, state))
        return state.hexdigest(), listed

    def _written(self, table: pq.ParquetWriter, state: hashlib._Hash) -> Iterator[Item]:
        for rows in _groups(self._files()):
            for item, data in rows:
                state.update(f"{item.path}\0{len(data or b'')}\0".encode())
                state.update(data or b"")
                yield item
            columns = {"path": [item.path for item, _ in rows], "image": [data for _, data in rows]}
            table.write_table(pa.table(columns, schema=_SCHEMA))

    def _files(self) -> Iterator[tuple[Item, bytes | None]]:
        """Items, and the files that pictures become; none of one that has a problem."""
        number = -1
        with self._progress.task("Keeping", self._count, "pictures") as task:
            for number, picture in enumerate(self._pictures):
                image = _as_image(picture, number)
                data, problem = None, None
                try:
                    data = _encoded(image)
                except DecodeError as error:  # a file that Pillow has opened, and cannot decode
                    problem = str(error)
                path = f"{number:08d}.{'tif' if image.mode in TIFF_MODES else 'png'}"
                yield Item(path, f"#row={number}", problem=problem), data
                task.advance()
        if number < 0:
            raise SourceError(f"source holds no picture; expected at least one: {EXPECTED}")


def _groups(files: Iterable[tuple[Item, bytes | None]]) -> Iterator[list[tuple[Item, bytes | None]]]:
    """As many as make a row group."""
    rows: list[tuple[Item, bytes | None]] = []
    size = 0
    for item, data in files:
        rows.append((item, data))
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
