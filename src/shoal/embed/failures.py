"""Which images embedding could not make anything of, and why: the embed stage's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import pyarrow as pa

from shoal import records
from shoal.embed.batches import Failure, FailureKind
from shoal.rundir import RunDir

NAME: Final = "own/failures.parquet"
SCHEMA: Final = pa.schema([("id", pa.int64()), ("kind", pa.string()), ("reason", pa.string())])


def write_failures(run_dir: RunDir, failures: Mapping[int, Failure]) -> None:
    """Write the table, by rising id."""
    found = [(image, failures[image].kind, failures[image].reason) for image in sorted(failures)]
    ids, kinds, reasons = zip(*found, strict=True) if found else ((), (), ())
    table = pa.table({"id": ids, "kind": kinds, "reason": reasons}, schema=SCHEMA)
    records.write_table(run_dir.new(NAME), table)


def read_failures(run_dir: RunDir) -> dict[int, Failure]:
    """By image id; none before anything was embedded."""
    path = run_dir.path(NAME)
    rows = records.read_table(path).to_pylist() if path.is_file() else []
    return {row["id"]: Failure(cast(FailureKind, row["kind"]), row["reason"]) for row in rows}
