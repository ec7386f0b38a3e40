"""edits.jsonl: append-only, one line an edit, with an append lock of its own.

A line counts once its newline is on disk. What a killed writer left of a line is cut off by the next one, and was
never told to anybody as done. A refit counts with the generation that it makes: that has its line too, should a kill
have come between.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import filelock

from shoal import disk
from shoal.corrections.edit import REDO, REFIT, UNDO, Edit
from shoal.errors import RunError, RunLockedError
from shoal.rundir import RunDir

LOCK_SECONDS: Final = 10.0
MOST_IDS_IN_ALL: Final = 1 << 26  # 512 MB: a log of a few hundred bytes could name more than memory holds

Stamp = tuple[int, int, int]


def read_log(run_dir: RunDir) -> list[Edit]:
    """The lines that belong to the generation seen, in order; none if nothing was ever changed.

    Raises:
        RunError: a line is not readable.
    """
    return belonging(Log(run_dir.edits).read(), run_dir)


def append(run_dir: RunDir, make: Callable[[Sequence[Edit]], Edit], log: Log | None = None) -> Edit:
    """Append what `make` makes of the log as it is under the lock, so that no other writer comes between.

    Args:
        log: the run's, if it was read before.

    Raises:
        RunLockedError: another writer holds the log for longer than any append takes.
        Whatever `make` raises; then nothing is written.
    """
    log = log or Log(run_dir.edits)
    with appending(run_dir, log) as lines:
        edit = make(lines)
        log.write(edit)
        return edit


@contextmanager
def appending(run_dir: RunDir, log: Log) -> Iterator[list[Edit]]:
    """Hold the lock of a run's log while the block runs; yields the lines of the run as it is now. See `Log.held`."""
    with log.held():
        lines = log.read()
        whole = belonging(lines, RunDir.open(run_dir.root))
        if len(whole) > len(lines):  # a kill has kept the refit's line from the file
            log.write(whole[-1])
        yield whole


def belonging(lines: list[Edit], run_dir: RunDir) -> list[Edit]:
    """The lines that belong to the generation seen.

    That is up to a refit that it does not know of, which made a later one; and with the one that made it.
    """
    known, refit_line = run_dir.files.log()
    if known is None:
        return lines
    if refit_line is not None and len(lines) == known - 1:
        return [*lines, Edit.from_line(refit_line.encode(), known)]
    later = next((edit.n for edit in lines[known:] if edit.op == REFIT), len(lines) + 1)
    return lines[: later - 1]


class Log:
    """A log that is read again and again: of what was read before, only what is new since is parsed.

    The same lines give the same objects each time, so that who asks can tell by `is` what is new. May be used from
    several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._edits: list[Edit] = []
        self._ids = 0  # how many ids those hold
        self._size = 0  # bytes of those lines
        self._digest = hashlib.blake2b()  # of those bytes
        self._stamp: Stamp | None = None  # of the file when it was read

    def read(self) -> list[Edit]:
        """All lines in order; none if nothing was ever changed. Raises RunError if a line is not readable."""
        with self._lock:
            return self._read()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the log's own lock while the block runs, so that no other writer comes between.

        Raises:
            RunLockedError: another writer holds it for longer than any append takes.
            DiskSpaceError, WorkError: the disk is full, or cannot be written to.
        """
        lock = filelock.FileLock(self._path.with_name("edits.lock"), timeout=LOCK_SECONDS)
        try:
            with disk.writing_errors(self._path), lock:
                yield
        except filelock.Timeout as error:
            raise RunLockedError(f"{self._path} is held by another writer; try again") from error

    def write(self, edit: Edit) -> None:
        """Append a line, for who holds the lock."""
        with self._lock:
            self._write(edit.to_line())

    def _read(self) -> list[Edit]:
        try:
            with self._path.open("rb") as file:
                stamp = _stamp(file.fileno())
                if stamp == self._stamp:
                    return list(self._edits)
                data = file.read()
        except FileNotFoundError:
            self._forget()
            return []
        # Somebody else wrote. If it is still what we know and more, only the rest is new.
        if hashlib.blake2b(memoryview(data)[: self._size]).digest() != self._digest.digest():
            self._forget()
        self._take(data[self._size :])
        self._stamp = stamp
        return list(self._edits)

    def _take(self, data: bytes) -> None:
        """Parse whole lines that come after those known. If one is not readable, none counts as known."""
        whole = data[: data.rfind(b"\n") + 1]
        first = len(self._edits) + 1
        edits, ids = [], self._ids
        for number, line in enumerate(whole.split(b"\n")[:-1], first):
            edit = Edit.from_line(line, number)
            ids += edit.named_ids
            if ids > MOST_IDS_IN_ALL:
                raise RunError(f"edits.jsonl, line {number}: the edits so far name over {MOST_IDS_IN_ALL:,} images")
            edits.append(edit)
        self._edits += edits
        self._ids = ids
        self._size += len(whole)
        self._digest.update(whole)

    def _write(self, line: bytes) -> None:
        """Write a line after the last whole one, in the place of what a killed writer left of one."""
        with self._path.open("ab+") as file:
            is_known = _stamp(file.fileno()) == self._stamp
            if not is_known:  # there was no file, or somebody wrote into it by hand
                file.seek(0)
            file.truncate(self._size if is_known else file.read().rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            stamp = _stamp(file.fileno())
        if is_known:
            self._take(line)
            self._stamp = stamp


def in_force(log: Sequence[Edit]) -> tuple[list[Edit], list[Edit]]:
    """Edits in force in their order, and edits that can be redone, the next one last."""
    done: list[Edit] = []
    undone: list[Edit] = []
    for edit in log:
        if edit.op == UNDO:
            if done:
                undone.append(done.pop())
        elif edit.op == REDO:
            if undone:
                done.append(undone.pop())
        else:
            done.append(edit)
            undone.clear()
    return done, undone


def _stamp(descriptor: int) -> Stamp:
    """What changes when a file is written to or replaced."""
    found = os.fstat(descriptor)
    return found.st_ino, found.st_size, found.st_mtime_ns
