"""The journal of moved files: written before anything moves, so that everything can be put back.

One JSON object a line: `source` (absolute), `target` (relative to the journal's folder), `size` in bytes and `sha256`.
A line says that the file is to be moved, not that it has been; which of the two names exists tells that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from shoal import atomic
from shoal.errors import RequestError
from shoal.export.transfer import (
    Place,
    move_file,
    remove_parts,
    rename_into_place,
    same_bytes,
    same_entry,
    writing_errors,
)

JOURNAL_NAME: Final = ".shoal-moves.jsonl"

RESTORED: Final = "restored"
ALREADY: Final = "already"


@dataclass(frozen=True, slots=True)
class Move:
    source: str
    target: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class UndoResult:
    """`restored` files were put back now, `already` were back before; `left` is (source, why it is not back)."""

    restored: int
    already: int
    left: tuple[tuple[str, str], ...]

    def summary(self) -> str:
        """Lines for the person: how many files are back, and which are not."""
        lines = [
            f"{self.restored:,} files put back; {self.already:,} had not left; {len(self.left):,} cannot be put back"
        ]
        return "\n".join(lines + [f"  {source}: {why}" for source, why in self.left])


@dataclass(frozen=True, slots=True)
class Journal:
    path: Path

    def read(self) -> list[Move]:
        """Every whole line; a last line without its end was never acted upon and does not count.

        Raises:
            RequestError: a line is not of a journal.
        """
        if not self.path.exists():
            return []
        moves = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                moves.append(Move(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise RequestError(
                    f"{self.path}, line {number}, is not a line of a Shoal move journal: {error}"
                ) from error
        return moves

    def append(self, moves: Sequence[Move]) -> None:
        """Add lines; when this returns they are on the disk."""
        # ASCII, because a file name that is not UTF-8 has lone surrogates, which only escapes can carry.
        lines = b"".join(json.dumps(asdict(move), ensure_ascii=True).encode() + b"\n" for move in moves)
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        atomic.sync_folder(self.path.parent)


def undo(journal: str | Path, *, place: Place = rename_into_place) -> UndoResult:
    """Put every moved file back under the name it had. May be killed and given again.

    Args:
        journal: `DEST/.shoal-moves.jsonl`, or DEST.
        place: renames one file; a parameter for tests of faults.

    When all is back, the emptied cluster folders and the journal are removed.

    Raises:
        RequestError: there is no journal, or it is not one.
        WorkError: a file or folder cannot be written; what is back stays back.
    """
    path = Path(journal)
    path = path / JOURNAL_NAME if path.is_dir() else path
    if not path.is_file():
        raise RequestError(
            f"{path} is not there: nothing was moved, or all is back; expected a folder made with --mode move"
        )
    moves = Journal(path).read()
    outcomes: list[str] = []
    with writing_errors(path.parent):
        remove_parts({Path(move.source).parent for move in moves})
        for move in reversed(moves):
            outcomes.append(_put_back(Path(move.source), path.parent / move.target, place))
    left = [
        (move.source, outcome)
        for move, outcome in zip(reversed(moves), outcomes, strict=True)
        if outcome not in (RESTORED, ALREADY)
    ]
    if not left:
        _remove_traces(path, moves)
    return UndoResult(outcomes.count(RESTORED), outcomes.count(ALREADY), tuple(left))


def _put_back(source: Path, target: Path, place: Place) -> str:
    """RESTORED, ALREADY, or why the file cannot be put back."""
    if not os.path.lexists(target):
        return ALREADY if os.path.lexists(source) else f"it is neither there nor at {target}"
    if not os.path.lexists(source):
        source.parent.mkdir(parents=True, exist_ok=True)
        move_file(target, source, place)
        return RESTORED
    if same_entry(source, target):
        return ALREADY
    if not same_bytes(source, target):
        return f"another file is in its place; it is still at {target}"
    target.unlink()  # a copy on another disk, or a second name, that a kill left behind
    return ALREADY


def _remove_traces(path: Path, moves: Sequence[Move]) -> None:
    for folder in {(path.parent / move.target).parent for move in moves}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    path.unlink()
