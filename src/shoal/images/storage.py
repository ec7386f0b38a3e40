"""Bytes behind URIs: local files that may be anything, and fsspec's protocols. OSError never leaves this module."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, cast

from shoal.errors import DecodeError, SourceError
from shoal.images.location import local_path

LARGEST_FILE: Final = 1 << 30  # bytes
UNREADABLE: Final = "cannot be read"  # reasons that start so may pass: the file is tried again next time
GONE: Final = "gone before it was read"
MISSING: Final = "no such file"

_CLOUDS: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "http", "https")  # what the extra `clouds` opens
_KINDS: Final = ((stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))


def is_local(uri: str) -> bool:
    return uri.startswith("file:")


def look_at(path: str) -> tuple[os.stat_result | None, str | None]:
    """A local path's stat, following links, and why it cannot be read as an image file (None if it can)."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None, "dangling link" if os.path.islink(path) else MISSING
    except ValueError:
        return None, "not a possible path"
    except OSError as error:
        return None, "link loop" if error.errno == errno.ELOOP else _unreadable(error)
    if stat.S_ISDIR(found.st_mode):
        return found, "a folder, not a file"
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), None)
    return found, f"not a regular file ({kind})" if kind else too_large(found.st_size)


def too_large(size: int | None) -> str | None:
    if size is None or size <= LARGEST_FILE:
        return None
    return f"file too large ({size / 2**30:.1f} GiB; at most 1 GiB is read)"


def read_local(uri: str, refuse: Callable[[bytes], str | None], head_bytes: int) -> bytes:
    """All bytes of a local file, unless `refuse` gives a reason on seeing its first `head_bytes`.

    Raises:
        DecodeError: it is gone, unreadable, no regular file, too large, or refused.
    """
    path = local_path(uri)
    with reading_errors():
        _, problem = look_at(path)
        if problem is not None:
            raise DecodeError(GONE if problem in ("no such file", "dangling link") else problem)
        # Not blocking, should a FIFO have taken the file's place since the look.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = os.fstat(file.fileno()).st_size  # no further, should it grow meanwhile
            head = file.read(min(head_bytes, LARGEST_FILE))
            reason = refuse(head) or too_large(size)
            if reason is not None:
                raise DecodeError(reason)
            return head + file.read(max(0, size - len(head)))


def read_remote(uri: str) -> bytes:
    """All bytes behind an fsspec URI.

    Raises:
        DecodeError: it is gone, unreadable or too large.
    """
    with reading_errors():
        filesystem, path = filesystem_of(uri)
        data = cast(bytes, filesystem.cat_file(path))
    reason = too_large(len(data))
    if reason is not None:
        raise DecodeError(reason)
    return data


def read_range(uri: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` of a local or remote file; fewer if it ends before."""
    with reading_errors():
        if is_local(uri):
            with open(local_path(uri), "rb", buffering=0) as file:
                file.seek(offset)
                return file.read(size) or b""
        filesystem, path = filesystem_of(uri)
        return cast(bytes, filesystem.cat_file(path, start=offset, end=offset + size))


def open_seekable(uri: str) -> IO[bytes]:
    """A seekable file; OSError as from `open`."""
    if is_local(uri):
        return open(local_path(uri), "rb")
    filesystem, path = filesystem_of(uri)
    return cast(IO[bytes], filesystem.open(path, "rb"))


def modified(uri: str) -> float | None:
    """When a file was last changed, in seconds since the epoch, if its storage tells."""
    if is_local(uri):
        status, _ = look_at(local_path(uri))
        return status.st_mtime if status else None
    filesystem, path = filesystem_of(uri)
    try:
        return float(filesystem.modified(path).timestamp())
    except Exception:  # many filesystems do not know
        return None


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI, and the path in it.

    Raises:
        SourceError: no such protocol, or its package is not installed.
    """
    import fsspec.core  # noqa: PLC0415  (a tenth of a second that local files need not wait for)

    protocol = uri.split(":", 1)[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        hint = "pip install 'shoal[clouds]'" if protocol in _CLOUDS else str(error)
        raise SourceError(f"{uri} needs a package for {protocol}:// that is not installed; {hint}") from error
    except ValueError as error:
        raise SourceError(
            f"{uri} has the protocol {protocol!r}; expected one that fsspec knows, such as s3 or gs"
        ) from error
    return filesystem, path


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
        raise DecodeError(_unreadable(error)) from error


def _unreadable(error: Exception) -> str:
    text = (
        (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split()) or type(error).__name__
    )
    return f"{UNREADABLE} ({text[:120]})"
