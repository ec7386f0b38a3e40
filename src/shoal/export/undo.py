"""`undo`: putting back what an export moved.

The journal may have come with a folder from anywhere, so it is believed in nothing that it could lie about. A line is
acted on if this user's Shoal sealed it, and then puts back no other file than the one that was moved, to where it was;
or, without the seal, if the person named the folder that files may be put back into.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shoal import lock
from shoal.errors import RequestError
from shoal.export.journal import JOURNAL_NAME, Journal, Move, shown
from shoal.export.record import RECORD_NAME, Record
from shoal.export.seal import key_file, read_key
from shoal.export.transfer import (
    Parts,
    Place,
    is_plain_file,
    move_file,
    new_token,
    rename_into_place,
    same_bytes,
    same_entry,
    writing_errors,
)
from shoal.progress import Progress
from shoal.rundir import digest_file
from shoal.wording import command, counted

RESTORED: Final = "restored"
ALREADY: Final = "already"


@dataclass(frozen=True, slots=True)
class UndoResult:
    """`restored` files were put back now, `already` were back before; `left` is (source, why it is not back)."""

    restored: int
    already: int
    left: tuple[tuple[str, str], ...]

    def summary(self) -> str:
        """Lines for the person: how many files are back, and which are not."""
        back, not_back = counted(self.restored, "file"), len(self.left)
        lines = [f"{back} put back; {self.already:,} had not left; {not_back:,} cannot be put back"]
        return "\n".join(lines + [f"  {shown(source)}: {why}" for source, why in self.left])


@dataclass(frozen=True, slots=True)
class Fence:
    """Where an undo may reach, whatever its journal says.

    Attributes:
        folder: the journal's own, links resolved: all targets lie in it.
        source: the folder that the person named, links resolved: then all sources lie in it. None: lines need the seal.
        key: this user's.
    """

    folder: Path
    source: Path | None
    key: bytes | None
    resolved: dict[Path, Path | None] = field(default_factory=dict)

    def problem(self, move: Move) -> str | None:
        """Why a line cannot be acted on, if it cannot. Looks at folders only, and writes nothing."""
        target, source = self.folder / move.target, Path(move.source)
        inside = self._resolve(target.parent)
        if inside is None or not inside.is_relative_to(self.folder):
            return f"{target.parent} is a link that leads out of {self.folder}"
        place = self._resolve(source.parent)
        if self.source is not None:
            if place is None or not place.is_relative_to(self.source):
                return f"{shown(str(source))} lies outside of --source {self.source}"
        elif not move.is_sealed_by(self.key):
            return (
                f"it was not written by your own Shoal here (by the key in {key_file()}); if you trust it, name the "
                f"folder that the files came from: {command('shoal', 'undo', self.folder, '--source', 'FOLDER')}"
            )
        elif place != source.parent:
            return f"{shown(str(source.parent))} has become a link to elsewhere since; name it with --source FOLDER"
        return None

    def _resolve(self, folder: Path) -> Path | None:
        if folder not in self.resolved:
            try:
                self.resolved[folder] = folder.resolve()
            except (OSError, RuntimeError):  # links in a circle
                self.resolved[folder] = None
        return self.resolved[folder]


def undo(
    journal: str | Path,
    *,
    source: str | Path | None = None,
    progress: Progress | None = None,
    place: Place = rename_into_place,
) -> UndoResult:
    """Put every moved file back under the name it had. May be killed and given again.

    Args:
        journal: `DEST/.shoal-moves.jsonl`, or DEST.
        source: the only folder that files may be put back into; needed where the journal is not this user's own. None:
            to where they were.
        progress: shows how far it is.
        place: renames one file; a parameter for tests of faults.

    When all is back, the emptied cluster folders, the journal and the export's record are removed.

    Raises:
        RequestError: there is no journal, or a line of it is none, or reaches where it may not; nothing was touched.
        WorkError: a file or folder cannot be written; what is back stays back.
    """
    path = Path(journal)
    path = path / JOURNAL_NAME if path.is_dir() else path
    if not os.path.lexists(path):
        raise RequestError(
            f"{path} is not there: nothing was moved, or all is back; expected a folder made with --mode move"
        )
    folder = path.parent.resolve()
    with writing_errors(folder), lock.alone(folder):
        fence = Fence(folder, None if source is None else Path(source).resolve(), read_key())
        moves = Journal(path).read(fence.problem)
        record = _record_of(folder)
        parts = Parts(new_token() if record is None else record.parts)
        parts.remove({Path(move.source).parent for move in moves})
        outcomes = []
        with (progress or Progress()).task("undo", len(moves)) as task:
            for move in reversed(moves):
                outcomes.append((move.source, _put_back(move, folder, place, parts)))
                task.advance()
        left = tuple((where, outcome) for where, outcome in outcomes if outcome not in (RESTORED, ALREADY))
        if not left:
            _remove_traces(path, moves, has_record=record is not None)
    counts = [outcome for _, outcome in outcomes]
    return UndoResult(counts.count(RESTORED), counts.count(ALREADY), left)


def _put_back(move: Move, folder: Path, place: Place, parts: Parts) -> str:
    """RESTORED, ALREADY, or why the file cannot be put back."""
    source, target = Path(move.source), folder / move.target
    if not os.path.lexists(target):
        return ALREADY if os.path.lexists(source) else f"it is neither there nor at {target}"
    if os.path.lexists(source):
        return _make_good(source, target)
    if not _is_what_was_moved(target, move):
        return f"what is at {target} now is not what was moved there, and stays; move it by hand"
    try:
        source.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return f"there is a file where its folder was; it is still at {target}"
    move_file(target, source, place, parts)
    return RESTORED


def _make_good(source: Path, target: Path) -> str:
    """Of a file that is at both places, and was or was not moved: leave it at `source` alone."""
    if not same_entry(source, target):
        if not (is_plain_file(source) and is_plain_file(target) and same_bytes(source, target)):
            return f"another file is in its place; it is still at {target}"
        target.unlink()  # a copy on another disk, or a second name, that a kill left behind
    return ALREADY


def _is_what_was_moved(target: Path, move: Move) -> bool:
    return is_plain_file(target) and target.stat().st_size == move.size and digest_file(target) == move.sha256


def _record_of(folder: Path) -> Record | None:
    """The export's record, if there is one that can be read: it is of use, but not needed for undoing."""
    try:
        return Record.read(folder)
    except RequestError:
        return None


def _remove_traces(path: Path, moves: Sequence[Move], has_record: bool) -> None:
    folders = {path.parent / Path(move.target).parent for move in moves}
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if has_record and not any(folder.is_dir() for folder in folders):
        (path.parent / RECORD_NAME).unlink(missing_ok=True)
    path.unlink()
