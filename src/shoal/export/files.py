"""Exporting the images themselves: a plan is checked as a whole, and then copied, linked or moved, file by file."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal.disk import nearest_existing, require_free
from shoal.errors import DecodeError, RequestError, WorkError
from shoal.export.journal import JOURNAL_NAME, Journal, Move, shown
from shoal.export.own_files import require_own_files
from shoal.export.placement import Placement, Plan, State, state_of
from shoal.export.record import Record, holds_files, plan_digest
from shoal.export.rows import Row
from shoal.export.seal import own_key
from shoal.export.transfer import (
    Parts,
    Place,
    link_into_place,
    move_file,
    new_token,
    write_into_place,
    writing_errors,
)
from shoal.progress import Progress
from shoal.rundir import digest_file
from shoal.wording import command, counted

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
    record: Record
    folders: frozenset[Path]
    pending: Plan
    finishing: Plan
    already: int
    missing: Plan

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


def check(plan: Plan, mode: str, kind: str) -> Checked:
    """Look at every source and target of a plan before anything is written.

    Raises:
        RequestError: a file is in the way, or DEST holds another export; or the mode needs files of their own, and an
            image is none.
        WorkError: not one image is left in the source.
    """
    dest = plan.dest
    if dest.exists() and not dest.is_dir():
        raise RequestError(f"DEST {dest} is a file; expected a folder, new or not")
    record = _record_for(plan, kind)
    folders = plan.folders
    _require_inside(folders, dest)
    if mode != COPY:
        require_own_files(plan, mode, breaks_links=mode == MOVE)
    distinct = _once_each(plan) if mode == MOVE else plan
    moved = _moved_before(distinct) if mode == MOVE else frozenset[str]()
    places = {state: array("q") for state in State}
    with writing_errors(dest):
        for place, placement in enumerate(distinct):
            places[state_of(placement, mode, moved)].append(place)
    by_state = {state: distinct.some(np.array(of_one, np.int64)) for state, of_one in places.items()}
    if distinct and len(by_state[State.MISSING]) == len(distinct):
        raise WorkError(
            f"none of the {len(distinct):,} images is left where it was (the first: {distinct[0].source}); nothing was "
            "written: is the source mounted, or has it moved?"
        )
    return Checked(
        dest,
        mode,
        record,
        folders=folders,
        pending=by_state[State.PENDING],
        finishing=by_state[State.FINISHING],
        already=len(by_state[State.DONE]) + len(plan) - len(distinct),
        missing=by_state[State.MISSING],
    )


def describe(checked: Checked, say: Callable[[str], None]) -> None:
    """Say what `carry_out` would do."""
    both = (checked.pending, checked.finishing)
    count, folders = sum(map(len, both)), len(frozenset[Path]().union(*(plan.folders for plan in both)))
    size = sum(pc.sum(plan.rows.table["size_bytes"]).as_py() or 0 for plan in both) / 2**20
    into = f"{counted(folders, 'folder')} of {checked.dest}"
    say(f"would {checked.mode} {counted(count, 'image')} ({size:,.1f} MiB) into {into}")
    for placement in islice(chain(*both), SHOWN_LINES):
        say(f"  {placement.row.path} -> {placement.target.relative_to(checked.dest)}")
    if count > SHOWN_LINES:
        say(f"  … and {count - SHOWN_LINES:,} more")


def carry_out(checked: Checked, read: Read, place: Place, progress: Progress) -> Outcome:
    """Do what is still to do. May be killed and called again with a new `check`.

    Raises:
        DiskSpaceError: it would not fit, or the disk ran full; what is done stays done.
        WorkError: a target cannot be written, or a source not be taken away.
        RequestError: a file appeared at a target after the check; it is untouched.
    """
    hows: Counter[str] = Counter()
    left_out = [(placement.row, NO_LONGER_THERE) for placement in checked.missing]
    parts = Parts(checked.record.parts)
    with writing_errors(checked.dest):
        require_free(checked.dest, checked.needed_bytes, f"the export to {checked.dest}")
        _prepare(checked)
        hows["moved"] += _take_away(checked.finishing)
    with progress.task(f"export ({checked.mode})", len(checked.pending)) as task:
        for placement in checked.pending:
            try:
                with writing_errors(checked.dest):
                    hows[_transfer(placement, checked.mode, read, place, parts)] += 1
            except _LeftOutError as error:
                left_out.append((placement.row, str(error)))
            task.advance()
    if left_out and not +hows and not checked.already:
        raise WorkError(f"none of the {len(left_out):,} images could be taken (the first: {left_out[0][1]})")
    return Outcome(+hows, tuple(left_out))


class _LeftOutError(Exception):
    """One image cannot be taken; the text says why."""


def _transfer(placement: Placement, mode: str, read: Read, place: Place, parts: Parts) -> str:
    source, target = placement.source, placement.target
    if source is None or mode == COPY:
        write_into_place(target, _read(placement, read), _modified_ns(placement), place, parts)
        return "copied"
    try:
        if mode == LINK:
            return link_into_place(source, target)
        move_file(source, target, place, parts)
        return "moved"
    except FileNotFoundError:
        if source.exists():
            raise
        raise _LeftOutError(NO_LONGER_THERE) from None


def _read(placement: Placement, read: Read) -> bytes:
    try:
        return read(placement.row.read_from)
    except DecodeError as error:
        gone = placement.source is not None and not placement.source.exists()
        raise _LeftOutError(NO_LONGER_THERE if gone else str(error)) from error


def _modified_ns(placement: Placement) -> int | None:
    if placement.source is not None and placement.source.exists():
        return placement.source.stat().st_mtime_ns
    return None if placement.row.mtime is None else round(placement.row.mtime * 1e9)


def _prepare(checked: Checked) -> None:
    """Write down what is about to be done, make the folders, clear what a kill left in them.

    The record comes before the first file, and the journal before the first move.
    """
    both = (checked.pending, checked.finishing)
    if Record.read(checked.dest) != checked.record:
        checked.record.write(checked.dest)
    for folder in frozenset[Path]().union(*(plan.folders for plan in both)):
        folder.mkdir(parents=True, exist_ok=True)
    Parts(checked.record.parts).remove(checked.folders)
    if checked.mode != MOVE:
        return
    journal = Journal(checked.dest / JOURNAL_NAME)
    written = {move.source: move for move in journal.read()}
    key = own_key()
    real = _real_sources(chain(*both))
    moves = [_as_move(source, real[source], one, checked.dest, key) for one in chain(*both) if (source := one.source)]
    new = [move for move in moves if written.get(move.source) != move]
    if new:
        journal.append(new)


def _as_move(source: Path, real: str, placement: Placement, dest: Path, key: bytes | None) -> Move:
    size, digest = placement.row.size_bytes, placement.row.sha256
    with contextlib.suppress(FileNotFoundError):  # it has vanished since the check, and will be told so
        found = source.stat()
        if (found.st_size, found.st_mtime) != (size, placement.row.mtime):  # it may have changed since the clustering
            size, digest = found.st_size, digest_file(source)
    return Move.sealed(key, real, placement.target.relative_to(dest).as_posix(), size, digest)


def _real_sources(placements: Iterable[Placement]) -> dict[Path, str]:
    """Sources with the links in their folders resolved, so that a link that leads elsewhere later changes nothing."""
    folders: dict[Path, Path] = {}
    real = {}
    for placement in placements:
        if (source := placement.source) is not None:
            folder = folders.get(source.parent) or folders.setdefault(source.parent, source.parent.resolve())
            real[source] = str(folder / source.name)
    return real


def _take_away(finishing: Plan) -> int:
    """Delete the sources of moves whose targets are whole: the last step, which a kill prevented."""
    for placement in finishing:
        if placement.source is not None:
            placement.source.unlink()
    return len(finishing)


def _moved_before(plan: Plan) -> frozenset[str]:
    """The planned sources in DEST's journal. Raises RequestError if the plan of that export was another one."""
    dest, real = plan.dest, _real_sources(plan)
    planned = {real[source]: placement for placement in plan if (source := placement.source) is not None}
    journal = dest / JOURNAL_NAME
    moved = set()
    for move in Journal(journal).read():
        placement = planned.get(move.source)
        target = None if placement is None else placement.target.relative_to(dest).as_posix()
        if placement is not None and move.target != target:
            raise RequestError(
                f"{journal} says that {shown(move.source)} was moved to {move.target}, but it would now go to "
                f"{target}; {_to_undo(dest)}"
            )
        if placement is not None:
            moved.add(str(placement.source))
    return frozenset(moved)


def _record_for(plan: Plan, kind: str) -> Record:
    """The record in DEST, if it is of this plan, or a new one. Raises RequestError if DEST holds another export."""
    dest = plan.dest
    found, digest = Record.read(dest), plan_digest(plan)
    if found is not None and found.plan == digest:
        return found
    if found is not None and holds_files(dest):
        raise RequestError(
            f"{dest} holds the export of another clustering, which this one would be mixed with; {_to_undo(dest)}"
        )
    return Record(kind, digest, new_token())


def _to_undo(dest: Path) -> str:
    if os.path.lexists(dest / JOURNAL_NAME):
        return f"undo that export first ({command('shoal', 'undo', dest)}), or choose another DEST"
    return "delete that export first, or choose another DEST"


def _require_inside(folders: Iterable[Path], dest: Path) -> None:
    root = dest.resolve()
    for folder in sorted(folders):
        if not folder.resolve().is_relative_to(root):
            raise RequestError(f"{folder} is a link that leads out of DEST; move it away or choose another DEST")


def _once_each(plan: Plan) -> Plan:
    """The first of every source: what the run lists twice can only be moved once."""
    sources = pa.array((os.fsencode(placement.source or "") for placement in plan), pa.binary())
    first = np.unique(sources.dictionary_encode().indices.to_numpy(), return_index=True)[1]
    return plan.some(first)


def _new_bytes(placement: Placement, mode: str, device: int) -> int:
    if mode == LINK:
        return 0
    if mode == MOVE and placement.source is not None and placement.source.stat().st_dev == device:
        return 0
    return placement.row.size_bytes + BLOCK_BYTES
