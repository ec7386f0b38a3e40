"""Putting one file in its place: never over another file, and whole as soon as it has its name."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shoal import atomic, disk
from shoal.errors import RequestError, WorkError
from shoal.export.names import same_file_key
from shoal.rundir import digest_file

Place = Callable[[Path, Path], None]

PART_SUFFIX: Final = ".shoal-part"
HARD_LINK: Final = "hard link"
SYMBOLIC_LINK: Final = "symbolic link"


@dataclass(frozen=True, slots=True)
class Parts:
    """Names of half-written files. What a kill leaves is known again by the token, which is written down before.

    Attributes:
        token: as `new_token` makes them, or a digest; nobody else's file has it in its name.
    """

    token: str

    @contextmanager
    def beside(self, target: Path) -> Iterator[Path]:
        """A new name beside `target`, short, so that there is room for it where the target has the full 255 bytes."""
        part = target.with_name(f".{self.token}.{secrets.token_hex(4)}{PART_SUFFIX}")
        try:
            yield part
        except Exception:
            part.unlink(missing_ok=True)
            raise

    def remove(self, folders: Iterable[Path]) -> None:
        """Remove what a killed process left half-written in these folders under this token."""
        for folder in folders:
            for part in folder.glob(f".{self.token}.*{PART_SUFFIX}"):
                part.unlink()


def new_token() -> str:
    """32 random hexadecimal digits."""
    return secrets.token_hex(16)


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


def write_into_place(target: Path, data: bytes, modified_ns: int | None, place: Place, parts: Parts) -> None:
    """Write a new file by way of a part beside it; no fsync, for whoever copies still has the original."""
    with parts.beside(target) as part:
        part.write_bytes(data)
        if modified_ns is not None:
            os.utime(part, ns=(modified_ns, modified_ns))
        place(part, target)


def write_new(target: Path, data: bytes, place: Place) -> None:
    """Write a new file, made in no other place, so that it is whole and on the disk when it has its name.

    Raises:
        FileExistsError: `target` is there; it is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(target, data)
    with _parts_of(data).beside(target) as part:
        part.write_bytes(data)
        _sync(part)
        place(part, target)
    atomic.sync_folder(target.parent)


def remove_unfinished(target: Path, data: bytes) -> None:
    """Remove what a killed `write_new` of the same left beside `target`."""
    _parts_of(data).remove([target.parent])


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


def move_file(source: Path, target: Path, place: Place, parts: Parts) -> None:
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
        _copy_durably(source, target, place, parts)
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


def is_plain_file(path: Path) -> bool:
    """True for a regular file itself: no link to one, no folder, device or pipe."""
    return os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)


def open_plain(path: Path) -> BinaryIO:
    """Open for reading what should be a file of Shoal's own.

    Raises:
        RequestError: it is a link, a device, a pipe or a folder; nothing was read.
    """
    if not is_plain_file(path):
        raise RequestError(f"{path} is no regular file; expected one that Shoal wrote there")
    # Should something else have taken its place since the look: no link is followed, and no pipe waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb")


@contextmanager
def writing_errors(dest: Path) -> Iterator[None]:
    """Turn what the operating system says about the files of an export into an error for the person."""
    with disk.writing_errors(dest):
        try:
            yield
        except FileExistsError as error:
            where = error.filename2 or error.filename
            raise RequestError(
                f"{where} is there already and is left as it is; move it away or choose another DEST"
            ) from error


def _parts_of(data: bytes) -> Parts:
    """Names for a file that nothing is written down about: known again by whoever writes the same content."""
    return Parts(hashlib.sha256(data).hexdigest())


def _copy_durably(source: Path, target: Path, place: Place, parts: Parts) -> None:
    with parts.beside(target) as part:
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
