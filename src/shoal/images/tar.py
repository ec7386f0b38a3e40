"""Tar files in WebDataset's layout as a source: members that share a name up to its first dot are one sample."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from shoal.errors import DecodeError, SourceError
from shoal.images.gate import Gate
from shoal.images.item import Item
from shoal.images.left_out import LeftOut, first_left_out, is_ignored_file
from shoal.images.listed import Listed, is_image_name
from shoal.images.location import valid_text
from shoal.images.members import GZIP_ENDINGS, open_unpacked
from shoal.images.storage import too_large
from shoal.spool import Spool

ENDINGS = (".tar", ".tar.gz", ".tgz")
LABEL_EXTENSIONS = ("cls", "txt")  # the first that a sample has
LONGEST_LABEL = 200  # bytes; a longer text is no class


@dataclass(frozen=True, slots=True)
class TarSource:
    """One tar file, or several as shards, in the order of their names."""

    identity: str
    name: str
    shards: tuple[tuple[str, str], ...]  # URI, and the prefix of its members' paths: "" for a single file
    spool: Spool = field(default_factory=Spool, compare=False, repr=False)

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every image in order of place; of other members those that belong to no image.

        Raises:
            SourceError: a file is no tar.
        """
        gate, found = Gate(self.spool), {} if left_out is None else left_out
        shards = (_Shard(gate, uri, prefix, found) for uri, prefix in self.shards)
        return Listed.of(item for shard in shards for item in shard.items()).with_distinct_paths()


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int
    label: str | None
    problem: str | None

    @property
    def key(self) -> str:
        folder, _, file = self.name.rpartition("/")
        return f"{folder}/{file.split('.')[0]}"

    @property
    def extension(self) -> str:
        return self.name.rpartition(".")[2].lower()


class _Shard:
    def __init__(self, gate: Gate, uri: str, prefix: str, left_out: LeftOut) -> None:
        self._gate, self._uri, self._prefix, self._left_out = gate, uri, prefix, left_out
        self._mtime = gate.modified(uri)
        self._broken: str | None = None

    def items(self) -> Iterator[Item]:
        members = list(self._members())
        images = [member for member in members if is_image_name(member.name)]
        keys = {member.key for member in images}
        labels = _labels(members)
        for member in members:
            if is_image_name(member.name) or member.key not in keys:
                yield self._item(member, labels.get(member.key))
        if self._broken is not None:
            name = self._uri.rpartition("/")[2]
            yield Item(valid_text(f"{self._prefix}{name}"), self._uri, None, self._mtime, None, self._broken)

    def _item(self, member: _Member, label: str | None) -> Item:
        uri = f"{self._uri}#offset={member.offset}&size={member.size}"
        shown = valid_text(f"{self._prefix}{member.name}")
        return Item(shown, uri, member.size, self._mtime, label, member.problem)

    def _members(self) -> Iterator[_Member]:
        """All members but folders and junk. A tar that breaks off gives what comes before."""
        last = ""
        try:
            with self._stream() as stream, _opened(stream) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it would remember every member
                    if not member.isdir() and not self._is_junk(member.name):
                        last = member.name
                        yield self._member(member, stream)
        except (DecodeError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
            if not last:
                raise SourceError(f"{valid_text(self._uri)} cannot be read as a tar file: {error}") from error
            self._broken = f"the tar file breaks off after {valid_text(last)}"

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        if not self._uri.lower().endswith(GZIP_ENDINGS):
            with self._gate.open(self._uri) as stream:
                yield stream
            return
        unpacked = open_unpacked(self._gate, self._uri)
        if unpacked is not None:
            with unpacked:
                yield unpacked
            return
        with self._gate.open(self._uri) as packed, gzip.GzipFile(fileobj=packed) as stream:
            yield cast(IO[bytes], stream)

    def _is_junk(self, path: str) -> bool:
        *folders, name = path.split("/")
        found = first_left_out(folders)
        if found is not None:
            self._left_out[valid_text("/".join([self._uri, *folders[: found[0]]]))] = found[1]
        return found is not None or is_ignored_file(name)

    def _member(self, member: tarfile.TarInfo, stream: IO[bytes]) -> _Member:
        name = member.name.removeprefix("./")
        problem = too_large(member.size)
        if not member.isreg() or member.issparse():
            problem = "not a regular file in the tar"
        is_label = name.rpartition(".")[2].lower() in LABEL_EXTENSIONS and 0 < member.size <= LONGEST_LABEL
        label = None
        if is_label and problem is None:
            stream.seek(member.offset_data)
            label = stream.read(member.size).decode("utf-8", "replace").strip() or None
        return _Member(name, member.offset_data, member.size, label, problem)


def _opened(stream: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r:", errors="surrogateescape")


def _labels(members: list[_Member]) -> dict[str, str]:
    """Labels by sample. Texts (`.txt`) count only if they repeat, as names of classes do and captions do not."""
    found: dict[str, dict[str, str]] = {extension: {} for extension in LABEL_EXTENSIONS}
    for member in members:
        if member.label is not None:
            found[member.extension][member.key] = member.label
    texts = found["txt"]
    if len(set(texts.values())) * 2 > len(texts):
        texts = {}
    return {**texts, **found["cls"]}
