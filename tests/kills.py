"""Deaths and full disks between any two writes: stand-ins that need no process, no disk, no sleeping and no luck.

The interpreter tells of every file that is opened for writing, renamed, linked or removed before it is done (its audit
events). The process "dies" there: from that moment on none of its writes happens, clearing up included. Or the disk is
full there, or cannot be written to any more: from then on writes raise what the system would.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TAKING_AWAY = frozenset(("os.remove", "os.rmdir"))
CHANGING = TAKING_AWAY | {"os.rename", "os.mkdir", "os.link", "os.symlink", "os.utime", "os.chmod", "os.truncate"}
FULL = (errno.ENOSPC, TAKING_AWAY | {"os.utime", "os.chmod"})  # the error, and what a disk still does then
READ_ONLY = (errno.EROFS, frozenset[str]())


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@dataclass
class _Watch:
    folder: str
    left: int  # writes that still happen; below zero, all do
    is_torn: bool
    fault: tuple[int, frozenset[str]] | None = None
    seen: list[str] = field(default_factory=list)  # each an event and the file's place in the folder
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
    if not place.startswith(watch.folder) or (event == "open" and os.path.isdir(place)):  # noqa: PTH112
        return
    if watch.fault is not None and 0 <= watch.left <= len(watch.seen):
        number, possible = watch.fault
        if event not in possible:
            raise OSError(number, os.strerror(number), place)
    elif watch.is_dead:
        raise Killed
    elif len(watch.seen) == watch.left:
        watch.is_dead = True
        if watch.is_torn and event == "open":  # what an older one held stays: a death there is one before the opening
            watch.is_quiet = True
            open(place, "ab").close()  # noqa: PTH123
            watch.is_quiet = False
        raise Killed
    target = arguments[1] if event in ("os.rename", "os.link") else path
    watch.seen.append(f"{event} {os.path.relpath(os.fsdecode(target), watch.folder)}")


sys.addaudithook(_hear)


@contextmanager
def _watching(
    folder: Path, left: int, is_torn: bool = False, fault: tuple[int, frozenset[str]] | None = None
) -> Iterator[_Watch]:
    global _watch  # noqa: PLW0603  (a hook cannot be taken away again)
    _watch = watch = _Watch(os.path.abspath(folder), left, is_torn, fault)  # noqa: PTH100
    try:
        yield watch
    finally:
        _watch = None


def writes(folder: Path, work: Callable[[], object]) -> list[str]:
    """The writes below `folder` that the work makes, in order: `os.rename run.json`."""
    with _watching(folder, -1) as watch:
        work()
    return watch.seen


def count_writes(folder: Path, work: Callable[[], object]) -> int:
    """How many writes below `folder` the work makes."""
    return len(writes(folder, work))


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
    raise AssertionError(f"the work made only {len(watch.seen)} writes; it was to die before number {write}")


@contextmanager
def failing(folder: Path, write: int, fault: tuple[int, frozenset[str]]) -> Iterator[None]:
    """From write number `write` below `folder` on, the disk is as `fault` says: FULL or READ_ONLY."""
    with _watching(folder, write, fault=fault):
        yield


def bury(run: Path) -> None:
    """Have what "died" here be dead for others too: its lock is nobody's, and it holds no file."""
    gc.collect()
    lock = run / "lock"
    if lock.is_file() and lock.stat().st_size:
        lock.write_text(json.dumps({**json.loads(lock.read_bytes()), "boot": "an earlier one"}))
