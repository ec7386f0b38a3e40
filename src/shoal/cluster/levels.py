"""Coarser and finer clusters that nest: the chosen ones merged by their centroids, and each split by k-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans, threads
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.kmeans import COSINE
from shoal.embeddings import Float32

PARTS = 3  # a cluster is split into at most this many
LEAST_PART = 5  # images that each part has on average, or the cluster stays whole
ROUNDING = 1e-12  # of squared lengths, that a product may be off by
TINY = np.finfo(np.float64).tiny


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

    The pair merged is the one that raises the within-group sum of squares least: s·t/(s+t)·‖a − b‖² (Ward, 1963). Such
    pairs are found along chains of nearest neighbours (Murtagh, 1983; Müllner, Modern hierarchical, agglomerative
    clustering algorithms, 2011, section 3.2 has the proof that the merges are the same): O(K²·d), no distance is kept.
    """
    costs, pairs = _merges(centroids.astype(np.float64), np.asarray(sizes, np.float64))
    group = np.arange(len(centroids))
    for merge in np.argsort(costs, kind="stable")[: max(len(centroids) - groups, 0)]:
        one, other = (_root(group, int(place)) for place in pairs[merge])
        group[max(one, other)] = min(one, other)
    roots = np.array([_root(group, place) for place in range(len(group))])
    numbers: Labels = np.unique(roots, return_inverse=True)[1].astype(np.int32)
    return numbers


def _merges(means: Float64, weights: Float64) -> tuple[Float64, npt.NDArray[np.int64]]:
    """The K − 1 merges as chains find them: what each costs, and a cluster of either side, [K − 1, 2].

    No merge costs less than those that it is made of: in the order of costs, each is the cheapest there is.
    """
    lengths, heights, names = np.einsum("kd,kd->k", means, means), np.zeros(len(means)), np.arange(len(means))
    costs, pairs = np.empty(len(means) - 1), np.empty((len(means) - 1, 2), np.int64)
    chain: list[int] = []  # places, the next of each the nearest to it
    for merge in range(len(costs)):
        chain = chain or [0]
        while True:
            here, before = chain[-1], chain[-2] if len(chain) > 1 else None
            there, cost = _nearest(means, lengths, weights, here, before)
            if there == before:
                break
            chain.append(there)
        del chain[-2:]
        costs[merge] = heights[here] = max(cost, heights[here], heights[there])
        pairs[merge] = names[here], names[there]
        total = weights[here] + weights[there]
        means[here] += (means[there] - means[here]) * (weights[there] / total if total else 0.5)
        lengths[here], weights[here] = means[here] @ means[here], total
        left = np.arange(len(means)) != there
        means, lengths, weights, heights, names = (one[left] for one in (means, lengths, weights, heights, names))
        chain = [place - (place > there) for place in chain]
    return costs, pairs


def _nearest(means: Float64, lengths: Float64, weights: Float64, here: int, before: int | None) -> tuple[int, float]:
    """Which cluster merges with that at `here` at the least cost, and the cost; among equals `before`, or the first.

    A product tells about how far they are, and differences tell exactly where that leaves a doubt: of two clusters the
    cost is the same from either side.
    """
    share = weights * weights[here] / np.maximum(weights + weights[here], TINY)
    scale = lengths + lengths[here]
    rough = share * np.maximum(scale - 2 * (means @ means[here]), 0)
    rough[here] = np.inf
    doubt = ROUNDING * share * scale
    near = rough - doubt <= np.min(rough + doubt)
    near[here] = False
    if before is not None:
        near[before] = True
    places = np.flatnonzero(near)
    gaps = means[places] - means[here]
    exact = share[places] * np.einsum("kd,kd->k", gaps, gaps)
    least = exact.min()
    if before is not None and exact[np.searchsorted(places, before)] <= least:
        return before, float(least)
    return int(places[exact.argmin()]), float(least)


def _root(group: npt.NDArray[np.intp], place: int) -> int:
    while group[place] != place:
        group[place] = group[group[place]]
        place = int(group[place])
    return place


def _split(points: Float32, labels: Labels, k: int, seed: int, metric: str) -> Labels:
    ends = np.cumsum(np.bincount(labels, minlength=k))
    members_of = np.split(np.argsort(labels, kind="stable"), ends[:-1])

    def parts_of(cluster: int) -> Labels:
        members = members_of[cluster]
        parts = min(PARTS, len(members) // LEAST_PART)
        if parts < 2:
            return np.zeros(len(members), np.int32)
        rng = np.random.default_rng([seed, 2, cluster])
        return kmeans.fit(points[members], parts, rng, metric=metric, starts=2).labels

    fine = np.empty(len(labels), np.int32)
    first = 0
    for members, parts in zip(members_of, threads.each(parts_of, range(k)), strict=True):
        fine[members] = first + parts
        first += int(parts.max(initial=-1)) + 1
    return fine
