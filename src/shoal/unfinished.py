"""A draft as others than its writer see it: what its `draft.json` names, for who follows it or goes on with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shoal import atomic, foreign, generations
from shoal.generations import FOLDER, FilePlaces, Number, Places
from shoal.rundir import RunDir
from shoal.runfiles import Files, Folder

DRAFT_JSON: Final = "draft.json"

Record = dict[str, Any]  # of a finished stage, as run.json has it


@dataclass(frozen=True, slots=True)
class Left:
    """What a draft has come to, as `draft.json` has it.

    Attributes:
        folder: number of the folder for its new files.
        records: of the stages that are done.
        files: the places of the files that they made, by stage.
    """

    folder: Number
    records: dict[str, Record]
    files: dict[str, FilePlaces]

    @classmethod
    def read(cls, root: Path) -> Left | None:
        """That of a run's draft, or None if it has none. Raises RunError if it is not readable."""
        path = _path(root)
        return foreign.read_json(path, cls) if path.is_file() else None

    def write(self, root: Path) -> None:
        values = {"folder": self.folder, "records": self.records, "files": self.files}
        atomic.write_json(_path(root), values, _path(root).with_suffix(".part"))


def forget(root: Path) -> None:
    """Remove what is known of a run's draft."""
    _path(root).unlink(missing_ok=True)


def latest(root: Path, name: str, made: Iterable[Places]) -> Path:
    """Where a file lies by the first of `made` that names it; where nothing ever lies if none does."""
    return generations.place(root, name, next((places for places in made if name in places), {}))


def unfinished_run(root: Path) -> RunDir:
    """The run as its writer has it now, for a process that follows it: read anew each time."""
    return RunDir(root, _Unfinished(root))


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """What the latest `draft.json` names. Only the writer itself writes files."""

    root: Path

    def _now(self) -> Left:
        return foreign.read_json(_path(self.root), Left)

    def path(self, name: str) -> Path:
        return latest(self.root, name, reversed(self._now().files.values()))

    def new(self, name: str) -> Path:
        return self.unfinished(name)

    def unfinished(self, name: str) -> Path:
        return generations.stored(self.root, name, self._now().folder)

    def keep(self, name: str) -> None:
        """The writer does."""

    def earlier(self) -> Files:
        return RunDir.open(self.root).files

    def run_json(self) -> dict[str, Any]:
        return {"stages": self._now().records}

    def log(self) -> tuple[int | None, str | None]:
        return None, None

    def kept(self, digest: str) -> Folder | None:
        return RunDir.open(self.root).kept(digest)


def _path(root: Path) -> Path:
    return root / FOLDER / DRAFT_JSON
