"""Decoding: bytes of any common format to an upright RGB image, or a reason why not. Nothing else comes out of here."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final

from PIL import Image

from shoal.errors import DecodeError
from shoal.images import jpeg, pillow, pnm, tiff
from shoal.images.colour import find_profile
from shoal.images.formats import HEAD_BYTES, JPEG, PPM, TIFF, ImageFormat, sniff, why_not
from shoal.images.layer import Rendered, to_srgb
from shoal.images.levels import Range, find_range, to_levels
from shoal.images.limits import check_size, memory_for
from shoal.images.orientation import turned
from shoal.images.reasons import imagecodecs, reason

VERSION: Final = 2  # to be raised when files show other pixels than before: they are embedded again


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself: pixels as stored, before EXIF rotation."""

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB image in sRGB, maybe at reduced scale, and its full size, upright too.

    `note` says in a few words what had to be inferred or chosen (how many bits its numbers have, which frame is shown,
    what lies behind transparency); None if nothing had to.
    """

    image: Image.Image
    full_width: int
    full_height: int
    note: str | None = None


def probe(data: bytes) -> Header:
    """Read a file's header without decoding pixels.

    Raises:
        DecodeError: it is no image that Shoal reads, by what is installed; its header is broken; or it has too many
            pixels, those of a JPEG counted at the least scale.
    """
    found = _format(data)
    if found is JPEG:
        header = _jpeg_header(data)
        _check_jpeg(header, max(jpeg.DIVISORS))
        if header.precision != 8:
            _other_decoder(header)
        return Header(header.width, header.height, found.name)
    width, height = _opened(data, found).size
    return Header(width, height, found.name)


def decode(data: bytes, *, least_size: int | None = None) -> Image.Image:
    """Decode the first frame that is not blank to upright RGB; docs/formats.md says how each kind is read.

    Args:
        data: a whole file.
        least_size: leave to decode a JPEG at 1/2, 1/4 or 1/8 scale, as long as its shorter side keeps this many pixels.

    Raises:
        DecodeError: with a short reason.
    """
    return decode_scaled(data, least_size).image


def decode_scaled(data: bytes, least_size: int | None = None) -> Decoded:
    """As `decode`, with the size that the image has at full scale, and notes."""
    found = _format(data)
    if found is JPEG:
        return _decode_jpeg(data, least_size)
    source = _opened(data, found)
    width, height = source.size
    with memory_for(width * height * source.held):
        image, notes = source.render()
    return Decoded(image, image.width, image.height, "; ".join(notes) or None)


def _opened(data: bytes, found: ImageFormat) -> pillow.PillowFile | pnm.Pnm | tiff.TiffImage:
    """The file with its header read, and not too large."""
    if found is TIFF:
        source: pillow.PillowFile | pnm.Pnm | tiff.TiffImage = tiff.open_file(data)
    else:
        source = pnm.read_header(data) if found is PPM else pillow.open_file(data, found)
    check_size(*source.size, source.held, found.name)
    return source


def _decode_jpeg(data: bytes, least_size: int | None) -> Decoded:
    header = _jpeg_header(data)
    divisor = jpeg.divisor(header, least_size)
    _check_jpeg(header, divisor)
    if header.whole and jpeg.has_too_many_scans(data, header):
        raise DecodeError("JPEG of too many scans")
    with memory_for(header.held(divisor)):
        image, notes = _jpeg_pixels(data, header, divisor)
    size = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    return Decoded(turned(image, header.orientation), *size, "; ".join(notes) or None)


def _jpeg_pixels(data: bytes, header: jpeg.JpegHeader, divisor: int) -> Rendered:
    """As stored, in sRGB."""
    image = jpeg.decode_turbo(data, header, divisor)
    if image is None:
        mended = jpeg.mended(data, header)
        image = None if mended is None else jpeg.decode_turbo(mended, header, divisor)
    if image is None and (header.precision != 8 or header.is_lossless):
        return _by_imagecodecs(data, header)
    if image is None:
        return _by_pillow(data, header, divisor)
    if image.mode == "RGB" and (not header.profile or find_profile(header.profile) is None):
        return image, ()
    return to_srgb(image.getchannel("R") if header.components == 1 else image, header.profile)


def _by_imagecodecs(data: bytes, header: jpeg.JpegHeader) -> Rendered:
    """Kinds that cameras and doctors' machines write."""
    decoder = _other_decoder(header)
    try:
        values = decoder.jpeg_decode(data)
    except Exception as error:  # it raises what it likes
        raise reason(data, JPEG, error) from error
    found = find_range(values, Range(0, 2**header.precision - 1) if header.precision < 16 else None)
    image, notes = to_srgb(Image.fromarray(to_levels(values, found)), header.profile)
    return image, notes if found.note is None else (found.note, *notes)


def _other_decoder(header: jpeg.JpegHeader) -> ModuleType:
    kind = f"{'lossless ' if header.is_lossless else ''}JPEG of {header.precision} bits"
    if header.components not in (1, 3):
        raise DecodeError(f"{kind} with {header.components} channels is not read")
    check_size(header.width, header.height, 5 * header.components + 8 + 2 * header.samples, kind)
    return imagecodecs(kind)


def _by_pillow(data: bytes, header: jpeg.JpegHeader, divisor: int) -> Rendered:
    source = pillow.open_file(data, JPEG)
    if source.size != (header.width, header.height):
        raise DecodeError("corrupt JPEG")  # the two readers of the header disagree
    source.reduce(divisor)
    return source.render()


def _jpeg_header(data: bytes) -> jpeg.JpegHeader:
    header = jpeg.read_header(data)
    if header is None and jpeg.is_jpeg_ls(data):
        raise DecodeError("JPEG-LS is not read")
    if header is None:
        raise DecodeError("truncated or corrupt JPEG (no frame header)")
    return header


def _check_jpeg(header: jpeg.JpegHeader, divisor: int) -> None:
    pixels = header.width * header.height
    if pixels > jpeg.MOST_PIXELS:
        size = f"{header.width:,} x {header.height:,}"
        raise DecodeError(f"too many pixels ({size}; at most {jpeg.MOST_PIXELS:,} of a JPEG are decoded)")
    check_size(header.width, header.height, header.held(divisor) / max(1, pixels), "JPEG of this kind")


def _format(data: bytes) -> ImageFormat:
    head = data[:HEAD_BYTES]
    found = sniff(head)
    if found is None:
        raise DecodeError(why_not(head))
    return found
