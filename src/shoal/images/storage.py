"""Files of this machine, which may be anything, and the words for what cannot be read. Only the gate opens them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from shoal.errors import DecodeError
from shoal.images.formats import HEAD_BYTES
from shoal.images.location import local_path
from shoal.wording import in_words

LARGEST_FILE: Final = 1 << 30  # bytes
LOCAL: Final = "file:"  # how URIs of this machine begin
UNREADABLE: Final = "cannot be read"  # reasons that start so may pass: the file is tried again next time
NEEDS: Final = "needs the package"  # so may these
GONE: Final = "gone before it was read"
MISSING: Final = "no such file"

_KINDS: Final = ((stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))


def is_local(uri: str) -> bool:
    return uri.startswith(LOCAL)


def look_at(path: str, most_bytes: int | None = LARGEST_FILE) -> tuple[os.stat_result | None, str | None]:
    """A local path's stat, following links, and why it cannot be read as a file of that size (None if it can)."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None, "dangling link" if os.path.islink(path) else MISSING
    except ValueError:
        return None, "not a possible path"
    except OSError as error:
        return None, "link loop" if error.errno == errno.ELOOP else f"{UNREADABLE} ({in_words(error)})"
    if stat.S_ISDIR(found.st_mode):
        return found, "a folder, not a file"
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), None)
    if kind is not None:
        return found, f"not a regular file ({kind})"
    return found, None if most_bytes is None else too_large(found.st_size)


def too_large(size: int | None) -> str | None:
    if size is None or size <= LARGEST_FILE:
        return None
    return f"file too large ({size / 2**30:.1f} GiB; at most 1 GiB is read)"


def open_local(path: str) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        DecodeError: it is gone, unreadable, or no regular file. OSError.
    """
    _, problem = look_at(path, most_bytes=None)
    if problem is not None:
        raise DecodeError(GONE if problem in ("no such file", "dangling link") else problem)
    # Not blocking, should a FIFO have taken the file's place since the look.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DecodeError("not a regular file any more")
    return file


def read_local(uri: str, refuse: Callable[[bytes], str | None] | None = None) -> bytes:
    """All bytes of a local file, unless `refuse` gives a reason on seeing its first HEAD_BYTES.

    Raises:
        DecodeError: it is gone, unreadable, no regular file, too large, or refused.
    """
    with reading_errors(), open_local(local_path(uri)) as file:
        size = os.fstat(file.fileno()).st_size  # no further, should it grow meanwhile
        head = file.read(HEAD_BYTES)
        reason = (refuse(head) if refuse is not None else None) or too_large(size)
        if reason is not None:
            raise DecodeError(reason)
        return head + file.read(max(0, size - len(head)))


@contextmanager
def reading_errors() -> Iterator[None]:
    """Turn whatever reading raises into a DecodeError with a short reason."""
    try:
        yield
    except DecodeError:
        raise
    except FileNotFoundError as error:
        raise DecodeError(GONE) from error
    except Exception as error:  # network filesystems raise what they like
        raise DecodeError(f"{UNREADABLE} ({in_words(error)})") from error
