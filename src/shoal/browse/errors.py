"""What only the server has to tell."""

from __future__ import annotations

from shoal.errors import RequestError


class MissingError(RequestError):
    """What was asked for is not there."""


class UploadTooLargeError(RequestError):
    """The upload has more bytes or pixels than are taken."""
