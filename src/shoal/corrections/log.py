"""edits.jsonl: append-only, one line an edit, with an append lock of its own.

A line counts once its newline is on disk. What a killed writer left of a line is cut off by the next one, and was
never told to anybody as done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import filelock

from shoal.corrections.edit import REDO, UNDO, Edit
from shoal.errors import RunLockedError
from shoal.rundir import RunDir

LOCK_SECONDS: Final = 10.0


def read_log(run_dir: RunDir) -> list[Edit]:
    """All lines in order; none if nothing was ever changed. Raises RunError if a line is not readable."""
    try:
        data = run_dir.edits.read_bytes()
    except FileNotFoundError:
        return []
    return [_read(line, number) for number, line in enumerate(data.split(b"\n")[:-1], 1)]


def append(run_dir: RunDir, make: Callable[[Sequence[Edit]], Edit]) -> Edit:
    """Append what `make` makes of the log as it is under the lock, so that no other writer comes between.

    Raises:
        RunLockedError: another writer holds the log for longer than any append takes.
        Whatever `make` raises; then nothing is written.
    """
    lock = filelock.FileLock(run_dir.edits.with_name("edits.lock"), timeout=LOCK_SECONDS)
    try:
        with lock:
            edit = make(read_log(run_dir))
            _append_line(run_dir, edit.to_line())
            return edit
    except filelock.Timeout as error:
        raise RunLockedError(f"{run_dir.edits} is held by another writer; try again") from error


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


def _append_line(run_dir: RunDir, line: bytes) -> None:
    with run_dir.edits.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
