"""Which kinds of image Shoal reads, told by their first bytes. Names of files are not believed."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 512  # enough for every test here

# Only a hint, where nothing has been read yet: is this tree sorted into classes, is this tar member an image.
IMAGE_EXTENSIONS: Final = frozenset(
    {"avif", "bmp", "dib", "gif", "heic", "heif", "hif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg"}
    | {"pbm", "pgm", "png", "pnm", "ppm", "psd", "qoi", "tif", "tiff", "webp"}
)


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A format, and the Pillow plugin that reads it; plugins are imported when the first such image comes."""

    name: str
    module: str
    plugin: str
    held: float = 13.0  # bytes a pixel that decoding holds at once, as measured


JPEG: Final = ImageFormat("JPEG", "PIL.JpegImagePlugin", "JpegImageFile")
PNG: Final = ImageFormat("PNG", "PIL.PngImagePlugin", "PngImageFile")
_GIF = ImageFormat("GIF", "PIL.GifImagePlugin", "GifImageFile")
_BMP = ImageFormat("BMP", "PIL.BmpImagePlugin", "BmpImageFile")
TIFF: Final = ImageFormat("TIFF", "PIL.TiffImagePlugin", "TiffImageFile")
_WEBP = ImageFormat("WebP", "PIL.WebPImagePlugin", "WebPImageFile", held=21.0)
_AVIF = ImageFormat("AVIF", "PIL.AvifImagePlugin", "AvifImageFile", held=18.0)
_HEIF = ImageFormat("HEIF", "pillow_heif", "HeifImageFile", held=18.0)
JPEG2000: Final = ImageFormat("JPEG 2000", "PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile", held=26.0)
ICO: Final = ImageFormat("ICO", "PIL.IcoImagePlugin", "IcoImageFile")
PPM: Final = ImageFormat("PPM", "PIL.PpmImagePlugin", "PpmImageFile")
QOI: Final = ImageFormat("QOI", "PIL.QoiImagePlugin", "QoiImageFile")
_PSD = ImageFormat("PSD", "PIL.PsdImagePlugin", "PsdImageFile")

_MAGIC: Final = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"\xff\x4f\xff\x51", JPEG2000),
    (b"\0\0\1\0", ICO),
    (b"qoif", QOI),
    (b"8BPS", _PSD),
)
_BMP_HEADERS: Final = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
NO_IMAGE: Final = "not an image"
TEXT: Final = "not an image (text)"
_OTHER_MAGIC: Final = (
    (b"%PDF-", "not an image (PDF document)"),
    (b"\x1a\x45\xdf\xa3", "not an image (video)"),
    (b"PK\x03\x04", "not an image (zip file)"),
    (b"\xff\x0a", "JPEG XL is not read"),
    (b"P7\n", "PAM is not read"),
    (b"PF\n", "PFM is not read"),
    (b"Pf\n", "PFM is not read"),
    (b"\0\0\0\x0cJXL ", "JPEG XL is not read"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}


def sniff(head: bytes) -> ImageFormat | None:
    """The format whose magic bytes `head` (the first HEAD_BYTES or fewer of a file) starts with, or None."""
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WEBP
    if head[4:8] == b"ftyp":
        return _isobmff(head)
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:  # "BM" alone starts many a text
        return _BMP
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\t", b"\r", b"\n"):
        return PPM
    return None


def why_not(head: bytes) -> str:
    """Why a file that `sniff` does not know is not read."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "SVG drawing: vector images are not read"
    if text.startswith((b"<!doctype html", b"<html")):
        return "not an image (HTML page)"
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "not an image (video)"
    if not head.strip(b"\0"):
        return "not an image (zero bytes only)" if head else "empty file"
    reason = next((reason for magic, reason in _OTHER_MAGIC if head.startswith(magic)), None)
    return reason or (TEXT if _is_text(head) else NO_IMAGE)


def _is_text(head: bytes) -> bool:
    """Is it UTF-8, as far as it goes, without characters that no text has?"""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)


def _isobmff(head: bytes) -> ImageFormat | None:
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, length - 3, 4))}
    # HEIC files name mif1 too, and AVIF files as well: the specific brand decides.
    if brands & _AVIF_BRANDS:
        return _AVIF
    return _HEIF if brands & _HEIF_BRANDS else None
