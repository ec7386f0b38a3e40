"""Which images embedding could not make anything of, and why, and what it notes of others: the stage's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from shoal import records
from shoal.embed.batches import Failure
from shoal.rundir import RunDir

NAME: Final = "own/failures.parquet"
DECODE: Final = "decode"  # a kind of failure
NOTE: Final = "note"  # in place of the kind of a failure
SCHEMA: Final = pa.schema([("id", pa.int64()), ("kind", pa.string()), ("reason", pa.string())])


def write_failures(run_dir: RunDir, failures: Mapping[int, Failure], notes: Mapping[int, str]) -> None:
    """Write the table, by rising id."""
    told: list[tuple[int, str, str]] = [(image, NOTE, note) for image, note in notes.items()]
    told += [(image, failure.kind, failure.reason) for image, failure in failures.items()]
    found = sorted(told)
    ids, kinds, reasons = zip(*found, strict=True) if found else ((), (), ())
    table = pa.table({"id": ids, "kind": kinds, "reason": reasons}, schema=SCHEMA)
    records.write_table(run_dir.new(NAME), table)


def read_outcomes(run_dir: RunDir) -> pa.Table:
    """`SCHEMA`; no row before anything was embedded."""
    path = run_dir.path(NAME)
    return records.read_table(path) if path.is_file() else SCHEMA.empty_table()
