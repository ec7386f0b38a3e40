"""Names that every file system takes: of clusters, of exported files, without two of them meaning the same file."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

MAX_NAME_BYTES = 255  # of one name, on Linux (bytes), macOS and Windows (UTF-16 units, never more than UTF-8 bytes)
MAX_EXTENSION_BYTES = 32  # what is longer is no extension
# Lone surrogates have no UTF-8; marks that turn the direction of writing make a name look like another.
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]')
RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])", re.IGNORECASE)


def cluster_name(cluster: int, width: int = 1) -> str:
    """What a cluster is called in an export, its number padded with zeros to `width` digits."""
    return f"cluster_{cluster:0{width}d}"


def cluster_width(highest: int) -> int:
    """Digits for the names of clusters up to `highest`, so that names sort as numbers do; at least three."""
    return max(3, len(str(highest)))


def told_apart(names: Mapping[int, str], tags: Mapping[int, str]) -> dict[int, str]:
    """What clusters are called, no two the same: after a name that is another's too comes its tag in brackets.

    Args:
        names: by cluster; those without a tag are distinct.
        tags: by cluster whose name a person gave, who may have given it to several, or one that another has by its
            number; distinct.
    """
    found = dict(names)
    while len(uses := Counter(found.values())) < len(found):
        found = {
            number: f"{name} ({tags[number]})" if uses[name] > 1 and number in tags else name
            for number, name in found.items()
        }
    return found


def safe_name(name: str, suffix: str = "") -> str:
    """`name` as Windows, macOS and Linux all take it, with `suffix` before its extension.

    Forbidden characters become `_`; trailing dots and spaces, which Windows drops, go; a device name of Windows
    (`NUL.jpg`) gets a leading `_`; the stem is cut so that the whole has at most 255 bytes and keeps its extension.
    """
    stem, extension = _split_extension(FORBIDDEN.sub("_", name).rstrip(". "))
    room = MAX_NAME_BYTES - len((suffix + extension).encode())
    fitted = (_cut(stem, room) + suffix + extension).rstrip(". ")
    if not fitted or RESERVED.fullmatch(fitted.split(".")[0].rstrip(" ")):
        return safe_name(f"_{name}", suffix)
    return fitted


def same_file_key(name: str) -> str:
    """Equal for two names that a file system ignoring case or Unicode normalisation may take for one.

    The caseless matching of the Unicode Standard (definition D145), with upper-casing before as in NTFS.
    """
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).upper().casefold())


def unique_names(names: Sequence[str]) -> list[str]:
    """Safe names for the files of one folder, in order, no two the same on any file system.

    The first with a name keeps it; later ones get `-2`, `-3`, … before the extension, passing over whatever another
    file of the folder is called by itself. The same names in the same order give the same result.
    """
    naturals = [safe_name(name) for name in names]
    taken = {same_file_key(name) for name in naturals}
    used: set[str] = set()
    next_number: defaultdict[str, int] = defaultdict(lambda: 2)
    unique = []
    for name, natural in zip(names, naturals, strict=True):
        key = same_file_key(natural)
        chosen = natural
        if key in used:
            while same_file_key(chosen) in taken:
                chosen = safe_name(name, f"-{next_number[key]}")
                next_number[key] += 1
            taken.add(same_file_key(chosen))
        used.add(key)
        unique.append(chosen)
    return unique


def _split_extension(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > MAX_EXTENSION_BYTES:
        return name, ""
    return stem, dot + extension


def _cut(stem: str, room: int) -> str:
    # An incomplete character at the cut is dropped.
    return stem.encode()[:room].decode(errors="ignore")
