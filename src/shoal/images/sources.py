"""From what a person typed to a source: folder, files, pattern, manifest, table, tar, or storage elsewhere."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence

from shoal.errors import DecodeError, SourceError
from shoal.images import manifest, table, tar
from shoal.images.folder import FolderSource, is_run
from shoal.images.formats import HEAD_BYTES, sniff, why_not
from shoal.images.gate import PROTOCOLS, Gate, canonical
from shoal.images.item import Item
from shoal.images.left_out import left_out_as
from shoal.images.listed import Source, is_image_name
from shoal.images.location import display_path, file_uri, is_uri, local_path
from shoal.images.manifest import ManifestSource
from shoal.images.remote import Listing, RemoteSource, list_remote, relative_path
from shoal.images.storage import is_local, look_at
from shoal.images.table import TableSource
from shoal.images.tar import TarSource
from shoal.spool import Spool

__all__ = ["Item", "Source", "named_by", "open_source"]

ZIP_ENDING = ".zip"


def open_source(spec: Sequence[str]) -> Source:
    """Open what `spec` names: one source, or several files and folders.

    Raises:
        SourceError: it does not exist, is of no known kind, or cannot be reached.
    """
    specs = [text for text in spec if text.strip()]
    if not specs:
        raise SourceError(
            "SOURCE is empty; expected a folder, files, a glob, a manifest, a table, a zip, a tar or a URI"
        )
    spool = Spool()
    specs = [_canonical(text) if is_uri(text) else text for text in specs]
    remote = [text for text in specs if is_uri(text) and not is_local(text)]
    if not remote:
        return _open_local([local_path(text) if is_uri(text) else text for text in specs], spool)
    if len(remote) < len(specs):
        raise SourceError(
            f"SOURCE mixes {remote[0]} with local files; put both into a manifest (a .txt with a path on each line)"
        )
    return _open_remote(remote, spool)


def named_by(spec: Sequence[str]) -> tuple[str, ...]:
    """What several words name, in their order, as URIs, each once; patterns of this machine name what they match.

    Nothing where there is one word: what that names has an order of its own.

    Raises:
        SourceError: as `open_source`.
    """
    words = [text for text in spec if text.strip()]
    if len(words) < 2:
        return ()
    named: list[str] = []
    for word in words:
        uri = _canonical(word) if is_uri(word) else None
        if uri is not None and not is_local(uri):
            named.append(uri)
        else:
            named += map(file_uri, _expanded(word if uri is None else local_path(uri)))
    return tuple(dict.fromkeys(named))


def _canonical(uri: str) -> str:
    try:
        return canonical(uri)
    except DecodeError as error:
        known = ", ".join(PROTOCOLS)
        raise SourceError(
            f"SOURCE has value {uri!r}: {error}; expected one of {known}, or zip:// or tar:// in one"
        ) from error


# -- on this machine -------------------------------------------------------------------------------------------------


def _open_local(specs: list[str], spool: Spool) -> Source:
    paths = [path for text in specs for path in _expanded(text)]
    if len(specs) > 1:
        return _open_several(paths, _common_folder(paths), " (several files)")
    pattern = os.path.expanduser(specs[0])
    if os.path.lexists(pattern):
        return _open_folder(pattern, spool) if os.path.isdir(pattern) else _open_file(pattern, spool)
    base = os.path.abspath(_fixed_part(pattern))
    return _open_several(paths, base, display_path(os.sep + os.path.relpath(os.path.abspath(pattern), base)))


def _expanded(text: str) -> list[str]:
    path = os.path.expanduser(text)
    return [path] if os.path.lexists(path) else _glob(path)


def _open_folder(folder: str, spool: Spool) -> Source:
    if is_run(folder):
        raise SourceError(f"{display_path(folder)} is a Shoal run; expected a source of images")
    shards = _shards_in(folder, spool)
    if shards:
        return _open_shards(shards, folder, _identity(folder), _name(folder))
    return FolderSource(_identity(folder), _name(folder), os.path.abspath(folder), (os.path.abspath(folder),))


def _open_file(path: str, spool: Spool) -> Source:
    identity, name = _identity(path), _name(path)
    if path.lower().endswith(ZIP_ENDING):
        return _open_zip(identity, name, file_uri(path), spool)
    if path.lower().endswith(tar.ENDINGS):
        return TarSource(identity, name, ((file_uri(path), ""),), spool)
    if path.lower().endswith(".parquet") and table.holds_image_bytes(Gate(spool), file_uri(path)):
        return TableSource(identity, name, ((file_uri(path), ""),), spool)
    if path.lower().endswith((*manifest.ENDINGS, ".parquet")):
        return ManifestSource(identity, name, file_uri(path), spool)
    _require_image(path, spool)
    absolute = os.path.abspath(path)
    return FolderSource(identity, name, os.path.dirname(absolute), (absolute,))


def _open_several(paths: list[str], base: str, suffix: str) -> Source:
    """Files and folders given one by one or by a pattern: shards of a table or a tar, or images."""
    identity, name = _identity(base) + suffix, _name(base)
    if all(path.lower().endswith((".parquet", *tar.ENDINGS)) for path in paths):
        return _open_shards(sorted(paths, key=os.fsencode), base, identity, name)
    return FolderSource(identity, name, base, tuple(dict.fromkeys(map(os.path.abspath, paths))))


def _open_shards(shards: list[str], base: str, identity: str, name: str) -> Source:
    tars = [path for path in shards if path.lower().endswith(tar.ENDINGS)]
    if tars and len(tars) < len(shards):
        raise SourceError(f"{identity} mixes Parquet and tar files; expected shards of one kind")
    named = tuple((file_uri(path), _prefix(path, base)) for path in shards)
    return TarSource(identity, name, named) if tars else TableSource(identity, name, named)


def _shards_in(folder: str, spool: Spool) -> list[str]:
    """Parquet files with image bytes, or tar files, of a folder that holds no images itself; else nothing."""
    tables: list[str] = []
    tars: list[str] = []
    for parent, folders, files in os.walk(folder):
        within = os.path.basename(parent)
        folders[:] = sorted(
            name for name in folders if left_out_as(name, within) is None and not is_run(os.path.join(parent, name))
        )
        for name in sorted(files):
            if is_image_name(name):
                return []
            kind = tables if name.lower().endswith(".parquet") else tars if name.lower().endswith(tar.ENDINGS) else None
            if kind is not None and not name.startswith("._"):
                kind.append(os.path.join(parent, name))
    if tables and table.holds_image_bytes(Gate(spool), file_uri(tables[0])):
        return sorted(tables, key=os.fsencode)
    return sorted(tars, key=os.fsencode)


def _require_image(path: str, spool: Spool) -> None:
    shown = display_path(path)
    _, problem = look_at(path)
    if problem is not None:
        raise SourceError(f"{shown} cannot be a source: {problem}")
    try:
        with Gate(spool).open(file_uri(path)) as file:
            head = file.read(HEAD_BYTES)
    except DecodeError as error:
        raise SourceError(f"{shown} cannot be a source: {error}") from error
    except OSError as error:
        raise SourceError(f"{shown} cannot be read: {error.strerror}") from error
    if sniff(head) is None:
        raise SourceError(
            f"{shown} cannot be a source: {why_not(head)}; expected an image, a folder, a manifest "
            "(.txt, .csv, .tsv, .parquet), a Parquet table of images, a zip, or a tar"
        )


def _glob(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        raise SourceError(f"{display_path(pattern)} does not exist")
    found = sorted(glob.glob(pattern, recursive=True), key=os.fsencode)
    if not found:
        raise SourceError(f"{display_path(pattern)} matches no file")
    return found


def _fixed_part(pattern: str) -> str:
    """The folder before the first part of a pattern that has a wildcard."""
    parent = os.path.dirname(pattern)
    while glob.has_magic(parent):
        parent = os.path.dirname(parent)
    return parent or os.curdir


def _common_folder(paths: list[str]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    except ValueError as error:  # on Windows, two drives
        raise SourceError(f"SOURCE has files on several drives; expected one ({error})") from error


def _identity(path: str) -> str:
    return display_path(os.path.normcase(os.path.realpath(path)))


def _name(path: str) -> str:
    name = display_path(os.path.basename(os.path.abspath(path)))
    return name if os.path.isdir(path) else _stem(name)


def _stem(name: str) -> str:
    lowered = name.lower()
    ending = next((ending for ending in (".tar.gz",) if lowered.endswith(ending)), os.path.splitext(lowered)[1])
    return name[: len(name) - len(ending)] or "images"


def _prefix(shard: str, base: str) -> str:
    relative = display_path(os.path.relpath(shard, base))
    return _stem(relative) + "/"


# -- elsewhere -------------------------------------------------------------------------------------------------------


def _open_remote(specs: list[str], spool: Spool) -> Source:
    gate = Gate(spool)
    listings = [list_remote(gate, uri) for uri in specs]
    files = [file for listing in listings for file in listing.files]
    single = listings[0].files[0].uri if len(specs) == 1 and listings[0].is_single else None
    if len(specs) == 1:
        base, identity = listings[0].base, specs[0].rstrip("/")
        name = _last_part(base if glob.has_magic(identity) else identity)
    else:
        base = _common_uri([listing.base for listing in listings])
        identity, name = f"{base} (several files)", _last_part(base)
    if single is not None:
        name = _stem(name)
        if single.lower().endswith(ZIP_ENDING):
            return _open_zip(identity, name, single, spool)
        if _is_remote_manifest(single, spool):
            return ManifestSource(identity, name, single, spool)
    if not any(is_image_name(file.uri) for file in files):
        for endings, source in ((tar.ENDINGS, TarSource), ((".parquet",), TableSource)):
            uris = [file.uri for file in files if file.uri.lower().endswith(endings)]
            if uris:
                return source(identity, name, tuple((uri, _remote_prefix(uri, base, single)) for uri in uris), spool)
    return _remote_source(identity, name, base, listings, spool)


def _open_zip(identity: str, name: str, uri: str, spool: Spool) -> Source:
    listing = list_remote(Gate(spool), f"zip://::{uri}")
    return _remote_source(identity, name, listing.base, [listing], spool)


def _remote_source(identity: str, name: str, base: str, listings: list[Listing], spool: Spool) -> Source:
    named = tuple((relative_path(file.uri, base), file) for listing in listings for file in listing.files)
    left_out = tuple(pair for listing in listings for pair in listing.left_out.items())
    return RemoteSource(identity, name, named, left_out, spool)


def _is_remote_manifest(uri: str, spool: Spool) -> bool:
    lowered = uri.lower()
    return lowered.endswith(manifest.ENDINGS) or (
        lowered.endswith(".parquet") and not table.holds_image_bytes(Gate(spool), uri)
    )


def _remote_prefix(uri: str, base: str, single: str | None) -> str:
    return "" if uri == single else _stem(relative_path(uri, base)) + "/"


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or "images"


def _common_uri(bases: list[str]) -> str:
    parts = zip(*(base.split("/") for base in bases), strict=False)
    return "/".join(same[0] for same in itertools.takewhile(lambda part: len(set(part)) == 1, parts))
