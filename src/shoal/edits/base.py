"""A clustering as a run's tables hold it: one row for every usable image and duplicate, as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.rundir import RunDir

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """clusters.parquet by rising id.

    Attributes:
        ids: [n] int64, rising; original: [n] the row of the image that it is a duplicate of, or its own.
        cluster, runner_up: [n] int32; confidence, silhouette: [n] float32; unsure: [n] bool.
        digest: of ids and clusters; names this clustering in the log.
    """

    ids: Int64
    original: Int64
    cluster: Int32
    confidence: Float32
    unsure: Bools
    silhouette: Float32
    runner_up: Int32
    digest: str

    @property
    def count(self) -> int:
        """How many clusters there are; their numbers are below it."""
        return int(self.cluster.max(initial=-1)) + 1


def read_base(run_dir: RunDir) -> Base:
    """Read the clusters of a finished run, without any edits.

    Raises:
        RunError: the run has no finished clusters.
    """
    run_dir.require("cluster")
    table = run_dir.read_clusters(["id", "cluster", "confidence", "unsure", "silhouette", "runner_up"]).sort_by("id")
    ids = table["id"].to_numpy().astype(np.int64)
    cluster = table["cluster"].to_numpy().astype(np.int32)
    return Base(
        ids=ids,
        original=_originals(run_dir, ids),
        cluster=cluster,
        confidence=table["confidence"].to_numpy(),
        unsure=table["unsure"].to_numpy(),
        silhouette=table["silhouette"].to_numpy(),
        runner_up=table["runner_up"].to_numpy(),
        digest=clustering_digest(ids, cluster),
    )


def clustering_digest(ids: Int64, cluster: Int32) -> str:
    """16 hexadecimal digits that stand for which image is in which cluster."""
    state = hashlib.sha256(np.ascontiguousarray(ids, "<i8").tobytes())
    state.update(np.ascontiguousarray(cluster, "<i4").tobytes())
    return state.hexdigest()[:16]


def _originals(run_dir: RunDir, ids: Int64) -> Int64:
    """Row of each image's original; a copy follows what people do with it, and the other way round."""
    images = run_dir.read_images(["id", "duplicate_of"])
    copies = images.filter(images["duplicate_of"].is_valid())
    rows = np.arange(len(ids), dtype=np.int64)
    of = copies["id"].to_numpy(), copies["duplicate_of"].to_numpy()
    copy, original = (np.searchsorted(ids, numbers).clip(max=max(len(ids) - 1, 0)) for numbers in of)
    if len(ids):
        known = (ids[copy] == of[0]) & (ids[original] == of[1])
        rows[copy[known]] = original[known]
    return rows
