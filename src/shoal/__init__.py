"""Shoal groups images by what they show, without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["ImageClusterer", "ShoalError", "__version__"]

if TYPE_CHECKING:
    from shoal.api import ImageClusterer
    from shoal.errors import ShoalError


def __getattr__(name: str) -> object:
    # Loaded on use, so that `shoal --help` does not wait for numpy and its friends.
    if name == "ImageClusterer":
        from shoal.api import ImageClusterer  # noqa: PLC0415

        return ImageClusterer
    if name == "ShoalError":
        from shoal.errors import ShoalError  # noqa: PLC0415

        return ShoalError
    raise AttributeError(f"module 'shoal' has no attribute {name!r}")
