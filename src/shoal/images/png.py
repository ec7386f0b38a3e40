"""PNG beyond what Pillow makes of it: chunks that a browser would skip, and all 16 bits of a sample."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from shoal.images.levels import Range, find_range, to_levels

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_TEXT: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6  # colour types
_PLANES: Final = {COLOUR: ("RGB;16B", "RGB;16L"), COLOUR_ALPHA: ("RGBA;16B", "RGBA;16L")}  # high bytes, low bytes


def sound_chunks(data: bytes) -> bytes:
    """The file without its texts and without chunks beside the pixels that are damaged, and with its end chunk.

    The same bytes where there is nothing to leave out. Chunks that pixels need are left as they are, to be judged by
    the decoder.
    """
    kept: list[slice] = []
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        after = position + 12 + length
        if after > len(data):
            break
        if kind[0] < ord("a") or (kind not in _TEXT and _is_sound(data, position, length)):
            if kept and kept[-1].stop == position:
                kept[-1] = slice(kept[-1].start, after)
            else:
                kept.append(slice(position, after))
        position = after
        if kind == b"IEND":
            break
    ends = data[position - 8 : position - 4] == b"IEND"
    if ends and len(kept) == 1 and kept[0].start == len(SIGNATURE):
        return data
    cut_short = data[position + 4 : position + 8]  # a chunk of which only the beginning is there
    rest = b"" if ends else data[position:] if cut_short[:1].isupper() and cut_short != b"IEND" else _END
    return b"".join((SIGNATURE, *(data[part] for part in kept), rest))


def is_deep(data: bytes) -> bool:
    """Whether its samples have 16 bits."""
    return data[24:25] == b"\x10"


def read_deep(data: bytes) -> tuple[Image.Image, str | None]:
    """The 8-bit image, L, LA, RGB or RGBA, of a PNG with 16 bits a sample, and a note where bits had to be inferred.

    Raises:
        Exception: whatever Pillow raises for a broken file.
    """
    kind = data[25]
    values, key = _grey(data) if kind in (GREY, GREY_ALPHA) else _colour(data, kind)
    alpha: npt.NDArray[Any] | None = None
    if kind in (GREY_ALPHA, COLOUR_ALPHA):
        values, alpha = values[..., :-1], (values[..., -1] >> 8).astype(np.uint8)
    elif key is not None:
        alpha = np.where((values == np.array(key, np.uint16)).all(axis=-1), 0, 255).astype(np.uint8)
    found = find_range(values, Range(0, 65535) if _says_bits(data) else None)
    levels = to_levels(values, found)
    if alpha is not None:
        levels = np.dstack([levels, alpha])
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels), found.note


def _grey(data: bytes) -> tuple[npt.NDArray[np.uint16], tuple[int, ...] | None]:
    if data[25] == GREY:
        with _open(data) as image:
            return np.asarray(image, np.uint16)[..., None], _key(image)
    # Grey and alpha of 16 bits are, byte for byte, four samples of 8 bits.
    header = b"IHDR" + data[16:24] + bytes((8, COLOUR_ALPHA)) + data[26:29]
    with _open(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]) as image:
        return np.asarray(image).view(">u2").astype(np.uint16), None


def _colour(data: bytes, kind: int) -> tuple[npt.NDArray[np.uint16], tuple[int, ...] | None]:
    values: Any = 0
    for raw_mode, shift in zip(_PLANES[kind], (8, 0), strict=True):
        with _open(data) as image:
            image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
            key = _key(image)
            image.load()
            values = values | np.asarray(image).astype(np.uint16) << shift
    return values, key


def _says_bits(data: bytes) -> bool:
    """Whether its samples go over all 16 bits: if it names fewer, they were scaled up; a profile is for the whole."""
    before = data.find(b"IDAT")
    return data.find(b"sBIT", 0, before) >= 0 or data.find(b"iCCP", 0, before) >= 0


def _key(image: ImageFile.ImageFile) -> tuple[int, ...] | None:
    """The colour that is transparent, in 16 bits."""
    key = image.info.get("transparency")
    return (key,) if isinstance(key, int) else key if isinstance(key, tuple) else None


def _open(data: bytes) -> ImageFile.ImageFile:
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415  (as all plugins: when the first such image comes)

    return PngImageFile(io.BytesIO(data))


def _is_sound(data: bytes, position: int, length: int) -> bool:
    body = data[position + 4 : position + 8 + length]
    return zlib.crc32(body) == int.from_bytes(data[position + 8 + length : position + 12 + length], "big")
