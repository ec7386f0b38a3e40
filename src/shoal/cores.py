"""How many cores there are to work with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")


_granted: int | None = None


def use(count: int) -> None:
    """From now on this process uses `count` cores, whatever the machine has: others were given the rest."""
    global _granted  # noqa: PLW0603  (it is the whole process's, as affinity is)
    _granted = count


def core_count() -> int:
    """Cores that this process may use: of the machine's those that its affinity and its container leave it."""
    return _available() if _granted is None else _granted


@lru_cache(maxsize=1)
def _available() -> int:
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = container_share(CGROUPS, OWN_CGROUP)
    return there if share is None else max(1, min(there, math.ceil(share)))


def container_share(root: Path, own: Path) -> float | None:
    """Cores' worth of time that control groups (Linux, version 2 or 1) let a process have; None: no limit.

    Args:
        root: where they are mounted.
        own: the file that names the process's groups.
    """
    shares = [share for folder in _folders(root, own) if (share := _share(folder)) is not None]
    return min(shares, default=None)


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """The process's groups and those that they lie in; in a container its root may be all that can be seen."""
    yield from (root, root / "cpu")
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = (*line.split(":", 2), "", "")[:3]
        if kinds == "" or "cpu" in kinds.split(","):
            base = root if kinds == "" else root / "cpu"
            inner = base / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(base))


def _share(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period"))
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(quota) and int(period) else None
