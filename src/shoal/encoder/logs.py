"""The log of the process, which is not the libraries' to arrange."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_as_it_was() -> Iterator[None]:
    """Undo what a library does to the root of the log.

    A conversion that fails leaves it as OpenVINO wants it, without anybody's warnings; open_clip has it print them.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers
