"""Exporting the images themselves: a plan is checked as a whole, and then copied, linked or moved, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoal.disk import require_free
from shoal.errors import DecodeError, RequestError
from shoal.export.journal import JOURNAL_NAME, Journal, Move
from shoal.export.placement import Placement, State, state_of
from shoal.export.rows import Row
from shoal.export.transfer import (
    Place,
    link_into_place,
    move_file,
    nearest_existing,
    remove_parts,
    write_into_place,
    writing_errors,
)
from shoal.progress import Progress

COPY: Final = "copy"
LINK: Final = "link"
MOVE: Final = "move"
NO_LONGER_THERE: Final = "no longer in the source"
SHOWN_LINES = 5
BLOCK_BYTES = 4096  # a file takes whole blocks of the disk

Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Checked:
    """A plan, and what of it is still to do; nothing has been written yet."""

    dest: Path
    mode: str
    pending: tuple[Placement, ...]
    finishing: tuple[Placement, ...]
    already: int
    missing: tuple[Placement, ...]

    @property
    def needed_bytes(self) -> int:
        """What has to fit on the disk of DEST."""
        device = nearest_existing(self.dest).stat().st_dev
        return sum(_new_bytes(placement, self.mode, device) for placement in self.pending)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: `hows` counts files by how they got there; `left_out` is (image, reason)."""

    hows: Counter[str]
    left_out: tuple[tuple[Row, str], ...]


def check(placements: Sequence[Placement], dest: Path, mode: str) -> Checked:
    """Look at every source and target of a plan before anything is written.

    Raises:
        RequestError: a file is in the way; or the mode needs files of their own, and an image is none.
    """
    if dest.exists() and not dest.is_dir():
        raise RequestError(f"DEST {dest} is a file; expected a folder, new or not")
    if mode != COPY:
        _require_own_files(placements, mode)
    distinct = _once_each(placements) if mode == MOVE else list(placements)
    moved = _moved_before(distinct, dest) if mode == MOVE else frozenset[str]()
    by_state: dict[State, list[Placement]] = {state: [] for state in State}
    with writing_errors(dest):
        for placement in distinct:
            by_state[state_of(placement, mode, moved)].append(placement)
    return Checked(
        dest,
        mode,
        pending=tuple(by_state[State.PENDING]),
        finishing=tuple(by_state[State.FINISHING]),
        already=len(by_state[State.DONE]) + len(placements) - len(distinct),
        missing=tuple(by_state[State.MISSING]),
    )


def describe(checked: Checked, say: Callable[[str], None]) -> None:
    """Say what `carry_out` would do."""
    todo = checked.pending + checked.finishing
    folders = len({placement.target.parent for placement in todo})
    size = sum(placement.row.size_bytes for placement in todo) / 2**20
    say(f"would {checked.mode} {len(todo):,} images ({size:,.1f} MiB) into {folders:,} folders of {checked.dest}")
    for placement in todo[:SHOWN_LINES]:
        say(f"  {placement.row.path} -> {placement.target.relative_to(checked.dest)}")
    if len(todo) > SHOWN_LINES:
        say(f"  … and {len(todo) - SHOWN_LINES:,} more")


def carry_out(checked: Checked, read: Read, place: Place, progress: Progress) -> Outcome:
    """Do what is still to do. May be killed and called again with a new `check`.

    Raises:
        DiskSpaceError: it would not fit, or the disk ran full; what is done stays done.
        WorkError: a target cannot be written, or a source not be taken away.
        RequestError: a file appeared at a target after the check; it is untouched.
    """
    hows: Counter[str] = Counter()
    left_out = [(placement.row, NO_LONGER_THERE) for placement in checked.missing]
    with writing_errors(checked.dest):
        require_free(checked.dest, checked.needed_bytes, f"the export to {checked.dest}")
        _prepare(checked)
        hows["moved"] += _take_away(checked.finishing)
    with progress.task(f"export ({checked.mode})", len(checked.pending)) as task:
        for placement in checked.pending:
            try:
                with writing_errors(checked.dest):
                    hows[_transfer(placement, checked.mode, read, place)] += 1
            except _LeftOutError as error:
                left_out.append((placement.row, str(error)))
            task.advance()
    return Outcome(+hows, tuple(left_out))


class _LeftOutError(Exception):
    """One image cannot be taken; the text says why."""


def _transfer(placement: Placement, mode: str, read: Read, place: Place) -> str:
    source, target = placement.source, placement.target
    if source is None or mode == COPY:
        write_into_place(target, _read(placement, read), _modified_ns(placement), place)
        return "copied"
    try:
        if mode == LINK:
            return link_into_place(source, target)
        move_file(source, target, place)
        return "moved"
    except FileNotFoundError:
        if source.exists():
            raise
        raise _LeftOutError(NO_LONGER_THERE) from None


def _read(placement: Placement, read: Read) -> bytes:
    try:
        return read(placement.row.uri)
    except DecodeError as error:
        gone = placement.source is not None and not placement.source.exists()
        raise _LeftOutError(NO_LONGER_THERE if gone else str(error)) from error


def _modified_ns(placement: Placement) -> int | None:
    if placement.source is not None and placement.source.exists():
        return placement.source.stat().st_mtime_ns
    return None if placement.row.mtime is None else round(placement.row.mtime * 1e9)


def _prepare(checked: Checked) -> None:
    """Make the folders, clear what a kill left in them, and write the journal before the first move."""
    todo = checked.pending + checked.finishing
    for folder in {placement.target.parent for placement in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    if checked.dest.is_dir():
        remove_parts(path for path in checked.dest.iterdir() if path.is_dir())
    if checked.mode != MOVE:
        return
    journal = Journal(checked.dest / JOURNAL_NAME)
    written = {move.source for move in journal.read()}
    new = [placement for placement in todo if str(placement.source) not in written]
    if new:
        journal.append([_as_move(placement, checked.dest) for placement in new])


def _as_move(placement: Placement, dest: Path) -> Move:
    target = placement.target.relative_to(dest).as_posix()
    return Move(str(placement.source), target, placement.row.size_bytes, placement.row.sha256)


def _take_away(finishing: Sequence[Placement]) -> int:
    """Delete the sources of moves whose targets are whole: the last step, which a kill prevented."""
    for placement in finishing:
        if placement.source is not None:
            placement.source.unlink()
    return len(finishing)


def _moved_before(placements: Sequence[Placement], dest: Path) -> frozenset[str]:
    """The sources in DEST's journal. Raises RequestError if the plan of that export was another one."""
    planned = {str(placement.source): placement.target.relative_to(dest).as_posix() for placement in placements}
    journal = dest / JOURNAL_NAME
    moves = Journal(journal).read()
    for move in moves:
        if planned.get(move.source, move.target) != move.target:
            raise RequestError(
                f"{journal} says that {move.source} was moved to {move.target}, but it would now go to "
                f"{planned[move.source]}; undo that export first, or choose another DEST"
            )
    return frozenset(move.source for move in moves)


def _require_own_files(placements: Sequence[Placement], mode: str) -> None:
    for placement in placements:
        if placement.source is None:
            raise RequestError(
                f"--mode {mode} needs images that are files on this machine; {placement.row.path} "
                f"({placement.row.uri}) lies in a table, a tar or a bucket: use --mode copy"
            )
        if mode == MOVE and placement.source.is_symlink():
            raise RequestError(
                f"--mode move would break {placement.source}, which is a symbolic link: use --mode copy or link"
            )


def _once_each(placements: Sequence[Placement]) -> list[Placement]:
    """The first of every source: what the run lists twice can only be moved once."""
    first: dict[Path | None, Placement] = {}
    for placement in placements:
        first.setdefault(placement.source, placement)
    return list(first.values())


def _new_bytes(placement: Placement, mode: str, device: int) -> int:
    if mode == LINK:
        return 0
    if mode == MOVE and placement.source is not None and placement.source.stat().st_dev == device:
        return 0
    return placement.row.size_bytes + BLOCK_BYTES
