"""Parquet files whose rows hold image bytes as a source, plain or as Hugging Face writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from shoal import parquet
from shoal.errors import DecodeError, SourceError
from shoal.images.gate import Gate
from shoal.images.item import Item
from shoal.images.left_out import LeftOut
from shoal.images.listed import Listed
from shoal.images.location import is_uri, local_path, valid_text
from shoal.images.rows import bytes_column
from shoal.images.storage import is_local
from shoal.spool import Spool

LISTING_ROWS = 8192


@dataclass(frozen=True, slots=True)
class TableSource:
    """One Parquet file, or several as shards of one table, in the order of their names."""

    identity: str
    name: str
    shards: tuple[tuple[str, str], ...]  # URI, and the prefix of paths where rows have none: "" for a single file
    spool: Spool = field(default_factory=Spool, compare=False, repr=False)

    def listed(self, left_out: LeftOut | None = None) -> Listed:
        """Every row in order. Its path is the `path` column, or the row's number.

        Raises:
            SourceError: a file is no Parquet, or has no column of image bytes.
        """
        gate = Gate(self.spool)
        items = (item for uri, prefix in self.shards for item in _rows(gate, uri, prefix))
        return Listed.of(items).with_distinct_paths()


def holds_image_bytes(gate: Gate, uri: str) -> bool:
    """True if the Parquet file at `uri` has a column of image bytes.

    Raises:
        SourceError: it is no readable Parquet file.
    """
    return bytes_column(_schema(gate, uri)) is not None


def _rows(gate: Gate, uri: str, prefix: str) -> Iterator[Item]:
    schema = _schema(gate, uri)
    column = bytes_column(schema)
    if column is None:
        raise SourceError(f"{uri} has the columns {', '.join(schema.names)}; expected one called image with bytes")
    mtime = gate.modified(uri)
    names = _class_names(schema)
    for row, (path, label) in enumerate(_paths_and_labels(gate, uri, schema, column)):
        shown = valid_text(str(path)) if path else f"{prefix}{row:08d}"
        yield Item(shown, f"{uri}#row={row}", None, mtime, _label(label, names))


def _paths_and_labels(gate: Gate, uri: str, schema: pa.Schema, column: str) -> Iterator[tuple[Any, Any]]:
    path_name = "path" if "path" in schema.names else _path_in_struct(schema, column)
    label_name = "label" if "label" in schema.names else None
    wanted = [name for name in (path_name, label_name) if name is not None]
    try:
        with gate.open(uri) as stream, parquet.opened(stream) as file:
            if not wanted:
                yield from ((None, None) for _ in range(file.metadata.num_rows))
                return
            for batch in parquet.batches(file, LISTING_ROWS, wanted):
                empty = [None] * batch.num_rows
                paths = _strings(batch, path_name) if path_name else empty
                labels = batch.column("label").to_pylist() if label_name else empty
                yield from zip(paths, labels, strict=True)
    except (DecodeError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise _broken(uri, error) from error


def _strings(batch: pa.RecordBatch, name: str) -> list[Any]:
    values = batch.column(name.split(".", maxsplit=1)[0])
    return (values.field("path") if "." in name else values).to_pylist()  # type: ignore[no-any-return]


def _path_in_struct(schema: pa.Schema, column: str) -> str | None:
    if "." not in column:
        return None
    name = column.split(".", maxsplit=1)[0]
    return f"{name}.path" if any(child.name == "path" for child in schema.field(name).type) else None


def _class_names(schema: pa.Schema) -> list[str] | None:
    """Names of integer labels, which Hugging Face keeps in the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features["label"]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _label(value: Any, names: list[str] | None) -> str | None:
    if value is None:
        return None
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return valid_text(str(value))


def _schema(gate: Gate, uri: str) -> pa.Schema:
    try:
        with gate.open(uri) as stream, parquet.opened(stream) as file:
            return file.schema_arrow
    except (DecodeError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise _broken(uri, error) from error


def _broken(uri: str, error: Exception) -> SourceError:
    name = uri if is_uri(uri) and not is_local(uri) else local_path(uri)
    return SourceError(f"{valid_text(name)} cannot be read as Parquet: {' '.join(str(error).split())[:200]}")
