"""Builds a small real run directory, as the index and embed stages leave it, for tests of later stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shoal import atomic, records
from shoal.embeddings import PART_ROWS
from shoal.rundir import RunDir, digest_of
from shoal.runfiles import write_run_json


def write_small_run(
    root: Path,
    vectors: npt.NDArray[np.floating],
    statuses: Sequence[str] | None = None,
    duplicate_of: dict[int, int] | None = None,
) -> RunDir:
    """Write images.parquet, embeddings/ and run.json under `root`; image i has the features `vectors[i]`.

    It is a run of before generations: all files lie at the root, and stages called on it write there.

    Args:
        vectors: [N, d]; rows whose status is not `ok` are written as zeros, whatever they hold.
        statuses: one of `records.OK`, ... per image; all ok if None.
        duplicate_of: original of each duplicate; by default the nearest ok image before it.
    """
    run = RunDir(root)
    statuses = list(statuses or [records.OK] * len(vectors))
    originals = {**_originals(statuses), **(duplicate_of or {})}
    records.write_table(run.images, _images(statuses, originals))
    write_embeddings(root / "embeddings", np.where(np.array(statuses)[:, None] == records.OK, vectors, 0))
    write_run_json(root, {"format_version": 1, "stages": {name: _record(name) for name in ("index", "embed")}})
    return run


def _record(name: str) -> dict[str, Any]:
    """The record of a stage as an older run has it; no key of today's is like its own, so it is stale."""
    return {"state": "done", "key": digest_of("older", name), "digest": digest_of(name), "facts": {}, "seconds": 0.0}


def write_embeddings(folder: Path, vectors: npt.NDArray[np.floating]) -> None:
    """Write `vectors` [N, d] as a finished embeddings folder (float16 parts and manifest)."""
    folder.mkdir(parents=True)
    parts = []
    for start in range(0, len(vectors), PART_ROWS):
        stop = min(start + PART_ROWS, len(vectors))
        name = f"part-{start // PART_ROWS:05d}.npy"
        np.save(folder / name, vectors[start:stop].astype(np.float16))
        parts.append({"file": name, "start": start, "stop": stop})
    manifest = {
        "format_version": 1,
        "rows": len(vectors),
        "dim": vectors.shape[1],
        "dtype": "float16",
        "normalised": False,
        "parts": parts,
    }
    atomic.write_json(folder / "manifest.json", manifest)


def _originals(statuses: Sequence[str]) -> dict[int, int]:
    originals, last = {}, 0
    for number, status in enumerate(statuses):
        if status == records.OK:
            last = number
        elif status == records.DUPLICATE:
            originals[number] = last
    return originals


def _images(statuses: Sequence[str], originals: dict[int, int]) -> pa.Table:
    count = len(statuses)
    paths = [f"folder/image {number:05d}.png" for number in range(count)]
    bad = {records.SKIPPED: "cannot identify image file", records.VANISHED: "no longer in the source"}
    return pa.table(
        {
            "id": range(count),
            "path": paths,
            "uri": [f"memory://{path}" for path in paths],
            "size_bytes": [1000] * count,
            "mtime": [0.0] * count,
            "sha256": [f"{originals.get(number, number):064x}" for number in range(count)],
            "width": [64] * count,
            "height": [48] * count,
            "status": list(statuses),
            "reason": [bad.get(status) for status in statuses],
            "duplicate_of": [originals.get(number) for number in range(count)],
        },
        schema=records.IMAGES,
    )


def wholly_inside(count: int) -> npt.NDArray[np.float32]:
    """Lengths inside and outside of a space that holds all of the features, [count, 2]."""
    return np.tile(np.array([1, 0], np.float32), (count, 1))
