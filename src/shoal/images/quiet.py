"""What libraries say about odd files, kept from the person: what matters of it becomes a reason."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import _imaging

_lock = threading.Lock()
_state: dict[str, Any] = {"depth": 0, "filter": None}
_log = logging.getLogger("tifffile")


def _refuse(record: logging.LogRecord) -> bool:
    return False


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings from the modules of Pillow and tifffile, and the log of the latter, while the block runs.

    It is so in any thread: `warnings.catch_warnings` swaps the process's whole list of filters, which threads do to
    each other's harm; this puts one narrow filter in front while at least one block runs.
    """
    with _lock:
        _state["depth"] += 1
        if _state["filter"] not in warnings.filters:  # also when someone has swapped the list meanwhile
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif|tifffile)(\.|$)")
            _state["filter"] = warnings.filters[0]
        _log.addFilter(_refuse)
    try:
        yield
    finally:
        with _lock:
            _state["depth"] -= 1
            if _state["depth"] == 0:
                _log.removeFilter(_refuse)
                with contextlib.suppress(ValueError, AttributeError):
                    warnings.filters.remove(_state["filter"])  # type: ignore[attr-defined]


@functools.cache
def quiet_libtiff() -> None:
    """Have the libtiff that Pillow brings say nothing on standard error of broken files; its caller learns of them.

    Where it cannot be reached, it goes on talking.
    """
    with contextlib.suppress(OSError, AttributeError):
        handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        handler.restype = ctypes.c_void_p
        handler(None)
