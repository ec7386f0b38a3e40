"""k-means with one Lloyd loop for two geometries: spherical (cosine, unit rows) and Euclidean.

Both assign a point x to the centroid c with the greatest *score*: x·c on the sphere, x·c − ‖c‖²/2 in Euclidean space
(minus half the squared distance, up to a term of x alone). Memory is bounded by a block of scores.

Many clusters start as parts of fewer: k-means++ looks at every point for every cluster, one after another, which is
quadratic in K where points grow with clusters.

Sources: Lloyd, Least squares quantization in PCM (1982); Arthur and Vassilvitskii, k-means++ (2007), with the greedy
trials of scikit-learn; Dhillon and Modha, Concept decompositions (2001) for the spherical form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.cluster import threads
from shoal.cluster.arrays import Float64, Labels
from shoal.embeddings import Float32, normalise_rows, products
from shoal.neighbours.search import likely_error

COSINE: Final = "cosine"
EUCLIDEAN: Final = "euclidean"

BLOCK_SCORES = 1 << 18  # scores held at once; a block of them (1 MB) stays in a core's cache
START_IMAGES = 10_000  # starts are compared on a sample of this many points; the best goes on with all of them
START_IMAGES_PER_CLUSTER = 25
MANY = 512  # with more clusters the start is made of parts, and one start does
PART_CLUSTERS = 256  # about, that a part is cut into
PART_ROUNDS = 10  # of Lloyd, of the parts and in each
SUMMED_BY_PRODUCT = 128  # up to this many clusters BLAS adds up points sooner than sorting them by cluster does
SORTED_VALUES = 1 << 20  # of points that are sorted at once
PASS_SCORES = 1 << 26  # of a pass over the points that one core takes on


Scoring = Callable[[Float32, Float32, str], Iterator[tuple[slice, Float32]]]  # points, centroids, metric


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
        centroids = (plus_plus if k <= MANY else _of_parts)(sample, k, rng, metric=metric)
        found = lloyd(sample, centroids, metric=metric, max_iterations=max_iterations, tolerance=tolerance)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    if sample is points:
        return best
    rounds = max_iterations if polish_iterations is None else polish_iterations
    return lloyd(points, best.centroids, metric=metric, max_iterations=rounds, tolerance=tolerance)


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
        labels, scores, sums, counts = _assign_and_sum(points, centroids, metric, _estimates)
        _refill(points, labels, scores, sums, counts, centroids, metric)
        moved = _means(sums, counts, metric)
        shift = float(np.mean(np.sum((moved - centroids).astype(np.float64) ** 2, axis=1)))
        centroids = moved
        if shift <= tolerance * scale or (previous is not None and np.array_equal(labels, previous)):
            break
        previous = labels
    labels, scores, sums, counts = _assign_and_sum(points, centroids, metric, score_blocks)
    _refill(points, labels, scores, sums, counts, centroids, metric)
    return Clustering(labels, centroids, inertia(points, labels, centroids, metric), iterations)


def assign(points: Float32, centroids: Float32, *, metric: str = COSINE) -> tuple[Labels, Float32]:
    """The best centroid of each point, int32 [N], and its score, float32 [N]. Ties go to the lower number."""
    return _nearest(points, centroids, metric, score_blocks)


def score_blocks(points: Float32, centroids: Float32, metric: str = COSINE) -> Iterator[tuple[slice, Float32]]:
    """Yield (slice of points, scores float32 [points of the slice, K]); greater is nearer.

    Where the last bit would choose among the nearest centroids, it is that of a sum in a fixed order: a matrix product
    rounds by place, and would set apart equal points, or equal centroids.
    """
    gap = np.float32(2 * likely_error(points.shape[1]) * _largest_score(points, centroids, metric))
    offset = _offset(centroids, metric)
    for where, scores in _estimates(points, centroids, metric):
        close = scores >= scores.max(axis=1, keepdims=True) - gap
        rows = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)
        columns = np.flatnonzero(close[rows].any(axis=0))
        again = products(points[where][rows], centroids[columns]) - offset[columns]
        tied = np.ix_(rows, columns)
        scores[tied] = np.where(close[tied], again, scores[tied])
        yield where, scores


def plus_plus(points: Float32, k: int, rng: np.random.Generator, *, metric: str = COSINE) -> Float32:
    """Choose `k` of the points as first centroids, far apart: greedy k-means++. Returns float32 [k, d]."""
    trials = 2 + int(np.log(k))
    norms = np.einsum("nd,nd->n", points, points)
    first = int(rng.integers(len(points)))
    chosen = [first]
    nearest = _squared_distances(points, norms, np.array([first]))[:, 0]
    for _ in range(1, k):
        candidates = _draw(nearest, trials, rng)
        reached = np.minimum(nearest[:, None], _squared_distances(points, norms, candidates))  # [N, trials]
        best = int(reached.sum(axis=0, dtype=np.float64).argmin())
        chosen.append(int(candidates[best]))
        nearest = np.ascontiguousarray(reached[:, best])
    return points[chosen]


def starts_for(k: int, most: int) -> int:
    """How many starts pay: `most` for few clusters, one for many, whose starts differ by less than a restart gains."""
    return most if k <= MANY else 1


def cluster_sums(points: Float32, labels: Labels, k: int) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Sum of the points of each cluster, float64 [k, d], and their number, int64 [k]."""
    sums = np.zeros((k, points.shape[1]), np.float64)
    by_product = k <= SUMMED_BY_PRODUCT
    rows = max(1, BLOCK_SCORES // k if by_product else SORTED_VALUES // points.shape[1])
    for start in range(0, len(points), rows):
        (_add_by_product if by_product else _add_sorted)(
            sums, points[start : start + rows], labels[start : start + rows]
        )
    return sums, np.bincount(labels, minlength=k)


def means_of(points: Float32, labels: Labels, metric: str) -> Float32:
    """Mean of each cluster's points, float32 [K, d], of unit length if the metric is cosine; K: last label + 1."""
    return _means(*cluster_sums(points, labels, int(labels.max()) + 1), metric)


def number_by_size(labels: Labels, k: int) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Number clusters from 0 by falling size, ties by the smallest index of a member.

    Returns:
        The new labels int32 [N], and `order` int64 [k]: the old number of each new cluster.
    """
    counts = np.bincount(labels, minlength=k)
    first = np.full(k, len(labels), np.int64)
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -counts))
    rank = np.empty(k, np.int32)
    rank[order] = np.arange(k, dtype=np.int32)
    return rank[labels], order


def _of_parts(points: Float32, k: int, rng: np.random.Generator, *, metric: str) -> Float32:
    """First centroids [k, d] of k/256 clusters, each cut into its share of the k by its part of the inertia."""
    whole = fit(points, k // PART_CLUSTERS, rng, metric=metric, starts=1, max_iterations=PART_ROUNDS)
    order = np.argsort(whole.labels, kind="stable")
    sizes = np.bincount(whole.labels, minlength=len(whole.centroids))
    members = np.split(points[order], np.cumsum(sizes)[:-1])
    spread = np.array([_spread(rows, centre) for rows, centre in zip(members, whole.centroids, strict=True)])
    shares = _shared_out(k, spread if spread.sum() > 0 else sizes.astype(np.float64), sizes)
    seeds = rng.integers(2**63, size=len(members))

    def cut(part: int) -> Float32:
        own = np.random.default_rng(seeds[part])
        first = plus_plus(members[part], int(shares[part]), own, metric=metric)
        return lloyd(members[part], first, metric=metric, max_iterations=PART_ROUNDS).centroids

    return np.concatenate(list(threads.each(cut, range(len(members)))))


def _spread(points: Float32, centre: Float32) -> float:
    difference = points - centre
    return float(np.einsum("nd,nd->", difference, difference, dtype=np.float64))


def _shared_out(k: int, weights: Float64, most: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`k` in whole parts in proportion to `weights` [m], each from 1 to `most` [m]; k from m to their sum."""
    wanted = k * weights / weights.sum()
    parts: npt.NDArray[np.int64] = np.clip(np.floor(wanted).astype(np.int64), 1, most)
    while (missing := k - int(parts.sum())) != 0:
        room = parts < most if missing > 0 else parts > 1
        gain = np.where(room, (wanted - parts) * np.sign(missing), -np.inf)
        chosen = np.argsort(-gain, kind="stable")[: min(abs(missing), int(room.sum()))]
        parts[chosen] += np.sign(missing)
    return parts


def _sample(points: Float32, size: int, rng: np.random.Generator) -> Float32:
    if len(points) <= size:
        return points
    return points[np.sort(rng.choice(len(points), size, replace=False))]


def _draw(weights: Float32, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `count` indices with probability in proportion to `weights`; evenly if all are zero."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    if cumulative[-1] <= 0:
        return rng.integers(len(weights), size=count)
    drawn: npt.NDArray[np.int64] = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    np.minimum(drawn, len(weights) - 1, out=drawn)
    return drawn


def _squared_distances(points: Float32, norms: Float32, chosen: npt.NDArray[np.int64]) -> Float32:
    """Squared Euclidean distance of every point to the `chosen` ones, [N, chosen]; on the sphere twice 1 − cosine."""
    distances: Float32 = points @ points[chosen].T
    distances *= -2
    distances += norms[:, None]
    distances += norms[chosen]
    np.maximum(distances, 0, out=distances)
    return distances


def _estimates(points: Float32, centroids: Float32, metric: str) -> Iterator[tuple[slice, Float32]]:
    """Yield (slice of points, scores [points of the slice, K]) as a matrix product rounds them."""
    transposed = np.ascontiguousarray(centroids.T)
    offset = _offset(centroids, metric)
    rows = max(1, BLOCK_SCORES // len(centroids))
    for start in range(0, len(points), rows):
        where = slice(start, min(start + rows, len(points)))
        scores = points[where] @ transposed  # [rows, K]
        if metric == EUCLIDEAN:
            scores -= offset
        yield where, scores


def _offset(centroids: Float32, metric: str) -> Float32:
    """What is taken from the products with each centroid, [K]."""
    if metric == COSINE:
        return np.zeros(len(centroids), np.float32)
    offset: Float32 = np.float32(0.5) * np.einsum("kd,kd->k", centroids, centroids)
    return offset


def _largest_score(points: Float32, centroids: Float32, metric: str) -> float:
    """A bound on the size of the scores."""
    if metric == COSINE:
        return 1.0
    point, centroid = (math.sqrt(np.einsum("nd,nd->n", rows, rows).max(initial=0)) for rows in (points, centroids))
    return point * centroid + centroid**2 / 2


def _assign_and_sum(
    points: Float32, centroids: Float32, metric: str, scoring: Scoring
) -> tuple[Labels, Float32, Float64, npt.NDArray[np.int64]]:
    """One pass over the points: labels [N], their scores [N], sums [K, d] and counts [K] of the clusters."""
    labels, scores = _nearest(points, centroids, metric, scoring)
    return labels, scores, *cluster_sums(points, labels, len(centroids))


def _nearest(points: Float32, centroids: Float32, metric: str, scoring: Scoring) -> tuple[Labels, Float32]:
    labels = np.empty(len(points), np.int32)
    scores = np.empty(len(points), np.float32)

    def look(start: int) -> None:
        part = slice(start, start + rows)
        for where, block in scoring(points[part], centroids, metric):
            labels[part][where] = block.argmax(axis=1)
            scores[part][where] = block[np.arange(len(block)), labels[part][where]]

    rows = max(1, PASS_SCORES // len(centroids))
    if len(points) <= rows:
        look(0)
    else:
        list(threads.each(look, range(0, len(points), rows)))
    return labels, scores


def _add_by_product(sums: Float64, points: Float32, labels: Labels) -> None:
    """Add points [n, d] to the sums [K, d] of their clusters, by a product with the one-hot labels."""
    members = np.zeros((len(points), len(sums)), np.float32)
    members[np.arange(len(points)), labels] = 1
    sums += members.T @ points


def _add_sorted(sums: Float64, points: Float32, labels: Labels) -> None:
    """The same in a time that does not grow with the number of clusters."""
    order = np.argsort(labels, kind="stable")
    there, first = np.unique(labels[order], return_index=True)
    sums[there] += np.add.reduceat(points[order], first, axis=0)


def _means(sums: Float64, counts: npt.NDArray[np.int64], metric: str) -> Float32:
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return normalise_rows(means) if metric == COSINE else means


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


def inertia(points: Float32, labels: Labels, centroids: Float32, metric: str) -> float:
    """Sum over points of 1 − cosine, or of the squared distance, to the centroid of their label."""
    total = 0.0
    rows = max(1, BLOCK_SCORES // points.shape[1])
    for start in range(0, len(points), rows):
        where = slice(start, start + rows)
        difference = points[where] - centroids[labels[where]]
        total += float(np.einsum("nd,nd->", difference, difference, dtype=np.float64))
    return total / 2 if metric == COSINE else total
