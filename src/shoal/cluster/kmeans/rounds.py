"""Rounds of Lloyd: points go to the nearest centroid, centroids to the mean of their points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.kmeans.scores import BLOCK_SCORES, COSINE, EUCLIDEAN, Scoring, estimates, nearest, score_blocks
from shoal.cluster.kmeans.sums import cluster_sums, means_from
from shoal.embeddings import Float32


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """What one fit found.

    Attributes:
        labels: int32 [N], from 0 to K − 1; every cluster has at least one point if N >= K.
        centroids: float32 [K, d]; unit rows if the metric is cosine.
        inertia: sum over points of 1 − cosine, or of the squared distance, to their centroid.
        iterations: rounds of Lloyd on all points.
    """

    labels: Labels
    centroids: Float32
    inertia: float
    iterations: int


def lloyd(
    points: Float32, centroids: Float32, *, metric: str, max_iterations: int = 100, tolerance: float = 1e-6
) -> Clustering:
    """Alternate assignment and means from the given `centroids` until nothing moves.

    A cluster that runs empty takes over the point farthest from its centroid, of a cluster that has others left.
    """
    scale = float(np.einsum("nd,nd->", points, points, dtype=np.float64)) / len(points)
    centroids = centroids.copy()
    previous: Labels | None = None
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        labels, scores, sums, counts = _assign_and_sum(points, centroids, metric, estimates)
        _refill(points, labels, scores, sums, counts, centroids, metric)
        moved = means_from(sums, counts, metric)
        shift = float(np.mean(np.sum((moved - centroids).astype(np.float64) ** 2, axis=1)))
        centroids = moved
        if shift <= tolerance * scale or (previous is not None and np.array_equal(labels, previous)):
            break
        previous = labels
    labels, scores, sums, counts = _assign_and_sum(points, centroids, metric, score_blocks)
    _refill(points, labels, scores, sums, counts, centroids, metric)
    return Clustering(labels, centroids, inertia(points, labels, centroids, metric), iterations)


def inertia(points: Float32, labels: Labels, centroids: Float32, metric: str) -> float:
    """Sum over points of 1 − cosine, or of the squared distance, to the centroid of their label."""
    total = 0.0
    rows = max(1, BLOCK_SCORES // points.shape[1])
    for start in range(0, len(points), rows):
        where = slice(start, start + rows)
        difference = points[where] - centroids[labels[where]]
        total += float(np.einsum("nd,nd->", difference, difference, dtype=np.float64))
    return total / 2 if metric == COSINE else total


def _assign_and_sum(
    points: Float32, centroids: Float32, metric: str, scoring: Scoring
) -> tuple[Labels, Float32, Float64, npt.NDArray[np.int64]]:
    """One pass over the points: labels [N], their scores [N], sums [K, d] and counts [K] of the clusters."""
    labels, scores = nearest(points, centroids, metric, scoring)
    return labels, scores, *cluster_sums(points, labels, len(centroids))


def _refill(
    points: Float32,
    labels: Labels,
    scores: Float32,
    sums: Float64,
    counts: npt.NDArray[np.int64],
    centroids: Float32,
    metric: str,
) -> None:
    """Give every empty cluster the farthest point that can be spared; labels, sums and counts change in place."""
    empty = np.flatnonzero(counts == 0)
    if len(empty) == 0:
        return
    lengths = np.einsum("nd,nd->n", points, points) if metric == EUCLIDEAN else np.float32(1)
    farthest_first = iter(np.argsort(2 * scores - lengths, kind="stable"))
    for cluster in empty:
        point = next((int(p) for p in farthest_first if counts[labels[p]] > 1), None)
        if point is None:
            return
        for number, change in ((labels[point], -1), (cluster, 1)):
            sums[number] += change * points[point].astype(np.float64)
            counts[number] += change
        labels[point] = cluster
        centroids[cluster] = points[point]
