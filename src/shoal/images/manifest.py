"""Lists of images as a source: text with a path on each line, or a table with a column of paths or URIs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shoal.errors import SourceError
from shoal.images.folder import local_item
from shoal.images.item import Item, with_distinct_paths
from shoal.images.location import display_path, is_uri, local_path, valid_text

PATH_COLUMNS = ("path", "uri", "file", "filename", "file_name", "image_path")
LABEL_COLUMN = "label"
ENDINGS = (".txt", ".csv", ".tsv")

Entry = tuple[str, str | None]  # what is written, and its label


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A manifest; its paths are relative to the folder that it lies in, and `path` is what it says."""

    identity: str
    name: str
    file: str

    def items(self) -> Iterator[Item]:
        """Every entry in the manifest's order, those that are missing too.

        Raises:
            SourceError: the manifest cannot be read, or has no column of paths.
        """
        folder = os.path.dirname(self.file)
        yield from with_distinct_paths(_item(written, label, folder) for written, label in _entries(self.file))


def path_column(names: Sequence[str]) -> int | None:
    """The place of the first of PATH_COLUMNS among column names, whatever their case."""
    lowered = [name.strip().lower() for name in names]
    return next((lowered.index(name) for name in PATH_COLUMNS if name in lowered), None)


def _item(written: str, label: str | None, folder: str) -> Item:
    label = None if label in (None, "") else valid_text(str(label))
    if is_uri(written) and not written.startswith("file:"):
        return Item(valid_text(written), valid_text(written), label=label)
    path = local_path(written) if written.startswith("file:") else os.path.expanduser(written)
    return local_item(os.path.join(folder, path), display_path(os.path.normpath(path)), label)


def _entries(file: str) -> list[Entry]:
    ending = os.path.splitext(file)[1].lower()
    try:
        if ending == ".parquet":
            return _parquet_entries(file)
        data = Path(file).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{display_path(file)} cannot be read as a manifest: {error}") from error
    if ending == ".txt":
        lines = (os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n"))
        return [(line, None) for line in lines if line.strip()]
    return _csv_entries(file, data.decode("utf-8", "surrogateescape"), "\t" if ending == ".tsv" else ",")


def _csv_entries(file: str, text: str, delimiter: str) -> list[Entry]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
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


def _parquet_entries(file: str) -> list[Entry]:
    with pq.ParquetFile(file) as table:
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


def _columns(file: str, names: Sequence[str]) -> tuple[int, int | None]:
    column = path_column(names)
    if column is None:
        raise SourceError(
            f"{display_path(file)} has the columns {', '.join(map(valid_text, names)) or '(none)'}; "
            f"expected one called {', '.join(PATH_COLUMNS)}"
        )
    lowered = [name.strip().lower() for name in names]
    return column, lowered.index(LABEL_COLUMN) if LABEL_COLUMN in lowered else None
