"""A run's clusters as people corrected them: what export, assign, report and the page show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from shoal import records
from shoal.edits.base import Base, Bools, Float32, Int32, Int64, clustering_digest, read_base
from shoal.edits.edit import Edit
from shoal.edits.log import read_log
from shoal.edits.replay import Replay, replay
from shoal.rundir import RunDir, digest_of

NONE = -1  # stands for a runner-up that an image does not have


@dataclass(frozen=True)
class Corrected:
    """The clusters after the edits in force. Arrays are over every usable image and duplicate, by rising id.

    Attributes:
        ids: [n] int64; original: [n] the row of each image's original, or its own.
        cluster: [n] int32 from 0; numbers have gaps where clusters were merged away.
        confidence: [n] float32, 1 where a person put the image; unsure: [n] bool.
        silhouette: [n] float32, NaN in clusters that changed; runner_up: [n] int32, -1 for none.
        pinned: [n] bool, images that a person put where they are.
        names: of clusters that have one; noise: number of the cluster that holds the noise, or None.
        follow: [K] the cluster that each one of the clustering went into; made: clusters that are no union of those.
        version: lines of the log; base: digest of the clustering that the log is applied to.
        conflicts: why an edit could not be carried over, by its line.
        next_number: that the next new cluster gets.
    """

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
    base: str
    base_cluster: Int32
    conflicts: dict[int, str]
    next_number: int

    @cached_property
    def digest(self) -> str:
        """Of everything here that people could have changed."""
        names = sorted((cluster, name) for cluster, name in self.names.items())
        return digest_of(clustering_digest(self.ids, self.cluster), names, self.noise)[:16]

    @property
    def is_changed(self) -> bool:
        """True if this differs from the clusters in the run's tables."""
        return bool(self.names) or self.noise is not None or not np.array_equal(self.cluster, self.base_cluster)

    @cached_property
    def numbers(self) -> list[int]:
        """Clusters that hold an image, rising."""
        return [int(number) for number in np.unique(self.cluster)]

    @cached_property
    def changed(self) -> frozenset[int]:
        """Clusters whose images are not those that the clustering put there."""
        other = self.cluster != self.base_cluster
        return frozenset(np.unique(np.r_[self.cluster[other], self.base_cluster[other]]).tolist())

    def members(self, cluster: int) -> Int64:
        """Ids of a cluster's images, rising."""
        return self.ids[self.cluster == cluster]

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
    return corrected_by(read_base(run_dir), read_log(run_dir))


def corrected_by(base: Base, log: Sequence[Edit]) -> Corrected:
    """A clustering after a log of edits."""
    state = replay(base, log)
    cluster = state.cluster
    changed = cluster != state.base.cluster
    touched = np.isin(cluster, np.unique(np.r_[cluster[changed], state.base.cluster[changed]]))
    runner_up, merged = _runners_up(state)
    return Corrected(
        ids=base.ids,
        original=base.original,
        cluster=cluster,
        confidence=np.where(state.pinned, np.float32(1), base.confidence).astype(np.float32),
        unsure=base.unsure & ~state.pinned & ~merged,
        silhouette=np.where(touched, np.float32(np.nan), state.base.silhouette).astype(np.float32),
        runner_up=runner_up,
        pinned=state.pinned,
        names=state.names,
        noise=state.noise,
        follow=state.follow,
        made=frozenset(state.made),
        version=len(log),
        base=state.base.digest,
        base_cluster=state.base.cluster,
        conflicts=state.conflicts,
        next_number=state.next_number,
    )


def corrected_table(corrected: Corrected, paths: pa.ChunkedArray) -> pa.Table:
    """The columns of `records.CLUSTERS`, null for what an image does not have; `paths` in the rows' order."""
    values = corrected.silhouette, corrected.runner_up
    return pa.table(
        {
            "id": corrected.ids,
            "path": paths,
            "cluster": corrected.cluster,
            "confidence": corrected.confidence,
            "unsure": corrected.unsure,
            "silhouette": pa.array(values[0], mask=np.isnan(values[0])),
            "runner_up": pa.array(values[1], mask=values[1] == NONE),
        },
        schema=records.CLUSTERS,
    )


def _runners_up(state: Replay) -> tuple[Int32, Bools]:
    """Runners-up under their numbers now, and where the doubt is gone because both clusters were merged."""
    had = state.base.runner_up
    known = (had >= 0) & (had < len(state.follow))
    now = np.where(known, state.follow[had.clip(0, max(len(state.follow) - 1, 0))], NONE).astype(np.int32)
    own = now == state.cluster
    merged = own & (had != state.base.cluster) & known & ~state.pinned
    return np.where(own | state.pinned, NONE, now).astype(np.int32), merged
