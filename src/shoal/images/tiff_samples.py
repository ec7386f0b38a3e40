"""The numbers of a TIFF page, from its strips or tiles."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Any, Final

import numpy as np
import tifffile
from PIL import TiffImagePlugin, WebPImagePlugin

from shoal.errors import DecodeError
from shoal.images.levels import Numbers
from shoal.images.reasons import imagecodecs

_NONE: Final = 1
# Of plain bytes, undone by the libtiff that Pillow brings: LZW, deflate (two numbers), PackBits, LZMA, Zstandard.
_OF_BYTES: Final = frozenset({5, 8, 32946, 32773, 34925, 50000})
_WEBP: Final = 50001  # each strip or tile is a file of its own
_TOGETHER: Final = 1 << 22  # bytes that are unpacked at a time
_HORIZONTAL, _FLOATING = 2, 3  # predictors
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_compression(page: tifffile.TiffPage) -> None:
    """Raises DecodeError: nothing that is installed undoes its compression."""
    if page.compression in (_NONE, _WEBP) or page.compression in _OF_BYTES:
        return
    kind = f"TIFF with the compression {_name(page.compression)}"
    imagecodecs(kind)
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise DecodeError(f"{kind} is not read")


def read_samples(page: tifffile.TiffPage) -> Numbers:
    """All samples, [height, width, samples a pixel], as they are stored, in their own type.

    Raises:
        DecodeError: the page is cut off.
        Exception: whatever imagecodecs raises for a broken one.
    """
    if page.compression in (_NONE, _WEBP) or page.compression in _OF_BYTES:
        return _Segments(page).read()
    values = page.asarray(squeeze=False, maxworkers=1)  # [planes, depth, height, width, samples]
    return np.moveaxis(values[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


class _Segments:
    """The strips or tiles of a page: where each lies in the image, and its numbers."""

    def __init__(self, page: tifffile.TiffPage) -> None:
        self._page = page
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self._samples = page.samplesperpixel // self._planes
        self._width = page.tilewidth if page.is_tiled else page.imagewidth
        self._rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        if min(self._width, self._rows) < 1 or page.dtype is None:
            raise DecodeError("corrupt TIFF")
        self._dtype = np.dtype(page.parent.byteorder + page.dtype.char)

    def read(self) -> Numbers:
        page = self._page
        image = np.empty((page.imagelength, page.imagewidth, page.samplesperpixel), self._dtype.newbyteorder("="))
        across, down = -(-page.imagewidth // self._width), -(-page.imagelength // self._rows)
        if len(page.dataoffsets) < across * down * self._planes:
            raise DecodeError("truncated TIFF")
        together = max(1, _TOGETHER // (self._rows * self._row_bytes))
        for plane in range(self._planes):
            for first in range(0, across * down, together):
                places = range(first, min(first + together, across * down))
                for place, values in zip(places, self._values(plane * across * down, places), strict=True):
                    top, left = place // across * self._rows, place % across * self._width
                    into = image[top : top + self._rows, left : left + self._width, plane * self._samples :]
                    into = into[..., : self._samples]
                    into[...] = values[: into.shape[0], : into.shape[1]]
        return image

    def _values(self, before: int, places: range) -> list[Numbers]:
        """The numbers of some strips or tiles of one plane; `before` it lie so many."""
        page = self._page
        rows = [
            self._rows if page.is_tiled else min(self._rows, page.imagelength - place * self._rows) for place in places
        ]
        stored = [
            self._stored(before + place, count * self._row_bytes) for place, count in zip(places, rows, strict=True)
        ]
        if page.compression == _WEBP:
            stored = [_picture(data, self._samples) for data in stored]
        elif page.compression != _NONE:
            whole = _undone(page.compression, stored, self._row_bytes, self._rows, sum(rows))
            ends = [count * self._row_bytes for count in itertools.accumulate(rows)]
            stored = [whole[end - count * self._row_bytes : end] for end, count in zip(ends, rows, strict=True)]
        if any(len(data) < count * self._row_bytes for data, count in zip(stored, rows, strict=True)):
            raise DecodeError("truncated TIFF")
        return [self._numbers(data, count) for data, count in zip(stored, rows, strict=True)]

    def _stored(self, number: int, unpacked: int) -> bytes:
        """The bytes of a strip or tile as they lie in the file; `unpacked` is how many it has once unpacked."""
        page = self._page
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[number])
        # Without a compression, files with wrong counts are common and do no harm.
        counts = page.databytecounts
        length = unpacked if page.compression == _NONE else counts[number] if number < len(counts) else 0
        data: bytes = handle.read(length)
        return data.translate(_REVERSED) if page.fillorder == 2 else data

    @property
    def _row_bytes(self) -> int:
        return -(-self._width * self._samples * self._page.bitspersample // 8)

    def _numbers(self, data: bytes, rows: int) -> Numbers:
        shape = (rows, self._width, self._samples)
        bits = self._page.bitspersample
        if bits != 8 * self._dtype.itemsize:
            return (
                _unpacked(data, bits, (rows, self._row_bytes))
                .astype(self._dtype)[:, : shape[1] * shape[2]]
                .reshape(shape)
            )
        if self._page.predictor == _FLOATING:
            # Differences of the bytes, of which all first ones of a row come first, then all second ones, and so on.
            of_bytes = np.frombuffer(data, np.uint8).reshape(rows, -1, self._samples).cumsum(axis=1, dtype=np.uint8)
            ordered = of_bytes.reshape(rows, self._dtype.itemsize, -1).swapaxes(1, 2)
            return np.ascontiguousarray(ordered).view(self._dtype.newbyteorder(">")).reshape(shape)
        values = np.frombuffer(data, self._dtype, rows * shape[1] * shape[2]).reshape(shape)
        if self._page.predictor == _HORIZONTAL:
            unsigned: Any = values.view(f"{self._dtype.byteorder}u{self._dtype.itemsize}")
            summed: Numbers = unsigned.cumsum(axis=1, dtype=unsigned.dtype.newbyteorder("="))
            return summed.view(self._dtype.newbyteorder("="))
        return values


def _unpacked(data: bytes, bits: int, shape: tuple[int, int]) -> Numbers:
    """Numbers of so many bits, one after another, highest bit first; each row begins at a byte: [rows, numbers]."""
    ones = np.unpackbits(np.frombuffer(data, np.uint8, shape[0] * shape[1]).reshape(shape), axis=1)
    whole = ones.shape[1] // bits
    digits = ones[:, : whole * bits].reshape(shape[0], whole, bits)
    values = np.zeros((shape[0], whole), np.uint32)
    for bit in range(bits):
        values = values << 1 | digits[..., bit]
    return values


def _undone(compression: int, strips: list[bytes], row_bytes: int, rows: int, all_rows: int) -> bytes:
    """Undo a compression of bytes by libtiff: it reads the strips as a grey image of their own."""
    places = list(itertools.accumulate((len(strip) for strip in strips), initial=8))
    lists = struct.pack(f"<{2 * len(strips)}I", *places[:-1], *(len(strip) for strip in strips))
    at = places[-1] + len(lists)
    offsets, counts = (places[-1], places[-1] + 4 * len(strips)) if len(strips) > 1 else (8, len(strips[0]))
    tags = (
        *((256, 1, row_bytes), (257, 1, all_rows), (258, 1, 8), (259, 1, compression), (262, 1, 1)),
        *((273, len(strips), offsets), (277, 1, 1), (278, 1, rows), (279, len(strips), counts)),
    )
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, *rest) for tag, *rest in tags)
    file = b"".join((b"II*\0", struct.pack("<I", at), *strips, lists, directory, bytes(4)))
    with TiffImagePlugin.TiffImageFile(io.BytesIO(file)) as image:
        return image.tobytes()


def _picture(data: bytes, samples: int) -> bytes:
    with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
        return image.convert("RGBA" if samples == 4 else "RGB").tobytes()


def _name(compression: int) -> str:
    try:
        return tifffile.COMPRESSION(compression).name.replace("_", " ")
    except ValueError:
        return str(compression)
