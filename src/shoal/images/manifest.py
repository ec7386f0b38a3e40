"""Lists of images as a source: text with a path on each line, or a table with a column of paths or URIs."""

from __future__ import annotations

import codecs
import csv
import io
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow.parquet as pq

from shoal import cells
from shoal.errors import ShoalError, SourceError
from shoal.images.folder import local_item
from shoal.images.item import Item, with_distinct_paths
from shoal.images.location import display_path, is_uri, local_path, valid_text
from shoal.images.storage import is_local, open_seekable

PATH_COLUMNS = (
    *("path", "uri", "url", "file", "filename", "file_name", "filepath", "file_path"),
    *("image_path", "img_path", "image_file", "image_url", "image"),
)
LABEL_COLUMN = "label"
DELIMITERS = ",;\t"  # spreadsheets write what is usual in their country
ENDINGS = (".txt", ".csv", ".tsv")
MOST_TOLD = 20  # columns named in an error

Entry = tuple[str, str | None]  # what is written, and its label


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A manifest; its paths are relative to the folder that it lies in, and `path` is what it says."""

    identity: str
    name: str
    uri: str

    def items(self) -> Iterator[Item]:
        """Every entry in the manifest's order, those that are missing too.

        Raises:
            SourceError: the manifest cannot be read, or has no column of paths.
        """
        entries = _entries(self.uri)
        if is_local(self.uri):
            folder = os.path.dirname(local_path(self.uri))
            yield from with_distinct_paths(_item(written, label, folder) for written, label in entries)
        else:
            base = self.uri.rpartition("/")[0]
            yield from with_distinct_paths(_remote_item(written, label, base) for written, label in entries)


def table_rows(data: bytes) -> list[list[str]]:
    """The rows of a table in text, its header first, that are not empty; UTF-8, or UTF-16 with its mark.

    Raises:
        csv.Error: quotes that do not fit.
    """
    text = _utf8(data).decode("utf-8", "surrogateescape")
    return cells.rows_as_written([row for row in _csv_rows(text, _delimiter(text)) if row])


def path_column(names: Sequence[str]) -> int | None:
    """The place of the first of PATH_COLUMNS among column names, whatever their case."""
    lowered = [name.strip().lower() for name in names]
    return next((lowered.index(name) for name in PATH_COLUMNS if name in lowered), None)


def _item(written: str, label: str | None, folder: str) -> Item:
    if is_uri(written) and not is_local(written):
        return Item(valid_text(written), valid_text(written), label=_label(label))
    path = local_path(written) if is_local(written) else os.path.expanduser(written)
    return local_item(os.path.join(folder, path), display_path(os.path.normpath(path)), _label(label))


def _remote_item(written: str, label: str | None, base: str) -> Item:
    """An entry of a manifest that lies elsewhere: relative paths lead from there, all others are what they say."""
    if is_uri(written) or posixpath.isabs(written):
        return _item(written, label, os.sep)
    protocol, _, folder = base.partition("://")
    path = valid_text(posixpath.normpath(written))
    return Item(path, f"{protocol}://{posixpath.normpath(posixpath.join(folder, path))}", label=_label(label))


def _label(label: str | None) -> str | None:
    return None if label in (None, "") else valid_text(str(label))


def _entries(uri: str) -> list[Entry]:
    file = local_path(uri) if is_local(uri) else uri
    ending = os.path.splitext(file)[1].lower()
    try:
        with open_seekable(uri) as stream:
            if ending == ".parquet":
                return _parquet_entries(file, stream)
            data = stream.read()
    except ShoalError:
        raise
    except Exception as error:  # network filesystems raise what they like
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(f"{display_path(file)} cannot be read as a manifest: {text}") from error
    if ending == ".txt":
        lines = (os.fsdecode(line.removesuffix(b"\r")) for line in _utf8(data).split(b"\n"))
        return [(line, None) for line in lines if line.strip()]
    return _csv_entries(file, data)


def _utf8(data: bytes) -> bytes:
    """A text's bytes in UTF-8 without a mark. Only UTF-16 with a mark is told apart: PowerShell and Excel write it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _csv_entries(file: str, data: bytes) -> list[Entry]:
    try:
        rows = table_rows(data)
    except csv.Error as error:
        raise SourceError(f"{display_path(file)} is not readable as a table: {error}") from error
    names = rows[0] if rows else []
    column, label = _columns(file, names)
    found = [
        (row[column], row[label] if label is not None and label < len(row) else None)
        for row in rows[1:]
        if row[column:]
    ]
    return [(written, value) for written, value in found if written.strip()]


def _delimiter(text: str) -> str:
    """The first of DELIMITERS that makes a column of paths of the first row."""
    heads = ((delimiter, next(_csv_rows(text, delimiter), [])) for delimiter in DELIMITERS)
    return next((delimiter for delimiter, names in heads if path_column(names) is not None), DELIMITERS[0])


def _csv_rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _parquet_entries(file: str, stream: IO[bytes]) -> list[Entry]:
    with pq.ParquetFile(stream) as table:
        names = table.schema_arrow.names
        column, label = _columns(file, names)
        wanted = [names[column]] + ([names[label]] if label is not None else [])
        read = table.read(columns=wanted)
    paths: list[Any] = read[names[column]].to_pylist()
    labels: list[Any] = read[names[label]].to_pylist() if label is not None else [None] * len(paths)
    return [
        (str(path), None if value is None else str(value))
        for path, value in zip(paths, labels, strict=True)
        if path is not None
    ]


def _told(names: Sequence[str]) -> str:
    """Names of columns for an error: of what is no table, a line may be long, and hold anything."""
    few = [" ".join(valid_text(name).split())[:40] for name in names[:MOST_TOLD]]
    return ", ".join(few) + (f" and {len(names) - MOST_TOLD:,} more" if len(names) > MOST_TOLD else "")


def _columns(file: str, names: Sequence[str]) -> tuple[int, int | None]:
    column = path_column(names)
    if column is None:
        raise SourceError(
            f"{display_path(file)} has the columns {_told(names) or '(none)'}; "
            f"expected one called {', '.join(PATH_COLUMNS)}"
        )
    lowered = [name.strip().lower() for name in names]
    return column, lowered.index(LABEL_COLUMN) if LABEL_COLUMN in lowered else None
