"""Freed memory is kept: the pages of a tensor are there when the next one of its size comes, and go in the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, ctypes, json, mmap
import torch
from shoal.train import freed_memory

def share_in_memory(address, size):
    \"\"\"Of the whole pages of a piece of memory; 0 if it has been given back to the system.\"\"\"
    pages = size // mmap.PAGESIZE - 1
    found = (ctypes.c_ubyte * pages)()
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    given_back = ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * mmap.PAGESIZE), found)
    return 0 if given_back else sum(page & 1 for page in found) / pages

def freed(megabytes=64):
    \"\"\"Where the first 64 MB of a tensor were.\"\"\"
    tensor = torch.empty(megabytes, 1024, 1024, dtype=torch.uint8)
    tensor[:64] = 1
    return tensor.data_ptr(), 64 * 2**20

before = share_in_memory(*freed())
with freed_memory.kept():
    kept = min(share_in_memory(*freed(64 + number)) for number in range(20))  # none where one before it was
    early = {freed() for _ in range(20)}  # by then blocks have found their places
    late = {freed() for _ in range(20)}
after = max(share_in_memory(*place) for place in late)
as_before = share_in_memory(*freed(1024))  # larger than what is free among other blocks
print(json.dumps([before, kept, late <= early, after, as_before]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_the_pages_of_a_freed_tensor_are_those_of_the_next_and_go_in_the_end() -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, env=ours)
    before, kept, is_used_again, after, as_before = json.loads(done.stdout)
    assert kept > 0.9  # what the system writes out to disk, short of memory, may be missing
    assert is_used_again
    assert max(before, after, as_before) < 0.1
