"""The embedding stage where the embeddings are given: they become the run's, and no image is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from shoal import atomic, records
from shoal.config import ClusterConfig
from shoal.disk import require_free
from shoal.embed import head
from shoal.embed.batches import EmbeddedBatch, Failure
from shoal.embed.failures import write_failures
from shoal.embed.given import Given
from shoal.embed.matching import NONE, NOT_GIVEN, Entries, rows_of, unusable
from shoal.embed.parts import PartsWriter, among
from shoal.embed.vectors import Rows
from shoal.embeddings import Ids, by_part
from shoal.encoder.spec import CONFIG, MODEL_FORMAT
from shoal.errors import NoImagesError
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_of
from shoal.runfiles import NO_BACKBONE, ORDER
from shoal.spool import Spool


def key(given: Given, config: ClusterConfig) -> dict[str, Any]:
    """What makes the embeddings stale besides the images and their order."""
    return {"given": given.digest, "named": digest_of(given.named)}


def run(given: Given, config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write the given embeddings as the run's own, and note the images that have none.

    Raises:
        EmbeddingsError: they do not fit the source. NoImagesError: not one image has a usable one.
        DiskSpaceError: they would not fit.
    """
    images = run_dir.read_listing(["id", "status", "duplicate_of"])
    order = records.read_table(run_dir.path(ORDER))
    entries = Entries.of(order["path"], order["uri"])
    rows = rows_of(given, entries)
    usable, row_of = _rows_by_id(images, order["id"].to_numpy(), rows)
    writer = PartsWriter(run_dir, images.num_rows, given.dim, given.dtype, digest_of("given", given.digest))
    missing = writer.plan(usable, pa.array(row_of[usable]).cast(pa.string()))
    require_free(run_dir.root, len(missing) * writer.row_bytes, "embedding")
    if len(missing):
        with progress.task("Embedding", len(missing)) as task, given.rows(run_dir.spool or Spool()) as opened:
            for batch in _batches(missing, row_of, opened, given.dim):
                writer.add(batch)
                task.advance(len(batch.ids))
    digest = writer.finish()
    failures = among(pa.chunked_array([usable]), writer.failures)
    write_failures(run_dir, failures, {})
    if len(failures) == len(usable):
        reasons = sorted({failure.reason for failure in failures.values()})
        raise NoImagesError(f"no usable image in {' '.join(config.source)}: {'; '.join(reasons[:3])}")
    atomic.write_json(run_dir.new(f"model/{CONFIG}"), {"format_version": MODEL_FORMAT, "encoder": None})
    facts = {
        "backbone": NO_BACKBONE,
        "dim": given.dim,
        "images": len(usable) - len(failures),
        "embedded_now": len(missing),
        "failed": len(failures),
        "given": {"name": given.name, "rows": given.count, **_matched(given, entries, rows)},
    }
    return StageResult(digest, facts, {"head": head.NONE})


def _rows_by_id(images: pa.Table, order: Ids, rows: Ids) -> tuple[Ids, Ids]:
    """Ids of the usable images, and the row of every image; of one that has none, that of a copy of it."""
    is_known = order != NONE
    row_of = np.full(images.num_rows, NONE)
    row_of[order[is_known]] = rows[is_known]
    status = images["status"].to_numpy(zero_copy_only=False)
    copies = np.flatnonzero((status == records.DUPLICATE) & (row_of != NONE))[::-1]  # of several the first counts
    originals = images["duplicate_of"].take(copies).to_numpy(zero_copy_only=False).astype(np.int64)
    row_of_copy = np.full(images.num_rows, NONE)
    row_of_copy[originals] = row_of[copies]
    return np.flatnonzero(status == records.OK), np.where(row_of == NONE, row_of_copy, row_of)


def _batches(missing: Ids, row_of: Ids, rows: Rows, dim: int) -> Iterator[EmbeddedBatch]:
    """What is missing of each part."""
    for ids in by_part(missing):
        wanted = row_of[ids]
        has_row = wanted != NONE
        features = np.zeros((len(ids), dim), np.float32)
        features[has_row] = rows.read(wanted[has_row])
        reasons = {**unusable(features), **{int(place): NOT_GIVEN for place in np.flatnonzero(~has_row)}}
        features[list(reasons)] = 0
        failures = {int(ids[place]): Failure("decode", reason) for place, reason in reasons.items()}
        yield EmbeddedBatch(ids.tolist(), features, failures, {})


def _matched(given: Given, entries: Entries, rows: Ids) -> dict[str, Any]:
    """How the rows were matched, for people to look at: a wrong order gives clusters too."""
    facts: dict[str, Any] = {"unused": given.count - len(np.unique(rows[rows != NONE]))}
    if given.paths is None:
        ends = {"first": np.flatnonzero(rows == 0), "last": np.flatnonzero(rows == given.count - 1)}
        facts |= {name: entries.paths[at[0]].as_py() for name, at in ends.items() if len(at)}
    return facts
