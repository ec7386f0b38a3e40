"""Folders and files on this machine as a source."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shoal.errors import SourceError
from shoal.images.formats import IMAGE_EXTENSIONS
from shoal.images.item import Item, with_distinct_paths
from shoal.images.left_out import LeftOut, first_left_out, is_ignored_file, left_out_as
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

    def items(self, left_out: LeftOut | None = None) -> Iterator[Item]:
        """Every file, links followed, ordered by path; what is no image too, so that nothing is hidden.

        Left out are the junk of operating systems, folders as `left_out_as` tells, and Shoal's own runs.

        Raises:
            SourceError: the only root is a folder that cannot be listed.
        """
        walk = _Walk({} if left_out is None else left_out)
        for root in self.roots:
            relative = "" if root == self.base else os.path.relpath(root, self.base)
            if not walk.leaves_out(self.base, relative):
                walk.add(root, display_path(relative) if relative else "")
        if len(self.roots) == 1 and len(walk.items) == 1 and walk.items[0].path == "":
            raise SourceError(f"{self.identity} {walk.items[0].problem}; expected a folder that can be listed")
        items = sorted(set(walk.items), key=lambda item: (item.path, item.uri))  # a set: roots may overlap
        yield from with_distinct_paths(with_class_labels(items))


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


def with_class_labels(items: list[Item]) -> list[Item]:
    """Label items by folder if they are laid out as class/file, with two classes or more; otherwise as they are."""
    images = [path for path in map(PurePosixPath, (item.path for item in items)) if is_image_name(path.name)]
    classes = {path.parts[0] for path in images if len(path.parts) == 2}
    if len(classes) < 2 or any(len(path.parts) != 2 for path in images):
        return items
    return [
        dataclasses.replace(item, label=item.path.split("/")[0]) if item.path.count("/") == 1 else item
        for item in items
    ]


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1][1:].lower() in IMAGE_EXTENSIONS


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
        self.items: list[Item] = []
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

    def add(self, root: str, relative: str) -> None:
        if not os.path.isdir(root):
            self.items.append(local_item(root, relative))
            return
        self._descend(root, relative)
        while self._links:
            self._follow(*self._links.popleft())

    def _follow(self, link: str, relative: str) -> None:
        # Looked at only after all real folders, and then in order: which of two ways to a folder counts is certain.
        target, own_folder = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
        if own_folder == target or own_folder.startswith(target.rstrip(os.sep) + os.sep):
            self._problem(link, relative, "link loop (it leads back to a folder that it lies in)")
        else:
            self._descend(link, relative)

    def _descend(self, folder: str, relative: str) -> None:
        waiting = [(folder, relative)]
        while waiting:
            folder, relative = waiting.pop()
            for entry in self._entries(folder, relative):
                shown = f"{relative}/{display_path(entry.name)}" if relative else display_path(entry.name)
                if not _is_folder(entry):
                    if not is_ignored_file(entry.name):
                        self.items.append(local_item(entry.path, shown))
                elif kind := left_out_as(entry.name, os.path.basename(folder)):
                    self._left_out[file_uri(entry.path)] = kind
                elif entry.is_symlink():
                    self._links.append((entry.path, shown))
                else:
                    waiting.append((entry.path, shown))

    def _entries(self, folder: str, relative: str) -> list[os.DirEntry[str]]:
        """A folder's entries by name; none, and maybe an item that says why, if it is not to be listed."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self._seen:
                self._problem(folder, relative, "another way to a folder that is listed already")
                return []
            self._seen.add((status.st_dev, status.st_ino))
            if is_run(folder):
                return []
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self._problem(folder, relative, f"{UNREADABLE} (folder: {error.strerror or error})")
            return []

    def _problem(self, path: str, relative: str, problem: str) -> None:
        self.items.append(Item(relative, file_uri(path), problem=problem))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link loop
        return False
