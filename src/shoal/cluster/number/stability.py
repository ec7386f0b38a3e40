"""How well a number of clusters survives resampling: cluster random parts of the points, compare what they share.

A number of clusters that fits the data gives the same groups whichever images happen to be there (Ben-Hur, Elisseeff
and Guyon, 2002; von Luxburg, Clustering stability, 2010).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from shoal.cluster import kmeans
from shoal.cluster.arrays import Labels
from shoal.cluster.contingency import Contingency, adjusted_rand, contingency, together
from shoal.embeddings import Float32

RESAMPLES = 4
RESAMPLED_SHARE = 0.8
RESAMPLED_IMAGES = 4_000  # resamples are parts of a sample of this many points ...
RESAMPLED_IMAGES_PER_CLUSTER = 25  # ... or of this many a cluster if that is more
STARTS = 2
MAX_ITERATIONS = 50


@dataclass(frozen=True, slots=True)
class Stability:
    """Means over all pairs of resamples.

    Attributes:
        rand: adjusted Rand index, at most 1; 0 is what chance gives.
        together: share of the pairs of points together in one resample that are together in the other, 0 to 1.
    """

    rand: float
    together: float


def of_resamples(points: Float32, k: int, rng: np.random.Generator, metric: str) -> Stability:
    """Cluster resamples of `points` [N, d] into `k` clusters each and compare them on their overlaps.

    1 for both where a resample would have no more points than clusters: there every point is a cluster of its own.
    """
    size = min(len(points), max(RESAMPLED_IMAGES, RESAMPLED_IMAGES_PER_CLUSTER * k))
    part = round(RESAMPLED_SHARE * size)
    if part <= k:
        return Stability(1.0, 1.0)
    sample = points if size == len(points) else points[np.sort(rng.choice(len(points), size, replace=False))]
    labellings = []
    for _ in range(RESAMPLES):
        chosen = np.sort(rng.choice(size, part, replace=False))
        labels = np.full(size, -1, np.int32)
        starts = kmeans.starts_for(k, STARTS)
        found = kmeans.fit(sample[chosen], k, rng, metric=metric, starts=starts, max_iterations=MAX_ITERATIONS)
        labels[chosen] = found.labels
        labellings.append(labels)
    tables = list(_overlaps(labellings, k))
    return Stability(
        float(np.mean([adjusted_rand(table) for table in tables])),
        float(np.mean([together(table) for table in tables])),
    )


def _overlaps(labellings: list[Labels], k: int) -> Iterator[Contingency]:
    for first, second in combinations(labellings, 2):
        shared = (first >= 0) & (second >= 0)
        yield contingency(first[shared], second[shared], k)
