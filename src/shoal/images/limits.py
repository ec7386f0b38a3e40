"""What decoding one image may take: bytes held at once, and one large image at a time."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from shoal.errors import DecodeError

MOST_HELD: Final = (
    1_500_000_000  # bytes that decoding one image may hold besides the file: 2 GB with all that is round it
)
LARGE_HELD: Final = 200_000_000  # images that hold more are decoded one at a time, so that threads do not add up
MOST_FRAMES: Final = 1_000  # frames or planes that are looked at for one that is not blank,
MOST_LOOKED_AT: Final = 250_000_000  # and pixels of them all together

_large = threading.Lock()


def check_size(width: int, height: int, held: float, name: str) -> None:
    """Refuse an image without pixels, and one that would hold more than MOST_HELD at `held` bytes a pixel.

    Raises:
        DecodeError: with what is wrong with the size.
    """
    if width < 1 or height < 1:
        raise DecodeError(f"no pixels ({width} x {height})")
    most = int(MOST_HELD // held)
    if width * height > most:
        raise DecodeError(f"too many pixels ({width:,} x {height:,}; at most {most:,} of a {name} are decoded)")


def memory_for(held: float) -> AbstractContextManager[Any]:
    """Wait for other large images if this one, with `held` bytes, is large."""
    return _large if held > LARGE_HELD else nullcontext()
