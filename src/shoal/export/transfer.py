"""Putting one file in its place: never over another file, and whole as soon as it has its name."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal import atomic
from shoal.errors import DiskSpaceError, RequestError, WorkError
from shoal.export.names import same_file_key
from shoal.rundir import digest_file

Place = Callable[[Path, Path], None]

PART_PATTERN = ".*.shoal-part"
HARD_LINK = "hard link"
SYMBOLIC_LINK = "symbolic link"


def rename_into_place(source: Path, target: Path) -> None:
    """Rename within one file system.

    A hard link and then an unlink, because os.rename overwrites in silence on Linux and macOS. A kill between the two
    leaves both names of the one file, which the next run takes up.

    Raises:
        FileExistsError: `target` is there; nothing has changed.
        OSError: with errno EXDEV if the two are on different file systems.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, or one that forbids this one
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)
        return
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise


def write_into_place(target: Path, data: bytes, modified_ns: int | None, place: Place) -> None:
    """Write a new file by way of a part beside it; no fsync, for whoever copies still has the original."""
    with _part_of(target) as part:
        part.write_bytes(data)
        if modified_ns is not None:
            os.utime(part, ns=(modified_ns, modified_ns))
        place(part, target)


def link_into_place(source: Path, target: Path) -> str:
    """Make `target` another name of the file `source`: a hard link if the file system can, else a symbolic one."""
    original = source.resolve(strict=True)
    try:
        os.link(original, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # another file system, or one without hard links
        target.symlink_to(original)
        return SYMBOLIC_LINK
    return HARD_LINK


def move_file(source: Path, target: Path, place: Place) -> None:
    """Move a file to a free name, across file systems too: then copied, synced, compared, and only then deleted.

    Raises:
        FileExistsError: `target` is there.
        WorkError: the copy does not read back as the source; the source is untouched.
    """
    try:
        place(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_durably(source, target, place)
        source.unlink()


def same_bytes(one: Path, other: Path) -> bool:
    """True if both are files, or links to files, of the same content."""
    if not (one.is_file() and other.is_file()):
        return False
    return one.stat().st_size == other.stat().st_size and digest_file(one) == digest_file(other)


def same_entry(one: Path, other: Path) -> bool:
    """True if the two paths name one directory entry (not merely hard links of one file)."""
    if one == other:
        return True
    same_name = same_file_key(one.name) == same_file_key(other.name)
    return same_name and one.parent.exists() and other.parent.exists() and one.parent.samefile(other.parent)


def remove_parts(folders: Iterable[Path]) -> None:
    """Remove what a killed run left half-written in these folders."""
    for folder in folders:
        for part in folder.glob(PART_PATTERN):
            part.unlink()


def nearest_existing(folder: Path) -> Path:
    """`folder`, or the nearest parent of it that is there."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


@contextmanager
def writing_errors(dest: Path) -> Iterator[None]:
    """Turn what the operating system says about the files of an export into an error for the person."""
    try:
        yield
    except FileExistsError as error:
        where = error.filename2 or error.filename
        raise RequestError(
            f"{where} is there already and is left as it is; move it away or choose another DEST"
        ) from error
    except OSError as error:
        where = error.filename2 or error.filename or dest
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskSpaceError(
                f"the disk of {dest} is full, at {where}; make room and give the same command again"
            ) from error
        raise WorkError(
            f"cannot read or write {where}: {error.strerror}; mend it and give the same command again"
        ) from error


def _copy_durably(source: Path, target: Path, place: Place) -> None:
    with _part_of(target) as part:
        shutil.copyfile(source, part)
        shutil.copystat(source, part)
        _sync(part)
        _require_same(source, part)
        place(part, target)
    atomic.sync_folder(target.parent)


def _sync(part: Path) -> None:
    mode = part.stat().st_mode
    part.chmod(mode | stat.S_IWUSR)  # a file that its owner may only read is not opened for syncing on Windows
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.chmod(mode)


def _require_same(source: Path, part: Path) -> None:
    if not same_bytes(source, part):
        raise WorkError(f"the copy of {source} at {part.parent} reads back differently; nothing was deleted")


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """A new name beside `target`, short, so that there is room for it where the target has the full 255 bytes.

    What a kill left under that name is unlinked, never written to: it may be a second name of a finished target.
    """
    part = target.with_name(f".{os.getpid()}.shoal-part")
    part.unlink(missing_ok=True)
    try:
        yield part
    except Exception:
        part.unlink(missing_ok=True)
        raise
