"""One fit: the best of several starts, found on a sample, goes on with all points."""

from __future__ import annotations

import numpy as np

from shoal.cluster.kmeans.rounds import Clustering, lloyd
from shoal.cluster.kmeans.scores import COSINE
from shoal.cluster.kmeans.starts import PART_CLUSTERS, PART_ROUNDS, of_parts, plus_plus
from shoal.embeddings import Float32

START_IMAGES = 10_000  # starts are compared on a sample of this many points; the best goes on with all of them
START_IMAGES_PER_CLUSTER = 25
MANY = 512  # with more clusters the start is made of parts, and one start does


def fit(
    points: Float32,
    k: int,
    rng: np.random.Generator,
    *,
    metric: str = COSINE,
    starts: int = 4,
    max_iterations: int = 100,
    polish_iterations: int | None = None,
    tolerance: float = 1e-6,
) -> Clustering:
    """Cluster `points` float32 [N, d] (unit rows if the metric is cosine) into `k` clusters, none of them empty.

    Args:
        starts: the one with the least inertia is kept.
        polish_iterations: rounds on all points where the starts saw only a sample; `max_iterations` by default.
        tolerance: stop when the centroids' mean squared move is at most this part of the points' mean squared length.

    Raises:
        ValueError: k is not between 1 and N.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"k has value {k}; expected a whole number from 1 to the number of points, {len(points)}")
    sample = _sample(points, max(START_IMAGES, START_IMAGES_PER_CLUSTER * k), rng)
    best: Clustering | None = None
    for _ in range(starts):
        centroids = _first(sample, k, rng, metric)
        found = lloyd(sample, centroids, metric=metric, max_iterations=max_iterations, tolerance=tolerance)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    if sample is points:
        return best
    rounds = max_iterations if polish_iterations is None else polish_iterations
    return lloyd(points, best.centroids, metric=metric, max_iterations=rounds, tolerance=tolerance)


def starts_for(k: int, most: int) -> int:
    """How many starts pay: `most` for few clusters, one for many, whose starts differ by less than a restart gains."""
    return most if k <= MANY else 1


def _first(points: Float32, k: int, rng: np.random.Generator, metric: str) -> Float32:
    """First centroids [k, d]."""
    if k <= MANY:
        return plus_plus(points, k, rng, metric=metric)
    whole = fit(points, k // PART_CLUSTERS, rng, metric=metric, starts=1, max_iterations=PART_ROUNDS)
    return of_parts(points, whole, k, rng, metric=metric)


def _sample(points: Float32, size: int, rng: np.random.Generator) -> Float32:
    if len(points) <= size:
        return points
    return points[np.sort(rng.choice(len(points), size, replace=False))]
