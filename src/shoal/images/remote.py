"""Folders, patterns and single objects in storage that fsspec reaches: s3://, gs://, http://, memory://, …"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shoal.errors import ShoalError, SourceError
from shoal.images.folder import with_class_labels
from shoal.images.item import Item, with_distinct_paths
from shoal.images.left_out import LeftOut, first_left_out, is_ignored_file
from shoal.images.location import valid_text
from shoal.images.storage import filesystem_of, too_large

CHAIN: Final = "::"  # of fsspec, between an archive's member and where the archive lies


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object: its URI, and what its storage tells of it."""

    uri: str
    size_bytes: int | None
    mtime: float | None


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """Objects under a URI; paths are relative to it."""

    identity: str
    name: str
    files: tuple[tuple[str, RemoteFile], ...]  # path and object
    left_out: tuple[tuple[str, str], ...] = ()  # URI and kind of folders that are not looked into

    def items(self, left_out: LeftOut | None = None) -> Iterator[Item]:
        """Every object, ordered by path; labels as in a local folder."""
        if left_out is not None:
            left_out.update(self.left_out)
        items = [
            Item(path, file.uri, file.size_bytes, file.mtime, problem=too_large(file.size_bytes))
            for path, file in self.files
        ]
        yield from with_distinct_paths(with_class_labels(sorted(items, key=lambda item: item.path)))


@dataclass(frozen=True, slots=True)
class Listing:
    """What a URI names: the folder that paths are relative to, and objects in the order of their URIs."""

    base: str
    files: tuple[RemoteFile, ...]
    is_single: bool  # the URI is an object, not a folder or pattern
    left_out: LeftOut


def list_remote(uri: str) -> Listing:
    """List a folder, a pattern or a single object.

    Raises:
        SourceError: nothing is there, it cannot be reached, or a package for it is missing.
    """
    try:
        filesystem, path = filesystem_of(uri)
        found = _find(filesystem, path, uri)
    except ShoalError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{uri} does not exist") from error
    except Exception as error:  # network filesystems raise what they like
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(f"{uri} cannot be listed: {text}") from error
    if not found:
        raise SourceError(f"{uri} does not exist, or is empty")
    is_single = list(found) == [path]
    chain = uri[uri.index(CHAIN) :] if CHAIN in uri else ""  # of zip://a.jpg::s3://bucket/b.zip, what the zip lies in
    base = filesystem.unstrip_protocol(_parent(_fixed_part(path)) if is_single or _has_magic(path) else path)
    files = (_file(filesystem, name, chain, information) for name, information in sorted(found.items()))
    left_out: LeftOut = {}
    kept = tuple(file for file in files if is_single or not _is_junk(file.uri, base, left_out))
    return Listing(base, kept, is_single, left_out)


def relative_path(uri: str, base: str) -> str:
    """The path of an object relative to a folder that it lies in."""
    return valid_text(uri.removeprefix(base).partition(CHAIN)[0].lstrip("/"))


def _find(filesystem: Any, path: str, uri: str) -> dict[str, dict[str, Any]]:
    if _is_web(uri) and not uri.endswith("/"):  # asking a web page whether it is a folder means parsing it
        return {path: _information(filesystem, path)}
    if _has_magic(path):
        return {name: found for name, found in filesystem.glob(path, detail=True).items() if found["type"] == "file"}
    if filesystem.isfile(path):
        return {path: _information(filesystem, path)}
    return dict(filesystem.find(path, detail=True))


def _information(filesystem: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = filesystem.info(path)
    return found


def _has_magic(path: str) -> bool:
    return "*" in path or "?" in path


def _fixed_part(path: str) -> str:
    return path[: min((path.index(mark) for mark in "*?" if mark in path), default=len(path))]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _file(filesystem: Any, name: str, chain: str, information: dict[str, Any]) -> RemoteFile:
    size = information.get("size")
    return RemoteFile(
        filesystem.unstrip_protocol(name) + chain, int(size) if size is not None else None, _mtime(information)
    )


def _mtime(information: dict[str, Any]) -> float | None:
    for key in ("LastModified", "mtime", "last_modified", "updated", "created"):
        value = information.get(key)
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


def _is_junk(uri: str, base: str, left_out: LeftOut) -> bool:
    *folders, name = relative_path(uri, base).split("/")
    found = first_left_out(folders, base.rstrip("/").rpartition("/")[2])
    if found is not None:
        left_out["/".join([base, *folders[: found[0]]])] = found[1]
    return found is not None or is_ignored_file(name)


def _is_web(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))
