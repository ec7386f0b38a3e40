"""A published model as a folder: which files it consists of, and how it is read while another takes its place.

A new publication is made ready in a folder inside, `.shoal-publishing-` and the SHA-256 of its manifest. It is there as
soon as its manifest has taken the place of the earlier one, in one rename; whoever finds the folder that the manifest
names looks for each file in it first. Then the files follow to where other programs look for them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

from shoal import atomic, foreign
from shoal.errors import RunError
from shoal.rundir import digest_file
from shoal.runfiles import Folder
from shoal.typed import Like, Most, OneOf, UnfitError

MANIFEST: Final = "publication.json"
STAGING: Final = ".shoal-publishing-"
FORMAT_VERSION: Final = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which files a publication consists of: SHA-256 by name. By it an earlier one is known again."""

    files: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> Manifest:
        return cls({path.name: digest_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST})

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """None if there is none, or none of ours."""
        try:
            return cls.parse(foreign.read_bytes(path))
        except (OSError, RunError):
            return None

    @classmethod
    def parse(cls, data: bytes) -> Manifest | None:
        """None if it is none of ours."""
        try:
            found = foreign.READER.read(_Written, foreign.parse_json(data, MANIFEST))
        except (RunError, UnfitError):
            return None
        return cls(found.files) if all(map(_is_file_name, found.files)) else None

    def write(self, folder: Path) -> None:
        value = {"format_version": FORMAT_VERSION, "published_by": "shoal", "files": self.files}
        atomic.write_json(folder / MANIFEST, value)


@dataclass(frozen=True, slots=True)
class _Written:
    published_by: Annotated[str, OneOf(("shoal",))]
    files: Annotated[
        dict[Annotated[str, Most(255)], Annotated[str, Like(re.compile("[0-9a-f]{64}"), "64 hexadecimal digits")]],
        Most(1000),
    ]


@dataclass(frozen=True, slots=True)
class Arriving:
    """A publication whose files are on their way from `staging` to `folder`."""

    folder: Path
    staging: Path
    names: frozenset[str]

    def __truediv__(self, name: str, /) -> Path:
        staged = self.staging / name
        has_arrived = name in self.names and not staged.exists()
        return self.folder / name if has_arrived else staged  # what lies there of the earlier one is not to be found

    def __str__(self) -> str:
        return str(self.folder)


def staging_folder(folder: Path, manifest: bytes) -> Path:
    """Where the publication of `folder` that has this manifest is made ready."""
    return folder / f"{STAGING}{hashlib.sha256(manifest).hexdigest()}"


def is_staging_name(name: str) -> bool:
    """True for the name of a folder where a publication is, or was, made ready."""
    return re.fullmatch(re.escape(STAGING) + "[0-9a-f]{64}", name) is not None


def read_whole(folder: Path, read: Callable[[Folder], T]) -> T:
    """Read files of a model folder, all of one publication, whatever takes its place meanwhile.

    Args:
        read: is called again if something did.
    """
    while True:
        state = _state(folder)
        try:
            found = read(view(folder))
        except Exception:
            if _state(folder) == state:
                raise
            continue
        if _state(folder) == state:
            return found


def view(folder: Path) -> Folder:
    """The files of a model folder at this moment. `read_whole` makes sure that the moment lasts."""
    manifest = _manifest(folder)
    known = None if manifest is None else Manifest.parse(manifest)
    if manifest is None or known is None or not staging_folder(folder, manifest).is_dir():
        return folder
    return Arriving(folder, staging_folder(folder, manifest), frozenset(known.files))


def _state(folder: Path) -> tuple[bytes | None, list[str]]:
    """What changes whenever a file that a reader would find does."""
    manifest = _manifest(folder)
    if manifest is None:
        return None, []
    try:
        return manifest, sorted(path.name for path in staging_folder(folder, manifest).iterdir())
    except OSError:
        return manifest, []


def _manifest(folder: Path) -> bytes | None:
    try:
        return foreign.read_bytes(folder / MANIFEST)
    except (OSError, RunError):
        return None


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..", MANIFEST) and not set(name) & set("/\\:\0")
