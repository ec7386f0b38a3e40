"""Folders that are not looked into: thumbnails, bins, snapshots and caches that systems make, and hidden folders.

They hold copies, smaller or older, of the images beside them. What is left out is named, by its kind and with a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

HIDDEN: Final = "hidden"  # the kind of a folder whose name begins with a dot and says no more
KINDS_TOLD: Final = 5
FACT: Final = "left_out"  # what the index stage's facts call how many there are of each kind

LeftOut = dict[str, str]  # a folder's URI → its kind

# As those who make them write them. Names that people give their own folders too (thumbs, cache, trash) are not here,
# nor is every name that begins with @: programs that load pictures down name folders so after their authors.
_NAMES: Final = (
    # Synology; QNAP; ASUSTOR and Samba; Buffalo; Western Digital
    *("@eaDir", "#recycle", "#snapshot", "#Trash", "@tmp", "@sharebin", "@SynoResource"),
    *("@Recycle", "@Recently-Snapshot", "@Transcode", ".@__thumb", ".@upload_cache"),
    *("Network Recycle Bin", "Network Recycle Bin *", ".recycle", ".webaxs*", ".wdmc"),
    # Windows; macOS, and what unpacks its archives; Linux; snapshots of NetApp, ZFS and Btrfs
    *("$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information"),
    *("__MACOSX", ".AppleDouble", ".Trashes", ".TemporaryItems", "Network Trash Folder", "Temporary Items"),
    *(".thumbnails", ".thumbnail", ".thumbs", ".Trash-*", ".Trash", "lost+found"),
    *("~snapshot", ".snapshot", ".snapshots", ".zfs"),
    # Lightroom; Picasa; iTunes; digiKam; Piwigo; cameras of Sony; Jellyfin; Nextcloud; Syncthing; Dropbox
    *("*.lrdata", ".picasaoriginals", "iPod Photo Cache", ".dtrash", "pwg_representative", "THMBNL", "*.trickplay"),
    *("appdata_oc*", "files_trashbin", "files_versions", ".stversions", ".dropbox.cache"),
    # programmers
    *(".git", "node_modules", "__pycache__"),
)
_EXACT: Final = {name.lower(): name for name in _NAMES if "*" not in name}
_PATTERNS: Final = tuple((name.lower(), name) for name in _NAMES if "*" in name)

# Folders that only mean this inside a library of a program: its derivatives and caches. Originals, Masters and the like
# are looked into.
_LIBRARIES: Final = (
    (
        ("*.photoslibrary", "*.photolibrary", "*.migratedphotolibrary", "*.aplibrary", "iphoto library"),
        frozenset(
            (
                *("resources", "derivatives", "thumbnails", "previews", "database", "private", "internal", "scopes"),
                *("data", "data.noindex", "modelresources", "proxies", "cache", "caches"),
            )
        ),
    ),
    (("captureone", "*.cocatalog"), frozenset(("cache", "thumbnails", "proxies"))),
)
_JUNK: Final = frozenset(
    (
        *(".ds_store", ".localized", "icon\r", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *(".picasa.ini", "picasa.ini", ".nomedia"),
    )
)


def left_out_as(name: str, parent: str = "") -> str | None:
    """The kind of a folder that is not looked into, or None if it is. `parent` is the name of the folder it lies in."""
    lowered = name.lower()
    if lowered in _EXACT:
        return _EXACT[lowered]
    for pattern, kind in _PATTERNS:
        if fnmatchcase(lowered, pattern):
            return kind
    within = parent.lower()
    for libraries, folders in _LIBRARIES:
        if lowered in folders and any(fnmatchcase(within, library) for library in libraries):
            return f"{name} of {_library(parent)}"
    return HIDDEN if name.startswith(".") and name not in (".", "..") else None


def first_left_out(folders: Sequence[str], parent: str = "") -> tuple[int, str] | None:
    """How many of `folders`, one in another, lead to the first that is not looked into, and its kind."""
    for number, name in enumerate(folders):
        kind = left_out_as(name, folders[number - 1] if number else parent)
        if kind is not None:
            return number + 1, kind
    return None


def is_ignored_file(name: str) -> bool:
    """True for what systems leave in every folder, for the resource forks of macOS (`._a.jpg`), and for Shoal's own.

    Those are what an export writes down (`.shoal-export.jsonl`), and files that a killed one left half-written.
    """
    return name.startswith(("._", ".shoal-")) or name.endswith(".shoal-part") or name.lower() in _JUNK


def counted(left_out: LeftOut) -> dict[str, int]:
    """How many folders there are of each kind; the most frequent first."""
    counts = Counter(left_out.values())
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def told(kinds: Mapping[str, int]) -> str:
    """`counted` in words: `22 folders not looked into: 20 @eaDir, 1 .thumbnails, 1 hidden`; empty if there are none."""
    if not kinds:
        return ""
    total = sum(kinds.values())
    words = [f"{count:,} {kind}" for kind, count in list(kinds.items())[:KINDS_TOLD]]
    if len(kinds) > KINDS_TOLD:
        words.append(f"{len(kinds) - KINDS_TOLD} more kinds")
    return f"{total:,} folder{'s' * (total != 1)} not looked into: {', '.join(words)}"


def _library(name: str) -> str:
    """A library by its kind, so that many of them are one kind: `Berlin.photoslibrary` is `*.photoslibrary`."""
    return f"*.{name.rpartition('.')[2]}".lower() if "." in name else name
