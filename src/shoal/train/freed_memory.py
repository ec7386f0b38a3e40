"""Memory of freed tensors, kept for the next ones."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
EVERYTHING = 2**31 - 1


def keep() -> None:
    """Have this process's malloc keep what is freed, where it is glibc's.

    As it comes, it gives tensors of over 32 MB back to the system as soon as they are freed, which clears the pages of
    the same ones again in every step: a seventh of a training's time on a CPU, for a tenth less memory.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, EVERYTHING)
