"""Deaths between any two writes: a stand-in for SIGKILL that needs no process of its own, no sleeping and no luck.

The interpreter tells of every file that is opened for writing, renamed, linked or removed before it is done (its audit
events). The process "dies" there: from that moment on none of its writes happens, clearing up included.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = frozenset(
    ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.utime", "os.chmod", "os.truncate")
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@dataclass
class _Watch:
    folder: str
    left: int  # writes that still happen; below zero, all do
    is_torn: bool
    seen: int = 0
    is_dead: bool = False
    is_quiet: bool = False


_watch: _Watch | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    watch = _watch
    if watch is None or watch.is_quiet or not (event in CHANGING or event == "open"):
        return
    path = arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    if event == "open" and not (arguments[2] or 0) & WRITING:
        return
    place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (pathlib would audit itself)
    if not place.startswith(watch.folder):
        return
    if watch.is_dead:
        raise Killed
    if watch.seen == watch.left:
        watch.is_dead = True
        if watch.is_torn and event == "open":  # what an older one held stays: a death there is one before the opening
            watch.is_quiet = True
            open(place, "ab").close()  # noqa: PTH123
            watch.is_quiet = False
        raise Killed
    watch.seen += 1


sys.addaudithook(_hear)


@contextmanager
def _watching(folder: Path, left: int, is_torn: bool = False) -> Iterator[_Watch]:
    global _watch  # noqa: PLW0603  (a hook cannot be taken away again)
    _watch = watch = _Watch(os.path.abspath(folder), left, is_torn)  # noqa: PTH100
    try:
        yield watch
    finally:
        _watch = None


def count_writes(folder: Path, work: Callable[[], object]) -> int:
    """How many writes below `folder` the work makes."""
    with _watching(folder, -1) as watch:
        work()
    return watch.seen


def kill(folder: Path, write: int, work: Callable[[], object], *, torn: bool = False) -> None:
    """Do the work and die just before its write number `write`, from 0, below `folder`; it must get that far.

    Args:
        torn: if that write makes a new file, die when it is there and empty.
    """
    with _watching(folder, write, torn) as watch:
        try:
            work()
        except Killed:
            return
    raise AssertionError(f"the work made only {watch.seen} writes; it was to die before number {write}")
