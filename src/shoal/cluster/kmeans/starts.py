"""First centroids: far apart, or, of many clusters, those of parts of fewer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster import threads
from shoal.cluster.arrays import Float64
from shoal.cluster.kmeans.rounds import Clustering, lloyd
from shoal.cluster.kmeans.scores import COSINE
from shoal.embeddings import Float32

PART_CLUSTERS = 256  # about, that a part is cut into
PART_ROUNDS = 10  # of Lloyd, of the parts and in each


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


def of_parts(points: Float32, whole: Clustering, k: int, rng: np.random.Generator, *, metric: str) -> Float32:
    """First centroids [k, d] of the clusters of `whole`, each cut into its part of the k by its inertia."""
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
