"""How well a number of clusters survives resampling: cluster random parts of the points, compare what they share.

A number of clusters that fits the data gives the same groups whichever images happen to be there (Ben-Hur, Elisseeff
and Guyon, 2002; von Luxburg, Clustering stability, 2010).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans
from shoal.cluster.kmeans import Float64, Labels
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


@dataclass(frozen=True, slots=True, eq=False)
class Contingency:
    """How many points have each pair of labels; only pairs that occur, which are no more than there are points.

    Attributes:
        first, second: labels of each pair, [pairs], from 0 to k − 1; by rising first, then second.
        count: int64 [pairs], 1 or more.
    """

    first: Labels
    second: Labels
    count: npt.NDArray[np.int64]
    k: int

    def dense(self) -> npt.NDArray[np.int64]:
        """The table [k, k]."""
        table = np.zeros((self.k, self.k), np.int64)
        table[self.first, self.second] = self.count
        return table


def matched(table: Contingency) -> float:
    """Greatest share of the points that a one-to-one match of first and second labels covers."""
    from scipy.sparse import csgraph, csr_array  # noqa: PLC0415  (as in linkage; scipy.optimize takes longer to load)

    counts = table.dense()
    missed = csr_array(counts.max() + 1 - counts)  # above 0, or the pair could not be matched
    rows, columns = csgraph.min_weight_full_bipartite_matching(missed)
    return float(counts[rows, columns].sum() / counts.sum())


def contingency(first: Labels, second: Labels, k: int) -> Contingency:
    """Pairs of labels [n] and [n], which run from 0 to k − 1."""
    pairs, count = np.unique(first.astype(np.int64) * k + second, return_counts=True)
    return Contingency((pairs // k).astype(np.int32), (pairs % k).astype(np.int32), count.astype(np.int64), k)


def adjusted_rand(table: Contingency) -> float:
    """Adjusted Rand index (Hubert and Arabie, Comparing partitions, 1985, equation 5)."""
    both, first, second, possible = _pairs(table)
    expected = first * second / possible if possible else 0.0
    largest = (first + second) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def together(table: Contingency) -> float:
    """Share of the pairs that are together in one labelling that are together in the other (mean over both ways)."""
    both, first, second, _ = _pairs(table)
    return 1.0 if first + second == 0 else 2 * both / (first + second)


def _pairs(table: Contingency) -> tuple[float, float, float, float]:
    """Pairs of points together in both labellings, in the first, in the second, and all pairs."""

    def count(sizes: npt.NDArray[np.integer] | Float64) -> float:
        values = sizes.astype(np.float64)
        return float(np.sum(values * (values - 1)) / 2)

    margins = (np.bincount(labels, table.count, table.k) for labels in (table.first, table.second))
    first, second = (count(sizes) for sizes in margins)
    return count(table.count), first, second, count(table.count.sum(keepdims=True))


def _overlaps(labellings: list[Labels], k: int) -> Iterator[Contingency]:
    for first, second in combinations(labellings, 2):
        shared = (first >= 0) & (second >= 0)
        yield contingency(first[shared], second[shared], k)
