"""Decoding: bytes of any common format to an upright RGB image, or a reason why not. Nothing else comes out of here."""

from __future__ import annotations

import importlib
import io
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from shoal.errors import DecodeError
from shoal.images import jpeg
from shoal.images.formats import HEAD_BYTES, JPEG, ImageFormat, sniff, why_not
from shoal.images.quiet import quiet_pillow

MOST_PIXELS: Final = 178_956_970  # where Pillow sees a decompression bomb: 2 GiB at 12 bytes a pixel
LARGE_PIXELS: Final = 24_000_000  # images above this are decoded one at a time, so that threads do not add up

_large = threading.Lock()
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NUMBER_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258  # EXIF and TIFF tags


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself: pixels as stored, before EXIF rotation."""

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB image, maybe at reduced scale, and its full size, upright too."""

    image: Image.Image
    full_width: int
    full_height: int


def probe(data: bytes) -> Header:
    """Read a file's header without decoding pixels.

    Raises:
        DecodeError: it is no image that Shoal reads, its header is broken, or it has more than MOST_PIXELS.
    """
    found = _format(data)
    header = jpeg.read_header(data) if found is JPEG else None
    if header is not None:
        width, height = header.width, header.height
    else:
        width, height = _open(data, found).size
    _check_size(width, height)
    return Header(width, height, found.name)


def decode(data: bytes, *, least_size: int | None = None) -> Image.Image:
    """Decode the first frame to upright RGB, transparency on white.

    Args:
        data: a whole file.
        least_size: leave to decode a JPEG at 1/2, 1/4 or 1/8 scale, as long as its shorter side keeps this many pixels.

    Raises:
        DecodeError: with a short reason.
    """
    return decode_scaled(data, least_size).image


def decode_scaled(data: bytes, least_size: int | None = None) -> Decoded:
    """As `decode`, with the size that the image has at full scale."""
    found = _format(data)
    if found is JPEG:
        return _decode_jpeg(data, least_size)
    source = _open(data, found)
    _check_size(*source.size)
    with _memory_for(source.width * source.height):
        image = _render(source, found)
    return Decoded(image, image.width, image.height)


def _decode_jpeg(data: bytes, least_size: int | None) -> Decoded:
    header = jpeg.read_header(data)
    if header is None or 0 in (header.width, header.height):
        source = _open(data, JPEG)
        header = jpeg.JpegHeader(source.width, source.height, 0, 0, 1)
    _check_size(header.width, header.height)
    divisor = jpeg.divisor(header, least_size)
    with _memory_for(header.width * header.height // divisor**2):
        image = jpeg.decode_turbo(data, header, divisor)
    if image is None:
        source = _open(data, JPEG)
        _check_size(*source.size)  # should the two readers of the header disagree
        with _memory_for(source.width * source.height):
            image = _render(source, JPEG)
    if header.orientation not in _TRANSPOSE:
        return Decoded(image, header.width, header.height)
    size = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    return Decoded(image.transpose(_TRANSPOSE[header.orientation]), *size)


def _format(data: bytes) -> ImageFormat:
    head = data[:HEAD_BYTES]
    found = sniff(head)
    if found is None:
        raise DecodeError(why_not(head))
    return found


def _open(data: bytes, found: ImageFormat) -> ImageFile.ImageFile:
    """Let the format's plugin read the header. Not by `Image.open`: it would try, and import, every plugin there is."""
    try:
        plugin: Any = getattr(importlib.import_module(found.module), found.plugin)
    except ImportError as error:
        raise DecodeError(f"{found.name} is not supported by what is installed here ({error})") from error
    try:
        with quiet_pillow():
            opened: ImageFile.ImageFile = plugin(io.BytesIO(data))
            return opened
    except Exception as error:  # codecs raise what they like on broken data: SyntaxError, struct.error, KeyError, ...
        raise _reason(found, error) from error


def _render(source: ImageFile.ImageFile, found: ImageFormat) -> Image.Image:
    try:
        with quiet_pillow():
            source.load()
            upright = source if found is JPEG else _upright(source)
            return _to_rgb(upright)
    except Exception as error:  # see _open
        raise _reason(found, error) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TRANSPOSE.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF is no reason to lose the image
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _NUMBER_MODES:
        return Image.fromarray(_grey_levels(image)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(layer, mask=layer.getchannel("A"))
        return page
    if image.mode == "LAB":
        from PIL import ImageCms  # noqa: PLC0415  (loads a colour library for a rare mode)

        to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return ImageCms.applyTransform(image, to_rgb) or image
    # An image with several frames keeps its file's bytes alive; what `convert` gives does not.
    return image.convert("RGB")


def _grey_levels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values deeper than 8 bits, [height, width], brought to 0..255 by their range, not clipped.

    Whole numbers of 16 bits go by their full range, so that dark images stay dark. Floats go by the usual ranges 0..1
    and 0..255 where they fit; any other numbers from their least to their greatest. What is not finite becomes black.
    """
    values = np.asarray(image).astype(np.float32)
    finite = np.isfinite(values)
    values[~finite] = 0.0
    least, most = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    low, high = _value_range(image, least, most)
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    scaled[~finite] = 0.0
    return (np.clip(scaled, 0.0, 255.0) + 0.5).astype(np.uint8)


def _value_range(image: Image.Image, least: float, most: float) -> tuple[float, float]:
    if image.mode == "F":
        if least >= 0 and most <= 255:
            return 0.0, 1.0 if most <= 1 else 255.0
        return least, most
    if least >= 0 and most <= 65535:
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        return 0.0, 4095.0 if bits == 12 else 65535.0
    return least, most


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError(f"no pixels ({width} x {height})")
    if width * height > MOST_PIXELS:
        raise DecodeError(f"too many pixels ({width:,} x {height:,}; at most {MOST_PIXELS:,} are decoded)")


def _memory_for(pixels: int) -> AbstractContextManager[Any]:
    return _large if pixels > LARGE_PIXELS else nullcontext()


def _reason(found: ImageFormat, error: Exception) -> DecodeError:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if isinstance(error, MemoryError):
        return DecodeError(f"too little memory to decode this {found.name}")
    if isinstance(error, EOFError) or any(word in lowered for word in ("truncated", "premature", "unexpected end")):
        return DecodeError(f"truncated {found.name}")
    detail = f" ({text[:120]})" if text else ""
    return DecodeError(f"corrupt {found.name}{detail}")
