"""How much memory a file from elsewhere may make its reader take: what it asks for beyond that is refused to it.

By the address space of the process, which only Linux counts so that it can be limited; elsewhere what is looked at
before a network is read has to do (`onnx_file`, `onnx_network`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil

from shoal.cores import core_count

FOR_READING: Final = 1 << 30  # bytes, beside those for each core and of the file
A_CORE: Final = 1 << 26  # of each thread's own
COPIES: Final = 6  # of a file, while OpenVINO reads it: three of one of 400 MB


def of_reading(nbytes: int) -> int:
    """Bytes that reading a file of `nbytes` may take."""
    return min(FOR_READING + A_CORE * core_count() + COPIES * nbytes, of_running())


def of_running() -> int:
    """Bytes that a network may take while it is tried: three quarters of the machine's."""
    return psutil.virtual_memory().total * 3 // 4


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Refuse this process more than `more` bytes beside what it has now. Who asks for them gets a MemoryError."""
    if sys.platform != "linux":
        yield
        return
    import resource  # noqa: PLC0415  (Windows has none)

    before, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + more
    ends = [end for end in (wanted, before, most) if end != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(ends), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
