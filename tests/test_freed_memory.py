"""Freed memory is kept: the pages of a tensor are there when the next one of its size comes."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, ctypes, resource, sys
import torch
from shoal.train import freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: a fault for every small one
with freed_memory.kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    for number in range(60):
        if number == 40:  # by then blocks have found their places
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16, 1024, 1024)  # 64 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_the_pages_of_freed_tensors_are_not_cleared_again() -> None:
    def faults(how: str) -> int:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True, env=ours)
        return int(done.stdout)

    cleared_again = 20 * 64 * 2**20 // resource.getpagesize()
    assert faults("as it is") - faults("kept") > cleared_again // 2
