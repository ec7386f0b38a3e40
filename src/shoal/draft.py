"""The next generation of a run while it is made: what stages write, what is taken over, and the moment it counts.

A draft has a folder of its own under `generations/`. `draft.json` beside it says which stages are done in it, so that a
killed command goes on where it was. Nobody but the next writer reads it until `commit` names its files in a record.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shoal import disk, generations, lock, plain, unfinished
from shoal.errors import RunError, WorkError
from shoal.generations import FOLDER, Generation
from shoal.rundir import RunDir, StageResult
from shoal.runfiles import (
    CACHE,
    FORMAT_VERSION,
    LOCK,
    RUN_JSON,
    UNFINISHED_RUN_JSON,
    Files,
    Folder,
    kept_in,
    read_run_json,
    write_run_json,
)
from shoal.spool import Spool
from shoal.unfinished import Left, Record

FIRST_MOMENTS: Final = frozenset(  # what there is before run.json
    {LOCK, f"{LOCK}.guard", f"{LOCK}{lock.UNFINISHED}", UNFINISHED_RUN_JSON, FOLDER}
)


@dataclass(slots=True)
class Draft:
    """The next generation; as a view of the run (`shoal.rundir.Files`), what has been made or taken over so far.

    Attributes:
        before: the run as it is current.
        from_start: see `writing`.
        folder: number of the folder for new files.
        state: run.json as it will be, but for the stages.
        records: of the stages that are done, and the places of the `files` that they made.
        log_lines, refit_line: see `Generation`.
        spool: what this command has fetched.
    """

    root: Path
    before: RunDir
    folder: int
    from_start: bool
    state: dict[str, Any]
    records: dict[str, Record] = field(default_factory=dict)
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    before_refits: dict[str, dict[str, int]] = field(default_factory=dict)  # of before refits, by digest
    log_lines: int = 0
    refit_line: str | None = None
    spool: Spool = field(default_factory=Spool)
    _made: dict[str, int] = field(default_factory=dict)  # by the stage under way
    _left: Left | None = None  # by a draft that was killed

    @property
    def run_dir(self) -> RunDir:
        """The run as stages see it."""
        return RunDir(self.root, self, self.spool)

    # -- what stages see -----------------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        return unfinished.latest(self.root, name, (self._made, *reversed(self.files.values())))

    def new(self, name: str) -> Path:
        self._made[name] = self.folder
        return generations.stored(self.root, name, self.folder)

    def unfinished(self, name: str) -> Path:
        return generations.stored(self.root, name, self.folder)

    def keep(self, name: str) -> None:
        self._made[name] = self._current.places[name]

    def earlier(self) -> Files:
        return self.before.files

    def run_json(self) -> dict[str, Any]:
        return {**self.state, "stages": self.records}

    def log(self) -> tuple[int | None, str | None]:
        return self.log_lines, self.refit_line

    def kept(self, digest: str) -> Folder | None:
        return kept_in(self.root, self.before_refits, digest)

    # -- stages --------------------------------------------------------------------------------------------------------

    def begin_stage(self) -> None:
        """From here on files are of the next stage that ends."""
        self._made = {}

    def record(self, key: str, after: Sequence[str], result: StageResult, seconds: float) -> Record:
        """The record of a stage that is done now, made of what the stages `after` tell here."""
        return {
            "state": "done",
            "key": key,
            "inputs": {name: digest_in(self.records, name) for name in after},
            "digest": result.digest,
            "parts": result.parts,
            "facts": result.facts,
            "seconds": round(seconds, 3),
        }

    def end_stage(self, name: str, record: Record) -> None:
        """A stage is done. Files that came out as they were are taken over from before, so that they are one file."""
        current = self._current.places
        for file, number in self._made.items():
            earlier = current.get(file)
            if number == self.folder and earlier is not None and self._is_the_same(file, earlier):
                self._made[file] = earlier
        self._put(name, record, self._made)
        self._made = {}

    def take_over(self, name: str, key: str) -> Record | None:
        """Take a stage over, files and all, from the killed draft or from before, if it was done for the same `key`."""
        left = self._left or Left(self.folder, {}, {})
        for records, files in (
            (left.records, left.files),
            (self.before.read_state()["stages"], self._current.files),
        ):
            record: Record | None = records.get(name)
            if record is None or record.get("state") != "done" or record["key"] != key:
                continue
            places = files.get(name, {})
            if all(generations.stored(self.root, file, number).is_file() for file, number in places.items()):
                self._put(name, record, dict(places))
                return record
        return None

    def forget(self, name: str) -> None:
        """A stage has left nothing."""
        self.records.pop(name, None)
        self.files.pop(name, None)

    def _put(self, name: str, record: Record, places: dict[str, int]) -> None:
        self.forget(name)  # the latest comes last
        self.records[name], self.files[name] = record, places
        if self.from_start:
            left = self._left or Left(self.folder, {}, {})
            self._left = Left(self.folder, {**left.records, **self.records}, {**left.files, **self.files})
            self._left.write(self.root)

    def _is_the_same(self, file: str, earlier: int) -> bool:
        one, other = self.unfinished(file), generations.stored(self.root, file, earlier)
        return other.is_file() and filecmp.cmp(one, other, shallow=False)

    @property
    def _current(self) -> Generation:
        return self.before.generation or Generation(0)

    # -- the moment it counts ------------------------------------------------------------------------------------------

    def commit(self) -> RunDir:
        """Make this the current generation, and return the run as it is then.

        Stages that were not asked for stay if what they were made of has not changed; others are gone with their files,
        for a generation holds nothing that does not belong together.
        """
        current = self._current
        old = self.before.read_state()["stages"]
        for name in [name for name in old if name not in self.records and old[name].get("state") == "done"]:
            self.records[name], self.files[name] = old[name], dict(current.files.get(name, {}))
        while stale := [name for name in self.records if not is_current(name, self.records)]:
            for name in stale:
                self.forget(name)
        made = Generation(0, self.files, self.before_refits, self.log_lines, self.refit_line)
        is_same = {**made.to_json(), "number": current.number} == current.to_json()
        state = {"format_version": FORMAT_VERSION, **self.state, "stages": self.records}
        if is_same and self.before.generation is not None:
            state["generation"] = current.number
            if state != self.before.read_state():
                write_run_json(self.root, state)
        else:
            number = self.folder if self.folder > current.number else generations.next_number(self.root)
            generations.write(
                self.root,
                Generation(number, self.files, self.before_refits, self.log_lines, self.refit_line),
                self.folder,
            )
            state["generation"] = number
            write_run_json(self.root, state)  # from here on it is current
            generations.replaced(self.root, current.number)
        if self.from_start:
            unfinished.forget(self.root)
            self._left = None
        return self._after_commit()

    def _after_commit(self) -> RunDir:
        """Bring the root up to date, and go on as the draft of what comes after."""
        self.before = RunDir.open(self.root)
        generation = self._current
        generations.show(self.root, generation)
        left = Left.read(self.root)
        generations.tidy(self.root, generation.number, None if left is None else left.folder)
        self.folder = generations.next_number(self.root)
        self.files = {name: dict(places) for name, places in generation.files.items()}
        return self.before


def is_current(name: str, records: dict[str, Record]) -> bool:
    """Was the stage made of what the other records tell? Its record has the digests of its inputs."""
    inputs = records[name].get("inputs", {})
    return all(digest_in(records, wanted) == digest for wanted, digest in inputs.items())


def digest_in(records: dict[str, Record], name: str) -> str | None:
    """The digest of a stage, or of a part of what it made: `cluster`, `cluster.space`."""
    stage, _, part = name.partition(".")
    record = records.get(stage)
    if record is None:
        return None
    found: str | None = record["parts"].get(part) if part else record["digest"]
    return found


@contextmanager
def writing(root: Path, *, from_start: bool = False, spool: Spool | None = None) -> Iterator[Draft]:
    """Hold the run's lock, and yield the draft of its next generation; what is not committed stays without effect.

    Args:
        from_start: everything is looked at anew, from the source on; such a draft that was killed is gone on with.
            Else the draft begins as what is current, and a killed one from the start is left to the next such.
        spool: where what the source gives is kept until the end.

    Raises:
        RunError: `root` is neither new, nor empty, nor a run; or is of a newer format.
        RunLockedError: another process is writing it.
        DiskSpaceError, WorkError: the disk is full, or does not take or give something.
    """
    require_own(root)
    with disk.writing_errors(root), lock.writing(root / LOCK):
        require_own(root)
        with closing(spool or Spool()) as fetched:
            fetched.settle(root / CACHE)
            yield _open(root, from_start, fetched)


def show_current(root: Path) -> None:
    """Do what a kill has kept the last writer from: give the current generation its names at the root.

    Nothing happens if another process is writing (it does so itself) or the run cannot be written to.
    """
    if RunDir.open(root).generation is not None:
        with suppress(WorkError), writing(root):
            pass


def require_own(root: Path) -> None:
    """Raise RunError unless `root` is new, empty, or a run: a folder with anything else in it is somebody's."""
    if not root.exists() or (root / RUN_JSON).is_file():
        read_run_json(root)  # refuses what is no run of ours
        return
    if not root.is_dir():
        raise RunError(f"--out has value {str(root)!r}, which is a file; expected a folder, new, empty or of a run")
    other = sorted(path.name for path in root.iterdir() if path.name not in FIRST_MOMENTS)
    if other:
        raise RunError(
            f"--out has value {str(root)!r}, which is no run and holds {other[0]!r}; expected a folder that is new, "
            "empty or a run"
        )


def _open(root: Path, from_start: bool, spool: Spool) -> Draft:
    (root / FOLDER).mkdir(exist_ok=True)
    if not (root / RUN_JSON).is_file():
        write_run_json(root, {"format_version": FORMAT_VERSION, "stages": {}})
    plain.adopt(root)
    before = RunDir.open(root)
    generation = before.generation
    if generation is not None:
        generations.show(root, generation)  # a kill may have come between
    left = Left.read(root) if from_start else None
    state = {name: value for name, value in before.read_state().items() if name not in ("stages", "generation")}
    folder = generations.next_number(root) if left is None else left.folder
    draft = Draft(root, before, folder, from_start, state, spool=spool, _left=left)
    if generation is not None:
        draft.before_refits = {digest: dict(places) for digest, places in generation.kept.items()}
        draft.log_lines, draft.refit_line = generation.log_lines, generation.refit_line
        if not from_start:
            draft.records = dict(before.read_state()["stages"])
            draft.files = {name: dict(places) for name, places in generation.files.items()}
    return draft
