"""Freed memory is kept: the pages of a tensor are there when the next one of its size comes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from shoal.train import freed_memory

if sys.argv[1] == "kept":
    freed_memory.keep()
for _ in range(12):
    torch.ones(16, 1024, 1024)  # 64 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_the_pages_of_freed_tensors_are_not_cleared_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True)
        return int(done.stdout)

    cleared_again = 10 * 64 * 2**20 // 4096
    assert faults("as it is") - faults("kept") > cleared_again // 2
