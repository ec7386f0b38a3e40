"""A run's clusters as people corrected them: what export, assign, report and the page show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from shoal import records
from shoal.corrections.base import Base, Bools, Float32, Int32, Int64, clustering_digest, read_base, read_kept
from shoal.corrections.edit import Edit
from shoal.corrections.log import read_log
from shoal.corrections.replay import Replay, replay
from shoal.rundir import RunDir, digest_file, digest_of

NONE = -1  # stands for a runner-up that an image does not have


@dataclass(frozen=True)
class Corrected:
    """The clusters after the edits in force. Arrays are over every usable image and duplicate, by rising id.

    Attributes:
        source: the clustering that the log is applied to.
        ids: [n] int64; original: [n] the row of each image's original, or its own.
        cluster: [n] int32 from 0; numbers have gaps where clusters were merged away.
        confidence: [n] float32, 1 where a person put the image; unsure: [n] bool.
        silhouette: [n] float32, NaN in clusters that changed; runner_up: [n] int32, -1 for none.
        pinned: [n] bool, images that a person put where they are.
        names: of clusters that have one; noise: number of the cluster that holds the noise, or None.
        follow: [K] the cluster that each one of the clustering went into; made: clusters that are no union of those.
        version: lines of the log.
        conflicts: why an edit could not be carried over, by its line.
        next_number: that the next new cluster gets.
    """

    source: Base
    ids: Int64
    original: Int64
    cluster: Int32
    confidence: Float32
    unsure: Bools
    silhouette: Float32
    runner_up: Int32
    pinned: Bools
    names: dict[int, str]
    noise: int | None
    follow: Int32
    made: frozenset[int]
    version: int
    conflicts: dict[int, str]
    next_number: int

    @cached_property
    def digest(self) -> str:
        """Of everything here that people could have changed."""
        names = sorted((cluster, name) for cluster, name in self.names.items())
        pinned = self.ids[self.pinned].tolist()
        return digest_of(clustering_digest(self.ids, self.cluster), names, self.noise, pinned)[:16]

    @property
    def base(self) -> str:
        """Digest of the clustering that the log is applied to."""
        return self.source.digest

    @property
    def is_changed(self) -> bool:
        """True if there is anything that a person changed."""
        is_moved = self.pinned.any() or not np.array_equal(self.cluster, self.source.cluster)
        return bool(is_moved or self.names) or self.noise is not None

    @cached_property
    def numbers(self) -> list[int]:
        """Clusters that hold an image, rising."""
        return np.flatnonzero(np.bincount(self.cluster)).tolist()

    @property
    def k(self) -> int:
        """How many clusters there are; what is marked as noise is none."""
        return len(self.numbers) - (self.noise in self.numbers)

    @cached_property
    def changed(self) -> frozenset[int]:
        """Clusters whose images are not those that the clustering put there."""
        other = self.cluster != self.source.cluster
        return frozenset(np.unique(np.r_[self.cluster[other], self.source.cluster[other]]).tolist())

    def members(self, cluster: int) -> Int64:
        """Ids of a cluster's images, rising."""
        members: Int64 = self.ids[self.cluster == cluster]
        return members

    def rows(self, ids: Int64) -> Int64:
        """Rows of `ids`. Raises KeyError naming the first one that is not there."""
        rows = np.searchsorted(self.ids, ids).clip(max=max(len(self.ids) - 1, 0))
        if len(ids) and (not len(self.ids) or (self.ids[rows] != ids).any()):
            strange = ids if not len(self.ids) else ids[self.ids[rows] != ids]
            raise KeyError(int(strange[0]))
        return rows


def read_corrected(run_dir: RunDir) -> Corrected:
    """The clusters of a finished run after its edits.

    Raises:
        RunError: the run has no finished clusters, or its edits are not readable.
    """
    return corrected_by(run_dir, read_base(run_dir), read_log(run_dir))


def corrected_digest(run_dir: RunDir) -> str:
    """A digest of the clusters as people see them: of the table alone while nobody has changed anything."""
    if not run_dir.edits.is_file():
        return digest_file(run_dir.clusters)
    corrected = read_corrected(run_dir)
    return (
        digest_of(digest_file(run_dir.clusters), corrected.digest)
        if corrected.is_changed
        else digest_file(run_dir.clusters)
    )


def corrected_by(run_dir: RunDir, base: Base, log: Sequence[Edit]) -> Corrected:
    """A clustering of a run after a log of edits."""
    return corrected_as(replay(base, log, lambda digest: read_kept(run_dir, digest)), len(log))


def corrected_as(state: Replay, version: int) -> Corrected:
    """What a log of `version` lines came to when it was replayed."""
    base, cluster = state.base, state.cluster
    changed = cluster != base.cluster
    is_touched = np.zeros(max(cluster.max(initial=-1), base.cluster.max(initial=-1)) + 1, bool)  # [numbers]
    is_touched[cluster[changed]] = is_touched[base.cluster[changed]] = True
    touched = is_touched[cluster]
    runner_up, merged = _runners_up(state)
    return Corrected(
        source=base,
        ids=base.ids,
        original=base.original,
        cluster=cluster,
        confidence=np.where(state.pinned, np.float32(1), base.confidence).astype(np.float32),
        unsure=base.unsure & ~state.pinned & ~merged,
        silhouette=np.where(touched, np.float32(np.nan), base.silhouette).astype(np.float32),
        runner_up=runner_up,
        pinned=state.pinned,
        names=state.names,
        noise=state.noise,
        follow=state.follow,
        made=frozenset(state.made),
        version=version,
        conflicts=state.conflicts,
        next_number=state.next_number,
    )


def corrected_table(run_dir: RunDir, corrected: Corrected) -> pa.Table:
    """The columns of `records.CLUSTERS` by rising id, null for what an image does not have."""
    paths = records.by_id(run_dir.read_clusters(["id", "path"]))["path"]
    columns = {**corrected_columns(corrected), "path": paths}
    return pa.table({name: columns[name] for name in records.CLUSTERS.names}, schema=records.CLUSTERS)


def corrected_columns(corrected: Corrected, here: slice = slice(None)) -> dict[str, pa.Array]:
    """The columns of `records.CLUSTERS` but the path, of the images at some places by rising id or of all."""
    runner_up = corrected.runner_up[here]
    return {
        "id": pa.array(corrected.ids[here]),
        "cluster": pa.array(corrected.cluster[here]),
        "confidence": _known(corrected.confidence[here]),
        "unsure": pa.array(corrected.unsure[here]),
        "silhouette": _known(corrected.silhouette[here]),
        "runner_up": pa.array(runner_up, mask=runner_up == NONE),
    }


def _known(values: Float32) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _runners_up(state: Replay) -> tuple[Int32, Bools]:
    """Runners-up under their numbers now, and where the doubt is gone because both clusters were merged."""
    had = state.base.runner_up
    known = (had >= 0) & (had < len(state.follow))
    now = np.where(known, state.follow[had.clip(0, max(len(state.follow) - 1, 0))], NONE).astype(np.int32)
    own = now == state.cluster
    merged = own & (had != state.base.cluster) & known & ~state.pinned
    return np.where(own | state.pinned, NONE, now).astype(np.int32), merged
