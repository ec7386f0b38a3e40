"""Files that Pillow's plugins read: the picture of the first frame that is not blank."""

from __future__ import annotations

import importlib
import io
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile

from shoal.errors import DecodeError
from shoal.images import jpeg2000, png
from shoal.images.formats import ICO, JPEG, JPEG2000, PNG, QOI, ImageFormat
from shoal.images.layer import Rendered, to_srgb
from shoal.images.levels import Range, find_range, to_levels
from shoal.images.limits import MOST_FRAMES, MOST_LOOKED_AT, check_size
from shoal.images.orientation import orientation_of, turned, upright
from shoal.images.quiet import quiet_pillow
from shoal.images.reasons import imagecodecs, reason

_NUMBER_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_MOST_IN_PYTHON, _LARGE_QOI = 4_000_000, "QOI of more than 4 megapixels"
_DEEP_HELD: Final = 29.0  # bytes a pixel of a PNG with 16 bits a sample


@dataclass(frozen=True, slots=True)
class PillowFile:
    """An opened file: its header has been read, its pixels have not."""

    data: bytes
    format: ImageFormat
    source: ImageFile.ImageFile

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.source.size

    @property
    def held(self) -> float:
        """Bytes a pixel that `render` holds."""
        if self.format is PNG and png.is_deep(self.data):
            return _DEEP_HELD
        is_deep = self.format is JPEG2000 and jpeg2000.read_header(self.data).is_deep
        return jpeg2000.DEEP_HELD if is_deep else self.format.held

    def render(self) -> Rendered:
        """The upright picture, but of a JPEG as stored. Raises DecodeError."""
        try:
            with quiet_pillow():
                return self._not_blank() if self._has_frames() else self.render_frame()
        except Exception as error:  # as in `open_file`
            raise reason(self.data, self.format, error) from error

    def reduce(self, divisor: int) -> None:
        """Let a JPEG be decoded at 1/`divisor`."""
        self.source.draft("", (self.source.width // divisor, self.source.height // divisor))

    def _has_frames(self) -> bool:
        return bool(getattr(self.source, "is_animated", False))

    def _not_blank(self) -> Rendered:
        first = self.render_frame()
        looked_at = self.source.width * self.source.height
        number, rendered = 0, first
        while is_blank(rendered[0]):
            number += 1
            looked_at += self.source.width * self.source.height
            if number >= MOST_FRAMES or looked_at > MOST_LOOKED_AT:
                return first
            try:
                self.source.seek(number)
                rendered = self.render_frame()
            except EOFError:
                return first
            except Exception:  # a later frame that is broken is no reason to lose the first
                return first
        image, notes = rendered
        return (image, notes) if number == 0 else (image, (f"frame {number + 1}, the first that is not blank", *notes))

    def render_frame(self) -> Rendered:
        """The picture of the frame that `source` is at."""
        image, note = self._image()
        rendered, notes = to_srgb(image, self._profile())
        return rendered, notes if note is None else (note, *notes)

    def _image(self) -> tuple[Image.Image, str | None]:
        """An upright image of 8 bits."""
        if self.format is PNG and png.is_deep(self.data):
            image, note = png.read_deep(self.data)
            return turned(image, orientation_of(self.source)), note
        header = jpeg2000.read_header(self.data) if self.format is JPEG2000 else None
        if header is not None and header.is_deep:
            return jpeg2000.read_deep(self.data, header)
        if _is_large_qoi(self.format, self.source):
            return Image.fromarray(imagecodecs(_LARGE_QOI).qoi_decode(self.data)), None
        self.source.load()
        image = self.source if self.format is JPEG else upright(self.source)
        if image.mode not in _NUMBER_MODES:
            return image, None
        values = np.asarray(image)
        # Pillow has scaled fewer bits than 16 up.
        found = find_range(values, Range(0, 65535) if header is not None and header.bits < 16 else None)
        return Image.fromarray(to_levels(values, found)), found.note

    def _profile(self) -> bytes | None:
        return (
            jpeg2000.read_header(self.data).profile if self.format is JPEG2000 else self.source.info.get("icc_profile")
        )


def open_file(data: bytes, found: ImageFormat) -> PillowFile:
    """Let the format's plugin read the header. Not by `Image.open`: it would try, and import, every plugin there is.

    Raises:
        DecodeError: it is broken or not read.
    """
    try:
        plugin: Any = getattr(importlib.import_module(found.module), found.plugin)
    except ImportError as error:
        raise DecodeError(f"{found.name} is not supported by what is installed here") from error
    content = png.sound_chunks(data) if found is PNG else data
    try:
        with quiet_pillow():
            if found is ICO:
                _check_icons(content)
            opened = PillowFile(content, found, plugin(io.BytesIO(content)))
            if _is_large_qoi(found, opened.source):
                imagecodecs(_LARGE_QOI)
            if found is JPEG2000 and (header := jpeg2000.read_header(data)).is_deep:
                jpeg2000.deep_decoder(header)
            return opened
    except Exception as error:  # codecs raise what they like on broken data: SyntaxError, struct.error, KeyError, ...
        raise reason(data, found, error) from error


def _check_icons(data: bytes) -> None:
    """An icon of 256 pixels, says its directory, may be a PNG of any size. Raises DecodeError if it is too large."""
    (count,) = struct.unpack_from("<H", data, 4)
    for number in range(count):
        (start,) = struct.unpack_from("<I", data, 6 + 16 * number + 12)
        if data[start : start + 8] == png.SIGNATURE:
            width, height = struct.unpack_from(">II", data, start + 16)
            check_size(width, height, ICO.held, ICO.name)


def _is_large_qoi(found: ImageFormat, source: Image.Image) -> bool:
    """Whether Pillow, which reads QOI in plain Python, would take seconds."""
    return found is QOI and source.width * source.height > _MOST_IN_PYTHON


def is_blank(image: Image.Image) -> bool:
    """Whether it has one value everywhere."""
    extremes: Any = image.getextrema()  # of each band
    return all(low == high for low, high in extremes)
