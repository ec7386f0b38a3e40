"""A clustering as a run's tables hold it: one row for every usable image and duplicate, as arrays."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from shoal import records
from shoal.config import MOST_NUMBERS
from shoal.errors import RunError
from shoal.rundir import RunDir
from shoal.runfiles import Folder, Within

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Base:
    """clusters.parquet by rising id.

    Attributes:
        ids: [n] int64, rising; original: [n] the row of the image that it is a duplicate of, or its own.
        cluster, runner_up: [n] int32, a missing runner-up -1; confidence, silhouette: [n] float32, NaN where missing;
            unsure: [n] bool.
        digest: of ids and clusters; names this clustering in the log.
        model: the clusters' model of it; levels: its levels.parquet, which need not be there.
    """

    ids: Int64
    original: Int64
    cluster: Int32
    confidence: Float32
    unsure: Bools
    silhouette: Float32
    runner_up: Int32
    digest: str
    model: Folder
    levels: Path

    def together(self, rows: Int64) -> Int64:
        """Those rows, their originals, and all exact copies of these: what goes where one of them is put."""
        originals = np.unique(self.original[rows])
        copies, of = self.copies
        first, last = np.searchsorted(of, originals), np.searchsorted(of, originals, side="right")
        lengths = last - first
        ends = np.cumsum(lengths)
        places = np.arange(int(lengths.sum())) + np.repeat(first - ends + lengths, lengths)
        together: Int64 = np.r_[originals, copies[places]]
        return together

    @cached_property
    def copies(self) -> tuple[Int64, Int64]:
        """Rows of images that are copies of others, and the originals' rows, which rise."""
        copies = np.flatnonzero(self.original != np.arange(len(self.ids)))
        of = self.original[copies]
        order = np.argsort(of, kind="stable")
        return copies[order], of[order]

    @property
    def count(self) -> int:
        """How many clusters there are; their numbers are below it."""
        return int(max(self.cluster.max(initial=-1), self.runner_up.max(initial=-1))) + 1


def read_base(run_dir: RunDir) -> Base:
    """Read the clusters of a finished run, without any edits.

    Raises:
        RunError: the run has no clusters yet.
    """
    if not run_dir.clusters.is_file():
        raise RunError(
            f"{run_dir.root} is unfinished: it has no clusters yet; make them with: {run_dir.how_to_cluster()}"
        )
    return _read(run_dir, run_dir.clusters, run_dir.model, run_dir.levels)


def read_kept(run_dir: RunDir, digest: str) -> Base | None:
    """Read the clusters as they were before a refit, or None if they are not kept.

    Raises:
        RunError: `digest` is none.
    """
    if not re.fullmatch(r"[0-9a-f]{16}", digest):
        raise RunError(f"{run_dir.edits} names the clustering {digest[:40]!r}; expected 16 hexadecimal digits")
    kept = run_dir.kept(digest)
    if kept is None:
        return None
    return _read(run_dir, kept / "clusters.parquet", Within(kept, "model"), kept / "levels.parquet")


def _read(run_dir: RunDir, clusters: Path, model: Folder, levels: Path) -> Base:
    columns = ["id", "cluster", "confidence", "unsure", "silhouette", "runner_up"]
    table = records.by_id(records.read_table(clusters, columns))
    ids = table["id"].to_numpy().astype(np.int64)
    cluster = table["cluster"].to_numpy().astype(np.int32)
    runner_up = pc.fill_null(table["runner_up"], -1).to_numpy().astype(np.int32)
    for name, numbers, least in (("cluster", cluster, 0), ("runner_up", runner_up, -1)):
        if len(numbers) and not least <= numbers.min() <= numbers.max() < MOST_NUMBERS:
            raise RunError(
                f"{clusters}: column {name!r} goes from {numbers.min()} to {numbers.max()}; expected numbers of "
                f"clusters, from {least} to {MOST_NUMBERS - 1:,}"
            )
    if (ids[1:] == ids[:-1]).any():  # they rise
        raise RunError(f"{clusters}: column 'id' has a number twice; expected a row an image")
    return Base(
        ids=ids,
        original=_originals(run_dir, ids),
        cluster=cluster,
        confidence=table["confidence"].to_numpy().astype(np.float32),
        unsure=pc.fill_null(table["unsure"], False).to_numpy(),
        silhouette=table["silhouette"].to_numpy().astype(np.float32),
        runner_up=runner_up,
        digest=clustering_digest(ids, cluster),
        model=model,
        levels=levels,
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
