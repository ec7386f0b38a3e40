"""Does a process live? Asked before its lock is taken over."""

from __future__ import annotations

from typing import Final

import psutil

SAME_START_SECONDS: Final = 2.0  # systems tell when a process began only so exactly


def lives(pid: int, started: float) -> bool:
    """True if process `pid` runs on this machine, or may: somebody else's that nobody here may look at.

    One that has ended is dead at once, even if its parent has not asked for its exit status yet (a zombie).

    Args:
        started: seconds since the epoch; the process must have begun then, for numbers are given again.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        return abs(process.create_time() - started) < SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
