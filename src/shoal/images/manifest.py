"""Lists of images as a source: text with a path on each line, or a table with a column of paths or URIs."""

from __future__ import annotations

import codecs
import csv
import io
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from shoal import cells, parquet
from shoal.errors import DecodeError, SourceError
from shoal.images import web
from shoal.images.gate import Gate, canonical, source_errors
from shoal.images.item import Item
from shoal.images.left_out import LeftOut
from shoal.images.listed import Listed, Source, is_image_name
from shoal.images.location import display_path, is_uri, local_path, valid_text
from shoal.images.storage import LARGEST_FILE, MISSING, is_local, too_large
from shoal.images.written import PathFinder, decoded, is_absolute, is_file_uri, tidied
from shoal.spool import Spool

PATH_COLUMNS = (
    *("path", "uri", "url", "file", "filename", "file_name", "filepath", "file_path"),
    *("image_path", "img_path", "image_file", "image_url", "image"),
)
LABEL_COLUMN = "label"
DELIMITERS = ",;\t"  # spreadsheets write what is usual in their country
ENDINGS = (".txt", ".csv", ".tsv")
_SEPARATOR = re.compile(r'"?sep=(?P<delimiter>[,;\t|])"?(?:\r\n|\r|\n)')  # a first line that Excel heeds and writes
AT_A_TIME = 8192  # rows of a Parquet file
MOST_TOLD = 20  # columns named in an error

Entry = tuple[str, str | None]  # what is written, and its label


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A manifest; its paths are relative to the folder that it lies in, and `path` is what it says."""

    identity: str
    name: str
    uri: str
    spool: Spool = field(default_factory=Spool, compare=False, repr=False)

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every entry in the manifest's order, those that are missing too.

        Raises:
            SourceError: the manifest cannot be read, or has no column of paths.
        """
        finder = PathFinder(self.folder if is_local(self.uri) else os.sep)
        remote = None if is_local(self.uri) else self.folder
        entries = _entries(Gate(self.spool), self.uri)
        found = ((written, _item(written, _label(label), finder, remote)) for written, label in entries)
        if self.uri.lower().endswith(".txt"):
            found = ((written, item) for written, item in found if not _is_comment(written, item))
        return Listed.of(item for _, item in found).with_distinct_paths()

    @property
    def folder(self) -> str:
        """Where relative paths lead from: a path on this machine, or a URI."""
        return os.path.dirname(local_path(self.uri)) if is_local(self.uri) else self.uri.rpartition("/")[0]


def looked_for(source: Source, path: str | None) -> str:
    """Words that name an entry of a manifest that is not there, and where it was looked for; "" for other sources."""
    if path is None or not isinstance(source, ManifestSource):
        return ""
    if is_uri(path) or is_absolute(path):
        return f"; the first is {path}"
    return f"; the first, {path}, was looked for in {display_path(source.folder)}"


def table_rows(data: bytes) -> Iterator[list[str]]:
    """The rows of a table in text, its header first, that are not empty; UTF-8, or UTF-16 with its mark.

    Raises:
        csv.Error: quotes that do not fit.
    """
    text = _text(data)
    told = _SEPARATOR.match(text)
    rows = _csv_rows(text[told.end() :], told["delimiter"]) if told else _csv_rows(text, _delimiter(text))
    return cells.rows_as_written(row for row in rows if row)


def path_column(names: Sequence[str]) -> int | None:
    """The place of the first of PATH_COLUMNS among column names, whatever their case."""
    lowered = [name.strip().lower() for name in names]
    return next((lowered.index(name) for name in PATH_COLUMNS if name in lowered), None)


def _item(written: str, label: str | None, finder: PathFinder, remote: str | None) -> Item:
    """The item of an entry. `remote` is the folder of a manifest that lies elsewhere."""
    plain = tidied(written)
    if is_uri(plain):
        return _item_of_uri(valid_text(plain), label, finder, remote)
    if remote is None or is_file_uri(plain) or posixpath.isabs(plain):
        return finder.item(written, label)
    return _remote_item(decoded(plain).replace("\\", "/"), label, remote)


def _item_of_uri(written: str, label: str | None, finder: PathFinder, remote: str | None) -> Item:
    try:
        uri = canonical(written)
    except DecodeError as error:
        return Item(written, written, label=label, problem=str(error))
    if is_local(uri):
        return finder.item(uri, label)
    is_led_back = remote is not None and web.is_own_address(uri) and not web.is_own_address(remote)
    problem = "an address of this machine, in a manifest from elsewhere" if is_led_back else None
    return Item(written, uri, label=label, problem=problem)


def _remote_item(path: str, label: str | None, base: str) -> Item:
    """A relative path of a manifest that lies elsewhere leads from there."""
    protocol, _, folder = base.partition("://")
    path = valid_text(posixpath.normpath(path))
    return Item(path, f"{protocol}://{posixpath.normpath(posixpath.join(folder, path))}", label=label)


def _is_comment(written: str, item: Item) -> bool:
    """True for a line of a text that begins with # and is not the name of a file here."""
    return tidied(written).startswith("#") and (not is_local(item.uri) or item.problem == MISSING)


def _label(label: str | None) -> str | None:
    return valid_text(decoded(str(label))) if label not in (None, "") else None


def _entries(gate: Gate, uri: str) -> Iterator[Entry]:
    file = local_path(uri) if is_local(uri) else uri
    ending = os.path.splitext(file)[1].lower()
    with source_errors(display_path(file), "cannot be read as a manifest"), gate.open(uri) as stream:
        if ending == ".parquet":
            yield from _parquet_entries(file, stream)
            return
        data = stream.read(LARGEST_FILE + 1)
        problem = too_large(len(data))
        if problem is not None:
            raise DecodeError(problem)
    if ending == ".txt":
        lines = (line.removesuffix("\n") for line in io.StringIO(_text(data), newline=None))  # however they end
        yield from ((line, None) for line in lines if tidied(line))
    else:
        yield from _csv_entries(file, data)


def _text(data: bytes) -> str:
    """A text without its mark, with lone surrogates for bytes that are not UTF-8: only the disk tells what they are.

    Only UTF-16 with a mark is told apart: PowerShell and Excel write it.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _csv_entries(file: str, data: bytes) -> Iterator[Entry]:
    try:
        rows = table_rows(data)
        column, label = _columns(file, next(rows, []))
        for row in rows:
            if row[column:] and tidied(row[column]):
                yield row[column], row[label] if label is not None and label < len(row) else None
    except csv.Error as error:
        raise SourceError(f"{display_path(file)} is not readable as a table: {error}") from error


def _delimiter(text: str) -> str:
    """The first of DELIMITERS that makes a column of paths of the first row."""
    heads = ((delimiter, next(_csv_rows(text, delimiter), [])) for delimiter in DELIMITERS)
    return next((delimiter for delimiter, names in heads if path_column(names) is not None), DELIMITERS[0])


def _csv_rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _parquet_entries(file: str, stream: IO[bytes]) -> Iterator[Entry]:
    with parquet.opened(stream) as table:
        names = table.schema_arrow.names
        column, label = _columns(file, names)
        wanted = [names[column]] + ([names[label]] if label is not None else [])
        for batch in parquet.batches(table, AT_A_TIME, wanted):
            paths: list[Any] = batch.column(names[column]).to_pylist()
            labels: list[Any] = batch.column(names[label]).to_pylist() if label is not None else [None] * len(paths)
            for path, value in zip(paths, labels, strict=True):
                if path is not None:
                    yield str(path), None if value is None else str(value)


def _told(names: Sequence[str]) -> str:
    """Names of columns for an error: of what is no table, a line may be long, and hold anything."""
    few = [" ".join(valid_text(name).split())[:40] for name in names[:MOST_TOLD]]
    return ", ".join(few) + (f" and {len(names) - MOST_TOLD:,} more" if len(names) > MOST_TOLD else "")


def _columns(file: str, names: Sequence[str]) -> tuple[int, int | None]:
    column = path_column(names)
    if not names:
        raise SourceError(f"{display_path(file)} is empty; expected a column called {', '.join(PATH_COLUMNS)}")
    if column is None:
        is_list = any(map(is_image_name, names))
        raise SourceError(
            f"{display_path(file)} has the columns {_told(names)}; "
            f"expected one called {', '.join(PATH_COLUMNS)}"
            + ("; a list without a line of names belongs into a .txt" if is_list else "")
        )
    lowered = [name.strip().lower() for name in names]
    return column, lowered.index(LABEL_COLUMN) if LABEL_COLUMN in lowered else None
