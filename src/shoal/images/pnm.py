"""PBM, PGM and PPM: all six kinds, in numpy. Pillow reads wide samples one by one in Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from shoal.errors import DecodeError
from shoal.images.layer import Rendered
from shoal.images.levels import Range, find_range, to_levels

HELD: Final = 13.0  # bytes a pixel: three levels, and the image twice
_SPACE: Final = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])"
_HEADER: Final = re.compile(rb"P([1-6])" + (_SPACE + rb"+(\d{1,10})") * 2)
_DEPTH: Final = re.compile(_SPACE + rb"+(\d{1,5})")
_MOST_HEADER: Final = 1 << 16
_COMMENT: Final = re.compile(rb"#[^\r\n]*")
_PLAIN: Final = b"0123456789 \t\r\n\v\f"


@dataclass(frozen=True, slots=True)
class Pnm:
    """A file whose header has been read: `white` is the number that is white; samples start at `start`."""

    data: bytes
    kind: int
    width: int
    height: int
    white: int
    start: int

    @property
    def held(self) -> float:
        """Bytes a pixel that reading holds: numbers in text take eight bytes each, and the text itself."""
        return HELD + (40.0 if self.kind in (2, 3) else 0.0)

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def render(self) -> Rendered:
        """RGB, and a note where bits had to be inferred. Raises DecodeError."""
        image, note = self._image()
        return image.convert("RGB"), () if note is None else (note,)

    def _image(self) -> tuple[Image.Image, str | None]:
        channels = 3 if self.kind in (3, 6) else 1
        if self.kind in (1, 4):
            bits = self._plain_bits() if self.kind == 1 else self._packed_bits()
            return Image.fromarray((1 - bits) * np.uint8(255)), None
        values = self._plain(channels) if self.kind < 4 else self._raw(channels)
        values = values.reshape(self.height, self.width, channels)
        # 65535 is what programs write for any samples of 16 bits.
        found = find_range(values, None if self.white == 65535 else Range(0, self.white))
        levels = to_levels(values, found)
        return Image.fromarray(levels[..., 0] if channels == 1 else levels), found.note

    def _packed_bits(self) -> npt.NDArray[np.uint8]:
        row = -(-self.width // 8)
        packed: npt.NDArray[np.uint8] = self._samples(np.dtype(np.uint8), row * self.height).reshape(self.height, row)
        return np.unpackbits(packed, axis=1, count=self.width)

    def _plain_bits(self) -> npt.NDArray[np.uint8]:
        """Digits, which need no space between them."""
        digits = np.frombuffer(_COMMENT.sub(b"", self.data[self.start :]), np.uint8)
        bits: npt.NDArray[np.uint8] = (digits[(digits == ord("0")) | (digits == ord("1"))] - ord("0"))[
            : self.width * self.height
        ]
        if len(bits) < self.width * self.height:
            raise DecodeError("truncated PPM")
        return bits.reshape(self.height, self.width)

    def _raw(self, channels: int) -> npt.NDArray[Any]:
        return self._samples(np.dtype(">u2" if self.white > 255 else "u1"), self.width * self.height * channels)

    def _plain(self, channels: int) -> npt.NDArray[Any]:
        text = _COMMENT.sub(b"", self.data[self.start :])
        if text.translate(None, _PLAIN):
            raise DecodeError("corrupt PPM")
        wanted = self.width * self.height * channels
        values = np.fromstring(text.decode(), np.int64, sep=" ")[:wanted]
        if len(values) < wanted:
            raise DecodeError("truncated PPM")
        return np.clip(values, 0, self.white).astype(np.uint16 if self.white > 255 else np.uint8)

    def _samples(self, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        if len(self.data) - self.start < count * dtype.itemsize:
            raise DecodeError("truncated PPM")
        return np.frombuffer(self.data, dtype, count, self.start)


def read_header(data: bytes) -> Pnm:
    """Raises DecodeError: there is no whole header."""
    found = _HEADER.match(data, 0, _MOST_HEADER)
    if found is None:
        raise DecodeError("corrupt PPM")
    kind, width, height = (int(found[group]) for group in (1, 2, 3))
    end, white = found.end(), 1
    if kind not in (1, 4):
        depth = _DEPTH.match(data, end, end + _MOST_HEADER)
        if depth is None or not 0 < int(depth[1]) < 65536:
            raise DecodeError("corrupt PPM")
        end, white = depth.end(), int(depth[1])
    return Pnm(data, kind, width, height, white, end + 1)  # one blank stands before the samples
