"""Is there room on the disk? Asked before long work."""

from __future__ import annotations

import shutil
from pathlib import Path

from shoal.errors import DiskSpaceError

SPARE_BYTES = 64 * 2**20  # left free for logs, tables and everybody else


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise DiskSpaceError if the disk of `folder` (or of its nearest existing parent) cannot take `needed_bytes`."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + SPARE_BYTES:
        raise DiskSpaceError(
            f"{purpose} needs {(needed_bytes + SPARE_BYTES) / 2**20:,.0f} MiB ({SPARE_BYTES / 2**20:.0f} of them to "
            f"spare), but the disk of {existing} has only {free / 2**20:,.0f} MiB free; make room or choose another "
            "place"
        )
