"""edits.jsonl: append-only, one line an edit, with an append lock of its own.

A line counts once its newline is on disk. What a killed writer left of a line is cut off by the next one, and was
never told to anybody as done. A refit counts with the generation that it makes: that has its line too, should a kill
have come between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import filelock

from shoal import disk
from shoal.corrections.edit import REDO, REFIT, UNDO, Edit
from shoal.errors import RunLockedError
from shoal.rundir import RunDir

LOCK_SECONDS: Final = 10.0


def read_log(run_dir: RunDir) -> list[Edit]:
    """The lines that belong to the generation seen, in order; none if nothing was ever changed.

    Raises:
        RunError: a line is not readable.
    """
    return _belonging(_lines(run_dir), *run_dir.files.log())


def append(run_dir: RunDir, make: Callable[[Sequence[Edit]], Edit]) -> Edit:
    """Append what `make` makes of the log as it is under the lock, so that no other writer comes between.

    Raises:
        RunLockedError: another writer holds the log for longer than any append takes.
        Whatever `make` raises; then nothing is written.
    """
    with appending(run_dir) as log:
        edit = make(log)
        append_line(run_dir, edit.to_line())
        return edit


@contextmanager
def appending(run_dir: RunDir) -> Iterator[list[Edit]]:
    """Hold the log's own lock while the block runs; yields its lines as they are now.

    Raises:
        RunLockedError: another writer holds it for longer than any append takes.
        DiskSpaceError, WorkError: the disk is full, or cannot be written to.
    """
    lock = filelock.FileLock(run_dir.edits.with_name("edits.lock"), timeout=LOCK_SECONDS)
    try:
        with disk.writing_errors(run_dir.edits), lock:
            now = RunDir.open(run_dir.root)
            log = read_log(now)
            if len(log) > len(_lines(now)):  # a kill has kept the refit's line from the file
                append_line(now, log[-1].to_line())
            yield log
    except filelock.Timeout as error:
        raise RunLockedError(f"{run_dir.edits} is held by another writer; try again") from error


def append_line(run_dir: RunDir, line: bytes) -> None:
    """Append a line, for who holds the log's lock."""
    with run_dir.edits.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _lines(run_dir: RunDir) -> list[Edit]:
    """Whatever lines there are."""
    try:
        data = run_dir.edits.read_bytes()
    except FileNotFoundError:
        return []
    return [_read(line, number) for number, line in enumerate(data.split(b"\n")[:-1], 1)]


def _belonging(lines: list[Edit], known: int | None, refit_line: str | None) -> list[Edit]:
    """Lines up to a refit that a generation does not know of: it made a later one; and with the one that made it.

    Args:
        known: lines there were when the generation was made, at least; None: it knows all.
        refit_line: the refit that made it.
    """
    if known is None:
        return lines
    if refit_line is not None and len(lines) == known - 1:
        return [*lines, _read(refit_line.encode(), known)]
    later = next((edit.n for edit in lines[known:] if edit.op == REFIT), len(lines) + 1)
    return lines[: later - 1]


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


@lru_cache(maxsize=4096)  # every append reads the log again, and nearly all of it is as it was
def _read(line: bytes, number: int) -> Edit:
    return Edit.from_line(line, number)
