"""Folders, patterns and single objects that lie elsewhere: s3://, gs://, http://, zip://::s3://, …"""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal.errors import SourceError
from shoal.images.gate import CHAIN, Gate, ListedFile, source_errors
from shoal.images.item import Item
from shoal.images.left_out import LeftOut, first_left_out, is_ignored_file
from shoal.images.listed import Listed
from shoal.images.location import valid_text
from shoal.images.storage import too_large
from shoal.spool import Spool


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """Objects under a URI; paths are relative to it."""

    identity: str
    name: str
    files: tuple[tuple[str, ListedFile], ...]  # path and object
    left_out: tuple[tuple[str, str], ...] = ()  # URI and kind of folders that are not looked into
    spool: Spool = field(default_factory=Spool, compare=False, repr=False)

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every object, ordered by path; labels as in a local folder."""
        if left_out is not None:
            left_out.update(self.left_out)
        found = Listed.of(
            Item(path, file.uri, file.size_bytes, file.mtime, problem=_problem(file)) for path, file in self.files
        )
        return found.by_path().with_class_labels().with_distinct_paths()


@dataclass(frozen=True, slots=True)
class Listing:
    """What a URI names: the folder that paths are relative to, and objects in the order of their URIs."""

    base: str
    files: tuple[ListedFile, ...]
    is_single: bool  # the URI is an object, not a folder or pattern
    left_out: LeftOut


def list_remote(gate: Gate, uri: str) -> Listing:
    """List a folder, a pattern or a single object.

    Raises:
        SourceError: nothing is there, it cannot be reached, its protocol is not read, or a package for it is missing.
    """
    with source_errors(uri, "cannot be listed"):
        base, files, is_single = gate.list(uri)
    if not files:
        raise SourceError(f"{uri} does not exist, or is empty")
    left_out: LeftOut = {}
    kept = tuple(file for file in files if is_single or not _is_junk(file.uri, base, left_out))
    return Listing(base, kept, is_single, left_out)


def relative_path(uri: str, base: str) -> str:
    """The path of an object relative to a folder that it lies in."""
    return valid_text(uri.removeprefix(base).partition(CHAIN)[0].lstrip("/"))


def _problem(file: ListedFile) -> str | None:
    return "empty file" if file.size_bytes == 0 else too_large(file.size_bytes)


def _is_junk(uri: str, base: str, left_out: LeftOut) -> bool:
    *folders, name = relative_path(uri, base).split("/")
    found = first_left_out(folders, base.rstrip("/").rpartition("/")[2])
    if found is not None:
        left_out["/".join([base, *folders[: found[0]]])] = found[1]
    return found is not None or is_ignored_file(name)
