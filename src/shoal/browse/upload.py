"""An image that comes with a request: limited in bytes before it is kept, and in pixels before it is decoded."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from shoal.browse.errors import UploadTooLargeError
from shoal.errors import DecodeError, RequestError
from shoal.images.decode import probe

MOST_BYTES: Final = 20 << 20
MOST_PIXELS: Final = 50_000_000
ENVELOPE_BYTES: Final = 64 << 10  # of a multipart body around its file
FIELD: Final = "image"


async def uploaded_image(request: Request) -> bytes:
    """The bytes of the field `image`, known to be of an image of at most MOST_PIXELS.

    Raises:
        UploadTooLargeError: more than MOST_BYTES or MOST_PIXELS. RequestError: no such field. DecodeError: no image.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(f"expected multipart/form-data with a file in the field {FIELD!r}")
    try:
        form = await MultiPartParser(request.headers, _limited(request), max_files=1, max_fields=4).parse()
    except MultiPartException as error:
        raise RequestError(f"the upload cannot be read: {error.message}") from error
    file = form.get(FIELD)
    if not isinstance(file, UploadFile):
        raise RequestError(f"the upload has no file in the field {FIELD!r}")
    data = await file.read(MOST_BYTES + 1)
    await form.close()
    if len(data) > MOST_BYTES:
        raise UploadTooLargeError(_too_many_bytes())
    return checked(data)


def checked(data: bytes) -> bytes:
    """The same bytes, if their header says that they are an image of at most MOST_PIXELS."""
    if not data:
        raise DecodeError("empty file")
    header = probe(data)
    if header.width * header.height > MOST_PIXELS:
        raise UploadTooLargeError(
            f"the image has {header.width:,} × {header.height:,} pixels; at most {MOST_PIXELS:,} are taken"
        )
    return data


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """The body, broken off as soon as it is too long, whatever its header says."""
    most = MOST_BYTES + ENVELOPE_BYTES
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise UploadTooLargeError(_too_many_bytes())
    taken = 0
    async for chunk in request.stream():
        taken += len(chunk)
        if taken > most:
            raise UploadTooLargeError(_too_many_bytes())
        yield chunk


def _too_many_bytes() -> str:
    return f"the upload is larger than the {MOST_BYTES >> 20} MiB that are taken"
