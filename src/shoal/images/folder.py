"""Folders and files on this machine as a source."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shoal.errors import SourceError
from shoal.images.item import Item
from shoal.images.left_out import LeftOut, first_left_out, is_ignored_file, left_out_as
from shoal.images.listed import Listed
from shoal.images.location import display_path, file_uri
from shoal.images.storage import UNREADABLE, look_at
from shoal.spool import Spool

_LARGEST_RUN_JSON = 1 << 22  # bytes; a larger run.json is not a run's


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Local files and folders; paths are relative to `base`.

    Labels are the names of folders if every image lies at base/class/file and there are two classes or more.
    """

    identity: str
    name: str
    base: str
    roots: tuple[str, ...]
    spool: Spool = field(default_factory=Spool, compare=False, repr=False)

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every file, links followed, ordered by path; what is no image too, so that nothing is hidden.

        Left out are the junk of operating systems, folders as `left_out_as` tells, and Shoal's own runs.

        Raises:
            SourceError: the only root is a folder that cannot be listed.
        """
        found = Listed.of(self._walked(_Walk({} if left_out is None else left_out))).by_path()  # roots may overlap
        if len(self.roots) == 1 and len(found) == 1 and found.item(0).path == "":
            raise SourceError(f"{self.identity} {found.item(0).problem}; expected a folder that can be listed")
        return found.with_class_labels().with_distinct_paths()

    def _walked(self, walk: _Walk) -> Iterator[Item]:
        for root in self.roots:
            relative = "" if root == self.base else os.path.relpath(root, self.base)
            if not walk.leaves_out(self.base, relative):
                yield from walk.below(root, display_path(relative) if relative else "")


def local_item(path: str, shown: str, label: str | None = None) -> Item:
    """One file, whatever state it is in."""
    status, problem = look_at(path)
    try:
        uri = file_uri(path)
    except ValueError:  # a null byte in a manifest
        uri = ""
    if status is None:
        return Item(shown, uri, label=label, problem=problem)
    return Item(shown, uri, status.st_size, status.st_mtime, label, problem)


def is_run(folder: str) -> bool:
    """True if `folder` is a run directory: its run.json holds a format_version."""
    path = Path(folder) / "run.json"
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_RUN_JSON:
            return False
        state = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict) and "format_version" in state


class _Walk:
    """Lists folders. Real folders come first, so that a link to a folder that is listed anyway adds nothing."""

    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._seen: set[tuple[int, int]] = set()  # device and inode of every folder listed
        self._links: deque[tuple[str, str]] = deque()

    def leaves_out(self, base: str, relative: str) -> bool:
        """True if a root below `base` is or lies in a folder that systems make: a pattern or a shell's * found it.

        Hidden ones no pattern finds by itself: who names them wants them.
        """
        parts = relative.split(os.sep)
        folders = parts if os.path.isdir(os.path.join(base, relative)) else parts[:-1]
        found = first_left_out(folders, os.path.basename(base))
        if found is None or parts[found[0] - 1].startswith("."):
            return False
        self._left_out[file_uri(os.path.join(base, *parts[: found[0]]))] = found[1]
        return True

    def below(self, root: str, relative: str) -> Iterator[Item]:
        """The file `root`, or all files below it, in no certain order."""
        if not os.path.isdir(root):
            yield local_item(root, relative)
            return
        yield from self._descend(root, relative)
        while self._links:
            yield from self._follow(*self._links.popleft())

    def _follow(self, link: str, relative: str) -> Iterator[Item]:
        # Looked at only after all real folders, and then in order: which of two ways to a folder counts is certain.
        target, own_folder = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
        if own_folder == target or own_folder.startswith(target.rstrip(os.sep) + os.sep):
            yield _problem(link, relative, "link loop (it leads back to a folder that it lies in)")
        else:
            yield from self._descend(link, relative)

    def _descend(self, folder: str, relative: str) -> Iterator[Item]:
        waiting = [(folder, relative)]
        while waiting:
            folder, relative = waiting.pop()
            folders: list[os.DirEntry[str]] = []
            try:
                if self._is_to_list(folder):
                    with os.scandir(folder) as entries:
                        yield from self._files(entries, relative, folders)
            except _SeenError as error:
                yield _problem(folder, relative, str(error))
            except OSError as error:
                yield _problem(folder, relative, f"{UNREADABLE} (folder: {error.strerror or error})")
            for entry in sorted(folders, key=lambda entry: os.fsencode(entry.name)):
                shown = _below(relative, entry)
                if kind := left_out_as(entry.name, os.path.basename(folder)):
                    self._left_out[file_uri(entry.path)] = kind
                elif entry.is_symlink():
                    self._links.append((entry.path, shown))
                else:
                    waiting.append((entry.path, shown))

    def _is_to_list(self, folder: str) -> bool:
        """Raises OSError; _SeenError if another way led to it already."""
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in self._seen:
            raise _SeenError("another way to a folder that is listed already")
        self._seen.add((status.st_dev, status.st_ino))
        return not is_run(folder)

    def _files(
        self, entries: Iterable[os.DirEntry[str]], relative: str, folders: list[os.DirEntry[str]]
    ) -> Iterator[Item]:
        """The files of a folder as they come, for it may hold a million; its folders are added to `folders`."""
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry)
            elif not is_ignored_file(entry.name):
                yield local_item(entry.path, _below(relative, entry))


class _SeenError(Exception):
    """A folder is listed already; the text says so."""


def _below(relative: str, entry: os.DirEntry[str]) -> str:
    return f"{relative}/{display_path(entry.name)}" if relative else display_path(entry.name)


def _problem(path: str, relative: str, problem: str) -> Item:
    return Item(relative, file_uri(path), problem=problem)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link loop
        return False
