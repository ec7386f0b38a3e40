"""What a path in a manifest means: as it is written, and if nothing is there, as other programs would have written it.

Windows writes backslashes and its own encodings, macOS takes accents apart (Unicode's NFD), spreadsheets and shells add
quotes and blanks. Each reading is tried on the disk; none is guessed where there is no file.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from shoal.images.folder import local_item
from shoal.images.item import Item
from shoal.images.location import display_path, local_path
from shoal.images.storage import MISSING

ENCODINGS: Final = ("cp1252", "cp850")  # of text that is not UTF-8: Windows in Western Europe, and its command line
LONGEST_PATH: Final = 4096  # bytes; Linux opens none that is longer

_QUOTES: Final = (('"', '"'), ("'", "'"), ("“", "”"))
# Marks that cannot be seen, which Windows puts before paths copied from its dialogs, and those of joined files.
_BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\u200e\u200f\u202a\u202c\ufeff\x1a"
_DRIVE: Final = re.compile(r"/{0,2}[A-Za-z]:(?:[\\/]|$)")


class PathFinder:
    """Finds the files of one manifest, whose paths are relative to `folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._names: dict[str, dict[str, str]] = {}  # folder → composed name → name as it is on the disk

    def item(self, written: str, label: str | None = None) -> Item:
        """The item of a local path or `file:` URI, as the first reading of it under which there is something."""
        tried: dict[str, None] = {}
        for path in _readings(written):
            if path not in tried:
                tried[path] = None
                item = self._look(path, label)
                if item.problem != MISSING:
                    return item
        for path in tried:
            found = self._in_another_form(path)
            if found is not None:
                return self._look(found, label)
        *_, plainest = _spellings(decoded(written))
        item, why = self._look(plainest, label), _elsewhere(plainest)
        return dataclasses.replace(item, problem=f"{MISSING} ({why})") if why else item

    def _look(self, path: str, label: str | None) -> Item:
        return local_item(os.path.join(self._folder, path), display_path(os.path.normpath(path)), label)

    def _in_another_form(self, path: str) -> str | None:
        """The path with each name in the Unicode form that it has on the disk; None if that is nowhere."""
        if path.isascii() or len(path) > LONGEST_PATH:
            return None
        drive, names = os.path.splitdrive(os.path.normpath(path))
        found = drive + os.sep if names.startswith(os.sep) else drive
        for name in names.strip(os.sep).split(os.sep):
            here = os.path.join(self._folder, found)
            actual = name if os.path.lexists(os.path.join(here, name)) else self._listed(here).get(_composed(name))
            if actual is None:
                return None
            found = os.path.join(found, actual)
        return found

    def _listed(self, folder: str) -> dict[str, str]:
        if folder not in self._names:
            try:
                names = sorted(os.listdir(folder))
            except (OSError, ValueError):
                names = []
            self._names[folder] = {_composed(name): name for name in names}
        return self._names[folder]


def tidied(written: str) -> str:
    """A path or URI without the blanks, quotes and invisible marks around it."""
    text = written.strip(_BLANKS)
    for opening, closing in _QUOTES:
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing):
            return text[1:-1].strip(_BLANKS)
    return text


def decoded(text: str) -> str:
    """Text whose bytes are not UTF-8 (lone surrogates stand for them) as Windows wrote it."""
    return next(_decoded(text), text)


def comparable(path: str) -> str:
    """What two spellings of one relative path have in common, for those who cannot look on the disk."""
    return _composed(posixpath.normpath(tidied(decoded(path)).replace("\\", "/")))


def is_absolute(path: str) -> bool:
    """True also for paths of Windows, wherever this is."""
    return os.path.isabs(path) or path.startswith("\\\\") or _DRIVE.match(path) is not None


def is_file_uri(text: str) -> bool:
    return text[:5].lower() == "file:"


def _readings(written: str) -> Iterator[str]:
    """What a path may mean, as it is written first, without anything that other programs add last."""
    for text in (written, *_decoded(written)):
        yield from _spellings(text)


def _spellings(text: str) -> Iterator[str]:
    plain = tidied(text)
    if is_file_uri(plain):
        yield local_path("file:" + plain[5:])
        yield re.sub(r"^//(?:localhost)?(?=/)", "", plain[5:])  # not percent-encoded, as it should be
        plain = local_path("file:" + plain[5:])
    else:
        yield _at_home(text)
        yield _at_home(plain)
    if os.sep == "/":
        yield _at_home(plain.replace("\\", "/"))


def _decoded(text: str) -> Iterator[str]:
    """A text that is not UTF-8 in each of ENCODINGS."""
    if any("\udc80" <= character <= "\udcff" for character in text):
        raw = text.encode("utf-8", "surrogateescape")
        for encoding in ENCODINGS:
            yield raw.decode(encoding, "replace")


def _at_home(path: str) -> str:
    try:
        return os.path.expanduser(path)
    except ValueError:  # a null byte in the name of a user
        return path


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _elsewhere(path: str) -> str:
    """Why a path cannot be on this machine, where that can be seen."""
    if os.name == "nt":
        return ""
    if _DRIVE.match(path):
        return "a drive of Windows"
    return "on another machine" if path.startswith("//") else ""
