"""Coarser and finer clusters that nest: the chosen ones merged by their centroids, and each split by k-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans, threads
from shoal.cluster.kmeans import COSINE, Labels
from shoal.embeddings import Float32

PARTS = 3  # a cluster is split into at most this many
LEAST_PART = 5  # images that each part has on average, or the cluster stays whole


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Cluster of every image at three levels, int32 [N]; each finer level nests in the coarser one."""

    coarse: Labels
    medium: Labels
    fine: Labels


def nested(points: Float32, labels: Labels, centroids: Float32, seed: int, metric: str = COSINE) -> Levels:
    """Levels above and below the clustering `labels` [N] of `points` [N, d] with `centroids` [K, d]."""
    sizes = np.bincount(labels, minlength=len(centroids))
    groups = merged(centroids, sizes, max(2, round(len(centroids) ** 0.5)) if len(centroids) > 2 else len(centroids))
    return Levels(groups[labels], labels, _split(points, labels, len(centroids), seed, metric))


def merged(centroids: Float32, sizes: npt.NDArray[np.int64], groups: int) -> Labels:
    """Merge clusters into `groups` by Ward's criterion on their centroids; group of each cluster, int32 [K].

    The pair merged is the one that raises the within-group sum of squares least: s·t/(s+t)·‖a − b‖² (Ward, 1963).
    """
    group = np.arange(len(centroids), dtype=np.int32)
    means = centroids.astype(np.float64)
    weights = np.asarray(sizes, dtype=np.float64).copy()
    alive = list(range(len(centroids)))
    while len(alive) > groups:
        where = np.array(alive)
        lengths = np.sum(means[where] ** 2, axis=1)
        distances = lengths[:, None] + lengths - 2 * means[where] @ means[where].T
        weight = weights[where]
        cost = np.maximum(distances, 0) * (weight[:, None] * weight) / (weight[:, None] + weight)
        np.fill_diagonal(cost, np.inf)
        one, other = np.unravel_index(int(cost.argmin()), cost.shape)
        into, gone = alive[min(one, other)], alive[max(one, other)]
        total = weights[into] + weights[gone]
        means[into] = (means[into] * weights[into] + means[gone] * weights[gone]) / total
        weights[into] = total
        group[group == gone] = into
        alive.remove(gone)
    numbers: Labels = np.unique(group, return_inverse=True)[1].astype(np.int32)
    return numbers


def _split(points: Float32, labels: Labels, k: int, seed: int, metric: str) -> Labels:
    def parts_of(cluster: int) -> tuple[Labels, Labels]:
        members = np.flatnonzero(labels == cluster).astype(np.int32)
        parts = min(PARTS, len(members) // LEAST_PART)
        if parts < 2:
            return members, np.zeros(len(members), np.int32)
        rng = np.random.default_rng([seed, 2, cluster])
        return members, kmeans.fit(points[members], parts, rng, metric=metric, starts=2).labels

    fine = np.empty(len(labels), np.int32)
    first = 0
    for members, parts in threads.each(parts_of, range(k)):
        fine[members] = first + parts
        first += int(parts.max()) + 1
    return fine
