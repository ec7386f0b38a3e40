"""Why an image is not read, in a few words of Shoal's own: no text of a library or of Python is passed on."""

from __future__ import annotations

import importlib
import struct
from types import ModuleType
from typing import Final

from shoal.errors import DecodeError
from shoal.images.formats import ImageFormat

_TRUNCATED: Final = ("truncated", "premature", "unexpected end", "not enough", "incomplete", "ended before")
_UNREAD: Final = ("unsupported", "not supported", "not yet supported", "not implemented", "cannot handle")
_BMP_COMPRESSION: Final = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}


def reason(data: bytes, found: ImageFormat, error: Exception) -> DecodeError:
    """What to say of `error`, which a decoder raised on a file of this format."""
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, MemoryError):
        return DecodeError(f"too little memory to decode this {found.name}")
    kind = _kind(data, found)
    if kind:
        return DecodeError(f"{found.name} with {kind} is not read")
    text = str(error).lower()
    if isinstance(error, EOFError) or any(word in text for word in _TRUNCATED):
        return DecodeError(f"truncated {found.name}")
    if isinstance(error, NotImplementedError) or any(word in text for word in _UNREAD):
        return DecodeError(f"{found.name} of a kind that is not read")
    return DecodeError(f"corrupt {found.name}")


def imagecodecs(what: str) -> ModuleType:
    """The package imagecodecs.

    Raises:
        DecodeError: it is not installed; `what` needs it.
    """
    try:
        return importlib.import_module("imagecodecs")
    except ImportError as error:
        raise DecodeError(f"{what} needs the package imagecodecs (pip install imagecodecs)") from error


def _kind(data: bytes, found: ImageFormat) -> str | None:
    """What the header says that is known not to be read; None where it says nothing of the kind."""
    try:
        return {"BMP": _kind_of_bmp, "PSD": _kind_of_psd}[found.name](data)
    except (KeyError, struct.error):
        return None


def _kind_of_bmp(data: bytes) -> str | None:
    if struct.unpack_from("<I", data, 14)[0] < 40:
        return None
    bits, compression = struct.unpack_from("<HI", data, 28)
    if compression in _BMP_COMPRESSION:
        return f"{_BMP_COMPRESSION[compression]} inside"
    return f"{bits} bits a pixel" if bits not in (1, 4, 8, 16, 24, 32) else None


def _kind_of_psd(data: bytes) -> str | None:
    (bits,) = struct.unpack_from(">H", data, 22)
    return None if bits in (1, 8) else f"{bits} bits a channel"
