"""The journal of moved files: written before anything moves, so that everything can be put back.

One JSON object a line: `source` (absolute, links in its folders resolved), `target` (relative to the journal's
folder), `size` in bytes, `sha256`, and `seal`, by which Shoal knows its own lines again. A line says that the file is
to be moved, not that it has been; which of the two names exists tells that. Of two lines about one move the later
counts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shoal import atomic
from shoal.errors import RequestError
from shoal.export.names import safe_name
from shoal.export.seal import seal
from shoal.export.transfer import open_plain

JOURNAL_NAME: Final = ".shoal-moves.jsonl"
LONGEST_LINE: Final = 1 << 16  # bytes; two paths of 4,096 bytes, every one escaped, take 49,152
FIELDS: Final = frozenset(("source", "target", "size", "sha256", "seal"))
DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Move:
    source: str
    target: str
    size: int
    sha256: str
    seal: str | None = None

    @classmethod
    def sealed(cls, key: bytes | None, source: str, target: str, size: int, sha256: str) -> Move:
        """A move as its owner writes it down; without a key it has no seal."""
        return cls(source, target, size, sha256, None if key is None else seal(key, (source, target, size, sha256)))

    def is_sealed_by(self, key: bytes | None) -> bool:
        return self.seal is not None and self == Move.sealed(key, self.source, self.target, self.size, self.sha256)

    @classmethod
    def from_line(cls, line: bytes) -> Move:
        """Read a line. Raises ValueError, without anything of it that could not be shown, if it is none."""
        try:
            found: Any = json.loads(line)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(found, dict) or not FIELDS - {"seal"} <= set(found) <= FIELDS:
            raise ValueError("expected an object of source, target, size, sha256 and seal")
        move = cls(**found)
        if not isinstance(move.source, str) or not _is_absolute(move.source):
            raise ValueError(f"source is {_quoted(move.source)}; expected an absolute path without '..'")
        if not isinstance(move.target, str) or not _is_inside(move.target):
            raise ValueError(f"target is {_quoted(move.target)}; expected FOLDER/NAME, below the journal's folder")
        if type(move.size) is not int or move.size < 0:
            raise ValueError(f"size is {_quoted(move.size)}; expected a number of bytes")
        if not isinstance(move.sha256, str) or not DIGEST.fullmatch(move.sha256):
            raise ValueError(f"sha256 is {_quoted(move.sha256)}; expected 64 hexadecimal digits")
        if move.seal is not None and not (isinstance(move.seal, str) and DIGEST.fullmatch(move.seal)):
            raise ValueError(f"seal is {_quoted(move.seal)}; expected 64 hexadecimal digits, or null")
        return move


def _no_problem(move: Move) -> str | None:
    """Of a reader who acts on no line."""
    return None


@dataclass(frozen=True, slots=True)
class Journal:
    path: Path

    def read(self, problem: Callable[[Move], str | None] = _no_problem) -> list[Move]:
        """Every move; a last line without its end was never acted upon and does not count.

        Args:
            problem: why a line cannot be accepted, if it cannot.

        Raises:
            RequestError: a line is not of a journal, contradicts another, or has a problem; the text names it.
        """
        if not os.path.lexists(self.path):
            return []
        moves: dict[str, Move] = {}
        sources: dict[str, str] = {}
        for number, line in enumerate(self._lines(), start=1):
            try:
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"it has over {LONGEST_LINE:,} bytes")
                move = Move.from_line(line)
                if moves.get(move.source, move).target != move.target:
                    raise ValueError(f"{_quoted(move.source)} has another target in an earlier line")
                if sources.setdefault(move.target, move.source) != move.source:
                    raise ValueError(f"{_quoted(move.target)} has another source in an earlier line")
            except ValueError as error:
                raise RequestError(
                    f"{self.path}, line {number}, is not a line of a Shoal move journal: {error}; nothing was touched"
                ) from error
            reason = problem(move)
            if reason is not None:
                raise RequestError(f"{self.path}, line {number}: {reason}; nothing was touched")
            moves[move.source] = move
        return list(moves.values())

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

    def _lines(self) -> Iterator[bytes]:
        """Lines with their end; one that is too long is cut, so that no journal is too large to be looked at."""
        with open_plain(self.path) as file:
            while line := file.readline(LONGEST_LINE + 1):
                if line.endswith(b"\n") or len(line) > LONGEST_LINE:
                    yield line


def _is_absolute(path: str) -> bool:
    return "\0" not in path and Path(path).is_absolute() and os.path.normpath(path) == path


def _is_inside(target: str) -> bool:
    """True for what an export could have called a file: a folder and a name, each safe on every system."""
    parts = target.split("/")
    return len(parts) == 2 and all(part == safe_name(part) for part in parts)


def shown(path: str) -> str:
    """A path out of a journal as it can be put on a terminal: escaped where it could do anything there."""
    return path if path.isprintable() else ascii(path)


def _quoted(value: Any) -> str:
    return repr(value)[:200]
