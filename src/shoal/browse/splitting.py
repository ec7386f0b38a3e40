"""Previews of splits: a cluster parted by k-means among its own images, kept until the person takes one."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoal.browse.errors import MissingError
from shoal.browse.snapshot import Rows, Snapshot
from shoal.cluster import kmeans, threads
from shoal.cluster.arrays import Labels
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import points_of
from shoal.corrections.base import Int64
from shoal.errors import RequestError

KEPT: Final = 20
STARTS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """Parts of a cluster, the largest first: ids of each, and its rows, surest first."""

    token: str
    cluster: int
    version: int
    parts: tuple[Int64, ...]
    rows: tuple[Rows, ...]


class Previews:
    """Makes previews and keeps the latest ones; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Preview] = OrderedDict()

    def make(self, snapshot: Snapshot, cluster: int, parts: int) -> Preview:
        """Part a cluster into `parts`. Raises RequestError if it has too few different images."""
        rows = snapshot.chosen.rows(cluster)
        if not len(rows):
            raise MissingError(f"there is no cluster {cluster}")
        originals = snapshot.corrected.original[rows]
        part_of = self._cluster(snapshot, np.unique(originals), parts)
        labels = part_of[np.searchsorted(np.unique(originals), originals)]
        order = np.argsort(-np.bincount(labels), kind="stable")
        members = tuple(rows[labels == part] for part in order)
        ids = tuple(np.sort(snapshot.corrected.ids[part]) for part in members)
        made = Preview(secrets.token_urlsafe(12), cluster, snapshot.corrected.version, ids, members)
        with self._lock:
            self._kept[made.token] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made

    def find(self, token: str) -> Preview:
        """Raises MissingError if it is too old."""
        with self._lock:
            if token not in self._kept:
                raise MissingError("the preview of this split is no longer kept; preview it again")
            return self._kept[token]

    def _cluster(self, snapshot: Snapshot, originals: Rows, parts: int) -> Labels:
        if len(originals) < parts:
            raise RequestError(f"parts has value {parts}; the cluster has only {len(originals)} different images")
        run_dir = snapshot.run_dir
        space = ClusterModel.load(run_dir.model).space.plain
        store = snapshot.store
        points, _ = points_of(space, store, snapshot.corrected.ids[originals])

        def fit(k: int) -> Labels:
            return kmeans.fit(
                points, k, np.random.default_rng([k, len(points)]), metric=space.metric, starts=STARTS
            ).labels

        labels = next(threads.each(fit, [parts]))
        if len(np.unique(labels)) < 2:
            raise RequestError("all images of this cluster look the same to the backbone; there is nothing to split by")
        return labels
