"""Which images embedding could not make anything of, and why, and what it notes of others: the stage's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import pyarrow as pa

from shoal import records
from shoal.embed.batches import Failure, FailureKind
from shoal.rundir import RunDir

NAME: Final = "own/failures.parquet"
_NOTE: Final = "note"  # in place of the kind of a failure
SCHEMA: Final = pa.schema([("id", pa.int64()), ("kind", pa.string()), ("reason", pa.string())])


def write_failures(run_dir: RunDir, failures: Mapping[int, Failure], notes: Mapping[int, str]) -> None:
    """Write the table, by rising id."""
    told: list[tuple[int, str, str]] = [(image, _NOTE, note) for image, note in notes.items()]
    told += [(image, failure.kind, failure.reason) for image, failure in failures.items()]
    found = sorted(told)
    ids, kinds, reasons = zip(*found, strict=True) if found else ((), (), ())
    table = pa.table({"id": ids, "kind": kinds, "reason": reasons}, schema=SCHEMA)
    records.write_table(run_dir.new(NAME), table)


def read_failures(run_dir: RunDir) -> dict[int, Failure]:
    """By image id; none before anything was embedded."""
    rows = [row for row in _rows(run_dir) if row["kind"] != _NOTE]
    return {row["id"]: Failure(cast(FailureKind, row["kind"]), row["reason"]) for row in rows}


def read_notes(run_dir: RunDir) -> dict[int, str]:
    """What decoding had to infer or choose, by id of an image that has features."""
    return {row["id"]: row["reason"] for row in _rows(run_dir) if row["kind"] == _NOTE}


def _rows(run_dir: RunDir) -> list[dict[str, Any]]:
    path = run_dir.path(NAME)
    return records.read_table(path).to_pylist() if path.is_file() else []
