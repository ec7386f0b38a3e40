"""A run as one whole at every moment: its files lie in generations, and one small file says which is current.

`generations/000012/` holds the files that were new in generation 12, `generations/000012.json` says of every file of
that generation in which folder it lies, and `run.json`, replaced by one rename, says that 12 is current. Files are
never changed once they are named there. What programs from outside find at the run's root are second names (hard
links, or copies where there are none) of the current generation's files.

A reader holds its generation by a shared lock on the open `000012.json`, which its death releases and which keeps
nobody waiting: what it reads stays until it is done, for the writer removes only what it can lock for itself alone.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from shoal import atomic, foreign
from shoal.typed import Between, Like, Most

FOLDER: Final = "generations"
SCRATCH: Final = "scratch"
OWN: Final = "own/"  # files that stages keep for themselves begin so, and have no second name at the root
UNLOCKED_SECONDS: Final = 3600.0  # how long a replaced generation stays where the file system knows no locks

Places = Mapping[str, int]  # the generation in whose folder a file lies, by its name in the run
Number = Annotated[int, Between(0, 999_999_999)]  # of a generation
_PART: Final = r"(?!\.{1,2}(?:/|\Z))[^/\\:\0]+"
FileName = Annotated[str, Most(4096), Like(re.compile(f"{_PART}(?:/{_PART})*"), "the name of a file of the run")]
FilePlaces = dict[FileName, Number]
Digest = Annotated[str, Like(re.compile("[0-9a-f]{1,64}"), "hexadecimal digits")]


@dataclass(frozen=True, slots=True)
class Generation:
    """What is in one generation.

    Attributes:
        files: by the stage that made them, the places of its files.
        kept: clusterings that a refit replaced, by their digest; so that it can be undone.
        log_lines: how many lines of edits.jsonl belong to it at least.
        refit_line: the last of those lines, if it is the refit that made this generation.
    """

    number: int
    files: Mapping[str, Places] = field(default_factory=dict)
    kept: Mapping[str, Places] = field(default_factory=dict)
    log_lines: int = 0
    refit_line: str | None = None

    @property
    def places(self) -> dict[str, int]:
        """The places of all current files."""
        return {name: number for made in self.files.values() for name, number in made.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "files": {stage: dict(places) for stage, places in self.files.items()},
            "kept": {digest: dict(places) for digest, places in self.kept.items()},
            "log_lines": self.log_lines,
            "refit_line": self.refit_line,
        }

    @classmethod
    def from_json(cls, values: Any, name: object) -> Generation:
        """Raises RunError, naming the file `name`: a name that leads out of the run, for one."""
        with foreign.telling_of(f"{name} is not readable as what a run holds"):
            read = foreign.READER.read(_Record, values)
        return cls(read.number, read.files, read.kept, read.log_lines, read.refit_line)


@dataclass(frozen=True, slots=True)
class _Record:
    number: Number
    files: dict[Annotated[str, Most(100)], FilePlaces]
    kept: dict[Digest, FilePlaces]
    log_lines: Annotated[int, Between(0)]
    refit_line: str | None


def stored(root: Path, name: str, number: int) -> Path:
    """Where a file of a generation lies."""
    return folder_of(root, number) / name


def place(root: Path, name: str, places: Places) -> Path:
    """Where the file `name` lies by `places`; where nothing ever lies if it is not among them."""
    number = places.get(name)
    return root / FOLDER / "none" / name if number is None else stored(root, name, number)


def folder_of(root: Path, number: int) -> Path:
    return root / FOLDER / f"{number:06d}"


def record_of(root: Path, number: int) -> Path:
    return root / FOLDER / f"{number:06d}.json"


def write(root: Path, generation: Generation, folder: int) -> None:
    """Write a generation's record, whose new files lie in `folder`; it is current only when run.json says so."""
    for parent, _, _ in os.walk(folder_of(root, folder)):
        atomic.sync_folder(Path(parent))
    path = record_of(root, generation.number)
    atomic.write_json(path, generation.to_json(), path.with_suffix(".part"))


def read(root: Path, number: int) -> Generation:
    """Raises RunError if its record cannot be read, FileNotFoundError if there is none (any more)."""
    path = record_of(root, number)
    return Generation.from_json(foreign.parse_json(foreign.read_bytes(path), path), path)


# -- readers -----------------------------------------------------------------------------------------------------


def hold(root: Path, number: int) -> tuple[Generation, int]:
    """A generation, and the open file that keeps it from being removed until it is closed.

    Raises:
        FileNotFoundError: it has been replaced and removed since run.json was read: read that again.
        RunError: its record cannot be read.
    """
    path = record_of(root, number)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        _lock(descriptor, exclusively=False)
        if not path.exists():  # removed between opening and locking
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return read(root, number), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _lock(descriptor: int, *, exclusively: bool) -> bool | None:
    """Lock an open file without waiting: did it work? None where the system or the file system knows no such locks."""
    try:
        import fcntl  # noqa: PLC0415  (not on Windows, where an open file cannot be deleted anyway)
    except ImportError:
        return None
    kind = fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


# -- the writer --------------------------------------------------------------------------------------------------


def show(root: Path, current: Generation) -> None:
    """Give the current generation's files their second names at the root, and take away those of earlier ones.

    Each name changes by one rename; after a kill in between, the next writer does the rest.
    """
    shown = {name: number for name, number in current.places.items() if not name.startswith(OWN)}
    scratch = root / FOLDER / SCRATCH
    for name, number in shown.items():
        _show(stored(root, name, number), root / name, scratch)
    earlier = {name for number in _numbers(root) if number != current.number for name in read(root, number).places}
    gone = sorted(name for name in earlier - set(shown) if not name.startswith(OWN))
    for name in gone:
        (root / name).unlink(missing_ok=True)
    for folder in {(root / name).parent for name in gone} - {root}:
        with suppress(OSError):  # something else lies there too
            folder.rmdir()


def _show(file: Path, target: Path, scratch: Path) -> None:
    if not file.is_file() or _is_second_name(file, target):  # what somebody deleted is made again by its stage
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = scratch / target.name
    temporary.unlink(missing_ok=True)
    atomic.give_second_name(file, temporary)
    temporary.replace(target)


def _is_second_name(file: Path, other: Path) -> bool:
    """Is `other` the same file, or a copy made by `give_second_name`, which has its time too?"""
    try:
        found = other.stat()
    except FileNotFoundError:
        return False
    wanted = file.stat()
    is_same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
    return is_same or (found.st_size, found.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns)


def replaced(root: Path, number: int) -> None:
    """Note on a generation's record that it is not current from now on."""
    with suppress(FileNotFoundError):
        os.utime(record_of(root, number))


def tidy(root: Path, current: int, draft: int | None) -> None:
    """Remove replaced generations that nobody reads, and files that none of those left over names.

    Args:
        draft: the folder of an unfinished generation, which stays as it is.
    """
    kept = [number for number in _numbers(root) if number == current or not _remove_record(record_of(root, number))]
    used: set[tuple[str, int]] = set()
    for number in kept:
        generation = read(root, number)
        for places in (*generation.files.values(), *generation.kept.values()):
            used |= set(places.items())
    for number in folders(root):
        if number != draft:
            _remove_unused(folder_of(root, number), {name for name, where in used if where == number})
    shutil.rmtree(root / FOLDER / SCRATCH, ignore_errors=True)


def _remove_record(path: Path) -> bool:
    """Remove a generation's record, unless somebody reads that generation."""
    if os.name == "nt":
        try:
            path.unlink(missing_ok=True)
        except PermissionError:  # a reader has it open
            return False
        return True
    descriptor = os.open(path, os.O_RDWR)
    try:
        is_free = _lock(descriptor, exclusively=True)
        if is_free is None:  # nobody can tell; its time is when it was replaced
            is_free = time.time() - os.fstat(descriptor).st_mtime > UNLOCKED_SECONDS
        if is_free:
            path.unlink()  # with the lock held: who opened it meanwhile finds it gone
        return is_free
    finally:
        os.close(descriptor)


def _remove_unused(folder: Path, used: set[str]) -> None:
    """Remove a generation's files but for `used`, and the folders that are empty then."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            if path.relative_to(folder).as_posix() not in used:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            Path(parent).rmdir()


def _numbers(root: Path) -> list[int]:
    """Of all generations that have a record, rising."""
    return sorted(int(path.stem) for path in (root / FOLDER).glob("*.json") if path.stem.isdigit())


def folders(root: Path) -> list[int]:
    """Numbers of all folders of generations, rising."""
    return sorted(int(path.name) for path in (root / FOLDER).glob("*") if path.name.isdigit() and path.is_dir())


def next_number(root: Path) -> int:
    """A number that neither a record nor a folder has."""
    return max([0, *_numbers(root), *folders(root)]) + 1
