"""Disks: is there room? Asked before long work. And what a person is told when they take or give nothing any more."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.errors import DiskSpaceError, WorkError

SPARE_BYTES = 64 * 2**20  # left free for logs, tables and everybody else


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise DiskSpaceError if the disk of `folder` (or of its nearest existing parent) cannot take `needed_bytes`."""
    existing = nearest_existing(folder)
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + SPARE_BYTES:
        raise DiskSpaceError(
            f"{purpose} needs {(needed_bytes + SPARE_BYTES) / 2**20:,.0f} MiB ({SPARE_BYTES / 2**20:.0f} of them to "
            f"spare), but the disk of {existing} has only {free / 2**20:,.0f} MiB free; make room or choose another "
            "place"
        )


def nearest_existing(folder: Path) -> Path:
    """`folder`, or the nearest parent of it that is there."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


@contextmanager
def writing_errors(place: Path) -> Iterator[None]:
    """Turn what the operating system says about files of `place` into an error for the person.

    Raises:
        DiskSpaceError: the disk is full. WorkError: anything else.
    """
    try:
        yield
    except OSError as error:
        raise explained(error, place) from error


def explained(error: OSError, place: Path | None = None) -> WorkError:
    """The error for the person; `place` is what was written, as far as they know of it."""
    where = error.filename2 or error.filename or place
    if where is None:
        return WorkError(str(error))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        at = "" if place is None or str(where) == str(place) else f", at {where}"
        return DiskSpaceError(f"the disk of {place or where} is full{at}; make room and give the same command again")
    return WorkError(f"cannot read or write {where}: {error.strerror}; mend it and give the same command again")
