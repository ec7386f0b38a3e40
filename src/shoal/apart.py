"""Where images may be written that come of a run: neither in it, nor where its source would find them as its own."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shoal.errors import RequestError
from shoal.images.location import is_uri, local_path
from shoal.images.storage import is_local
from shoal.rundir import RunDir


def require_outside_run(run_dir: RunDir, dest: Path, called: str) -> None:
    """Raise RequestError if a folder `dest` is or lies in the run, whose cache is Shoal's own to write into.

    Args:
        called: what the person called `dest`: `DEST`, `--to`.
    """
    root, place = run_dir.root.resolve(), dest.resolve()
    if place.is_relative_to(root) and not place.is_relative_to(run_dir.cache.resolve()):
        is_it = "is the run itself" if place == root else f"lies in the run {run_dir.root}"
        raise RequestError(f"{called} {dest} {is_it}; expected a folder beside it, such as {_beside(root)}")


def require_outside_source(run_dir: RunDir, dest: Path, called: str) -> None:
    """Raise RequestError if a folder `dest` is or lies where the run's source is read. See `require_outside_run`."""
    place = dest.resolve()
    for folder in _folders_read(run_dir):
        if place.is_relative_to(folder):
            is_it = "is" if place == folder else f"lies in {folder},"
            raise RequestError(
                f"{called} {dest} {is_it} the source of the run, where its images would be found again, as more of "
                f"them; expected a folder beside it, such as {_beside(folder)}"
            )
    for pattern in _patterns_read(run_dir):
        if _may_match(_parts(pattern), place.parts):
            raise RequestError(
                f"{called} {dest} lies where {pattern} looks, the source of the run: its images would be found again, "
                "as more of them; expected a folder elsewhere"
            )


def _beside(folder: Path) -> Path:
    return folder.parent / f"{folder.stem or 'images'}-sorted"


def _words(run_dir: RunDir) -> Iterator[str]:
    """What the source was called, of this machine's: absolute paths; where the run is now, if both were moved."""
    state = run_dir.read_state()
    moved = run_dir.moved_source()
    for word in state.get("asked", {}).get("source") or ():
        if is_uri(word) and not is_local(word):
            continue
        path = local_path(word) if is_uri(word) else word
        if moved is not None and Path(path).is_relative_to(moved[0]):
            path = str(moved[1] / Path(path).relative_to(moved[0]))
        yield path


def _folders_read(run_dir: RunDir) -> list[Path]:
    return [Path(word).resolve() for word in _words(run_dir) if Path(word).is_dir()]


def _patterns_read(run_dir: RunDir) -> list[str]:
    return [word for word in _words(run_dir) if glob.has_magic(word) and not os.path.lexists(word)]


def _parts(pattern: str) -> tuple[str, ...]:
    """The parts of a pattern, with the links in its folders resolved before the first wildcard."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return (*Path(*parts[:fixed]).resolve().parts, *parts[fixed:])


def _may_match(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """May a pattern find a folder, one that it lies in, or anything in it?"""
    for number, part in enumerate(pattern):
        if number == len(path) or part == "**":
            return True
        if not fnmatchcase(path[number], part):
            return False
    return True
