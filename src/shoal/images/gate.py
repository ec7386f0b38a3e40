"""The gate: every byte of a source, a manifest or an archive comes through here.

It knows a few protocols and no others, opens only regular files, and stops at a size, whatever a name or a server says.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, BinaryIO, Final

from shoal.errors import DecodeError, SourceError
from shoal.images import clouds, web
from shoal.images.clouds import ARCHIVES, MEMORY, PACKAGES
from shoal.images.location import file_uri, is_uri, local_path
from shoal.images.storage import (
    LARGEST_FILE,
    is_local,
    look_at,
    open_local,
    read_local,
    reading_errors,
    too_large,
)
from shoal.spool import Spool
from shoal.wording import in_words

CHAIN: Final = "::"  # between an archive's member and where the archive lies
LOCAL: Final = ("file", "local")
PROTOCOLS: Final = ("file", *PACKAGES, *web.SCHEMES)
CHUNK_BYTES: Final = 1 << 20
_WEB: Final = tuple(f"{scheme}:" for scheme in web.SCHEMES)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that a listing names: its URI, and what its storage tells of it."""

    uri: str
    size_bytes: int | None = None
    mtime: float | None = None


def canonical(uri: str) -> str:
    """A URI in its one spelling: `local:` is `file:`, protocols are in small letters.

    Raises:
        DecodeError: it has a protocol, or a chain of them, that is not read. Nothing has been opened.
    """
    archives, place = [], uri
    while CHAIN in place and not _is_web(place):  # an address of the web may have colons: http://[::1]/
        member, _, place = place.partition(CHAIN)
        archives.append(member)
    if len(archives) > 1:
        raise DecodeError("an archive within an archive is not read")
    written = [_with_protocol(one, ARCHIVES) for one in archives]
    if archives and not is_uri(place) and not _SCHEME.match(place):
        place = file_uri(place)
    return CHAIN.join([*written, _with_protocol(place, (*PROTOCOLS, *LOCAL, MEMORY))])


def _with_protocol(text: str, known: tuple[str, ...]) -> str:
    match = _SCHEME.match(text)
    protocol = match[1].lower() if match is not None else ""
    if match is None or protocol not in known:
        raise DecodeError(f"the protocol {protocol or text[:20]!r} is not read")
    return f"{'file' if protocol in LOCAL else protocol}:{text[match.end() :]}"


class Gate:
    """Reads, opens and lists by URI. Thread-safe.

    Args:
        spool: where what is fetched or unpacked is kept; None: as long as the gate is.
    """

    def __init__(self, spool: Spool | None = None) -> None:
        self._spool = spool or Spool()
        self._web = web.Web()
        self._archives: dict[str, tuple[Any, threading.Lock]] = {}
        self._lock = threading.Lock()

    def read(self, uri: str, refuse: Callable[[bytes], str | None] | None = None) -> bytes:
        """All bytes of a file of at most LARGEST_FILE.

        Args:
            refuse: gives a reason on seeing the first bytes of a local file; then no more of it is read.

        Raises:
            DecodeError: it is gone, unreadable, no regular file, too large, refused, or of a protocol that is not read.
        """
        with reading_errors():
            uri = canonical(uri)
            if is_local(uri):
                return read_local(uri, refuse)
            data = self._spool.get(uri)
            if data is None:
                data = self._fetched(uri)
                if self._spool.keeps_all:
                    self._spool.put(uri, data)
            return data

    def read_range(self, uri: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer if the file ends before. Raises DecodeError as `read` does."""
        problem = too_large(size)
        if problem is not None:
            raise DecodeError(problem)
        with reading_errors():
            uri = canonical(uri)
            if not is_local(uri) and not self._is_fetched_whole(uri):
                system, path, lock = self._system_of(uri)
                with lock:
                    part: bytes = system.cat_file(path, start=offset, end=offset + size)
                return part
            with self.open(uri) as file:
                file.seek(offset)
                return file.read(size)

    def open(self, uri: str) -> IO[bytes]:
        """A seekable file.

        Raises:
            DecodeError: as `read` does. OSError, and what network file systems raise.
        """
        uri = canonical(uri)
        if is_local(uri):
            return open_local(local_path(uri))
        file = self._spool.file(uri, lambda target: self._fill(uri, target)) if self._is_fetched_whole(uri) else None
        if file is not None:
            return file
        if _is_web(uri):  # no room for it on the disk
            return io.BytesIO(self._web.read(uri))
        system, path, _ = self._system_of(uri)
        opened: IO[bytes] = system.open(path, "rb")
        return opened

    def unpacked(self, uri: str, unpack: Callable[[IO[bytes], BinaryIO], None]) -> IO[bytes] | None:
        """What `unpack` makes of a file, seekable and made once; None if there is no room for it."""

        def fill(target: BinaryIO) -> None:
            with self.open(uri) as packed:
                unpack(packed, target)

        changed = self.modified(uri) if is_local(uri) else None  # who keeps a reader for long asks anew after a change
        return self._spool.file(f"unpacked {uri} {changed}", fill)

    def modified(self, uri: str) -> float | None:
        """When a file was last changed, in seconds since the epoch, if its storage tells."""
        try:
            uri = canonical(uri)
            if is_local(uri):
                status, _ = look_at(local_path(uri))
                return status.st_mtime if status else None
            if _is_web(uri):
                return self._web.information(uri)[1]
            system, path, _ = self._system_of(uri)
            return float(system.modified(path).timestamp())
        except Exception:  # many do not know
            return None

    def list(self, uri: str) -> tuple[str, tuple[ListedFile, ...], bool]:
        """What a URI that is not local names.

        Returns:
            The folder that paths are relative to; files in the order of their URIs; whether the URI is one file, not a
            folder or a pattern.

        Raises:
            DecodeError: as `read` does; FileNotFoundError; and what network file systems raise.
        """
        uri = canonical(uri)
        if _is_web(uri):
            if uri.endswith("/"):
                return uri, tuple(ListedFile(link) for link in self._web.files_below(uri)), False
            return uri.rpartition("/")[0], (ListedFile(uri, *self._web.information(uri)),), True
        system, path, lock = self._system_of(uri)
        with lock:
            found = _find(system, path)
        is_single = list(found) == [path]
        chain = CHAIN + uri.partition(CHAIN)[2] if _in_archive(uri) else ""
        base = system.unstrip_protocol(_parent(_fixed_part(path)) if is_single or _has_magic(path) else path)
        files = tuple(
            ListedFile(system.unstrip_protocol(name) + chain, _size(told), _mtime(told))
            for name, told in sorted(found.items())
        )
        return base, files, is_single

    # -- fetching ----------------------------------------------------------------------------------------------------

    def _is_fetched_whole(self, uri: str) -> bool:
        """Web servers need not give parts; and who keeps all needs all."""
        return not _in_archive(uri) and (self._spool.keeps_all or _is_web(uri))

    def _fetched(self, uri: str) -> bytes:
        if _is_web(uri):
            return self._web.read(uri)
        system, path, lock = self._system_of(uri)
        if _in_archive(uri):  # an archive's members are unpacked: only reading tells their size
            with lock, system.open(path, "rb") as file:
                data: bytes = file.read(LARGEST_FILE + 1)
        else:
            data = system.cat_file(path, start=0, end=LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise DecodeError("file too large (at most 1 GiB is read)")
        return data

    def _fill(self, uri: str, target: BinaryIO) -> None:
        if _is_web(uri):
            self._web.fill(uri, target)
            return
        system, path, _ = self._system_of(uri)
        with system.open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                target.write(chunk)

    def _system_of(self, uri: str) -> tuple[Any, str, AbstractContextManager[Any]]:
        """The file system of a URI, the path in it, and what to hold while it is used."""
        if not _in_archive(uri):
            return *clouds.file_system(uri), nullcontext()  # clouds' may be used by several threads
        member, _, place = uri.partition(CHAIN)
        kind, _, path = member.partition(":")
        with self._lock:
            if (kind + place) not in self._archives:
                self._archives[kind + place] = (clouds.archive_system(kind, self.open(place)), threading.Lock())
            system, lock = self._archives[kind + place]
        return system, path.lstrip("/"), lock


@contextmanager
def source_errors(uri: str, doing: str) -> Iterator[None]:
    """Make a SourceError of whatever the gate says of a source: one sentence about `uri`.

    Args:
        doing: such as "cannot be listed".
    """
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{uri} does not exist") from error
    except DecodeError as error:
        raise SourceError(f"{uri} {doing}: {error}") from error
    except Exception as error:  # network file systems raise what they like
        raise SourceError(f"{uri} {doing}: {in_words(error, 200)}") from error


def _is_web(uri: str) -> bool:
    return uri[:6].lower().startswith(_WEB)


def _in_archive(uri: str) -> bool:
    return CHAIN in uri and not _is_web(uri)


def _find(system: Any, path: str) -> dict[str, dict[str, Any]]:
    if _has_magic(path):
        return {name: found for name, found in system.glob(path, detail=True).items() if found["type"] == "file"}
    try:
        told = system.info(path)
    except FileNotFoundError:
        told = {}
    if told.get("type") == "file":
        return {path: told}
    return dict(system.find(path, detail=True))


def _has_magic(path: str) -> bool:
    return "*" in path or "?" in path


def _fixed_part(path: str) -> str:
    return path[: min((path.index(mark) for mark in "*?" if mark in path), default=len(path))]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _size(told: dict[str, Any]) -> int | None:
    size = told.get("size")
    return int(size) if size is not None else None


def _mtime(told: dict[str, Any]) -> float | None:
    for key in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = told.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return None
