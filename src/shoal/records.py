"""The tables of a run directory: their columns, and how they are read and written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoal import atomic

OK: Final = "ok"
SKIPPED: Final = "skipped"
DUPLICATE: Final = "duplicate"
VANISHED: Final = "vanished"

IMAGES: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime", pa.float64()),  # seconds since the epoch; null where the source has none
        ("sha256", pa.string()),
        ("width", pa.int32()),  # pixels as stored, before EXIF rotation
        ("height", pa.int32()),
        ("status", pa.string()),
        (
            "reason",
            pa.string(),
        ),  # why it was skipped or vanished; of an ok one what decoding had to infer or choose, or null
        ("duplicate_of", pa.int64()),  # id of the original; null otherwise
    ]
)
LABELS: Final = pa.schema([("id", pa.int64()), ("label", pa.string())])
CLUSTERS: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("cluster", pa.int32()),
        ("confidence", pa.float32()),  # 0 to 1
        ("unsure", pa.bool_()),
        ("silhouette", pa.float32()),  # -1 to 1
        ("runner_up", pa.int32()),
    ]
)
MAP: Final = pa.schema([("id", pa.int64()), ("x", pa.float32()), ("y", pa.float32())])


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically. The same table gives the same bytes."""
    with atomic.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def digest_of_images(images: pa.Table) -> str:
    """A digest of the images that have a cluster, usable ones and their duplicates; not of places, not of times."""
    clustered = images.filter(pc.is_in(images["status"], pa.array([OK, DUPLICATE])))
    state = hashlib.sha256()
    for name in ("id", "path", "sha256", "status", "duplicate_of"):
        state.update("\0".join(str(value) for value in clustered[name].to_pylist()).encode())
        state.update(b"\n")
    return state.hexdigest()


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(path, columns=columns, memory_map=False)
