"""Communities: groups of images with many neighbours among themselves, in a graph of shared neighbours.

Their sizes come out as they are, where k-means makes clusters of about the same size. The algorithm is that of Leiden
(Traag, Waltman and van Eck, From Louvain to Leiden, 2019), by modularity with a resolution (Reichardt and Bornholdt,
Statistical mechanics of community detection, 2006), from graspologic-native.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.cluster.ground import prepare
from shoal.cluster.heads import Neighbours
from shoal.cluster.kmeans import Float64, Labels
from shoal.cluster.placed import Placed, place, sample_of, teach
from shoal.cluster.space import Rows
from shoal.embeddings import Ids

Graph = Any  # scipy.sparse.csr_array of float64 [n, n], symmetric, without a diagonal

NEAREST = 15  # neighbours that the graph of `find` is made of
BLOCK_VALUES = 1 << 24  # of the table of who is whose neighbour
PER_CLUSTER = 25  # a community of less than this part of the mean cluster is not counted: few images by themselves
MOST_TRIALS = 16
STRIDE = 0.3  # of the logarithm of the resolution, first
PATIENCE = 3  # trials after which a few communities too many will do, and the nearest are merged
NEARLY = 0.1  # a few: this part of those asked for, but one at the least
NARROW = 1e-3  # of the logarithm, that a resolution is looked for in


@dataclass(frozen=True, slots=True, eq=False)
class Communities:
    """Communities of n images: labels int32 [n], and the resolution of the modularity that gave them."""

    labels: Labels
    resolution: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Communities of all images, placed by one head, and the modularity [-1, 1] of those looked at together."""

    placed: Placed
    modularity: float


def find(store: Rows, ids: Ids, k: int, seed: int) -> Found:
    """Cut the images `ids` in `store` into `k` communities.

    One linear head learns them. It gives images between two communities to the likelier one, places those beyond the
    60,000 that the graph is made of, and new ones.
    """
    sample = sample_of(len(ids), seed)
    ground = prepare(store, ids, sample, seed)
    graph = shared_neighbours(ground.neighbours[:, :NEAREST])
    own = int(np.random.default_rng([seed, k, 14]).integers(2**31))
    found = communities(graph, k, own)
    placed = place(ground, teach(ground, found.labels, k, seed), k, store, ids, sample)
    return Found(placed, modularity(graph, placed.found.labels[sample]))


def shared_neighbours(neighbours: Neighbours) -> Graph:
    """The graph that joins images to their neighbours [n, m], as strongly as they share neighbours.

    The weight is the Jaccard index of the two sets of an image and its neighbours; of an edge that only one side has,
    as of any other.
    """
    from scipy import sparse  # noqa: PLC0415  (a tenth of a second that k-means need not wait for)

    n, m = neighbours.shape
    weights = np.empty((n, m))
    rows = max(1, BLOCK_VALUES // n)
    mine = np.zeros((min(rows, n), n), bool)
    for start in range(0, n, rows):
        own = np.arange(start, min(start + rows, n))
        sets = np.concatenate([own[:, None], neighbours[own]], axis=1)  # [rows, m + 1]
        np.put_along_axis(mine[: len(own)], sets, True, axis=1)
        theirs = np.concatenate([neighbours[own][:, :, None], neighbours[neighbours[own]]], axis=2)
        shared = np.take_along_axis(mine[: len(own)], theirs.reshape(len(own), -1), axis=1)
        weights[own] = shared.reshape(theirs.shape).sum(axis=2)
        np.put_along_axis(mine[: len(own)], sets, False, axis=1)
    weights /= 2 * (m + 1) - weights
    links = sparse.csr_array((weights.ravel(), neighbours.ravel(), np.arange(0, n * m + 1, m)), shape=(n, n))
    graph = links.maximum(links.T).tocsr()
    graph.sort_indices()
    return graph


def communities(graph: Graph, k: int, seed: int, resolution: float = 1.0) -> Communities:
    """Cut `graph` [n, n] into `k` communities, by bisection of the resolution, which begins at `resolution`.

    Communities of a few images are not counted, and join the one that they are joined to most. Where no resolution
    gives `k`, the most joined of too many are merged; so `k` come out wherever there are as many images.
    """
    n = graph.shape[0]
    if k >= n:
        return Communities(np.arange(n, dtype=np.int32), resolution)
    least = max(1, n // (PER_CLUSTER * k))
    low, high = -math.inf, math.inf  # too few communities, and too many
    best: tuple[int, Labels, float] | None = None
    place = math.log(resolution)
    for trial in range(MOST_TRIALS):
        labels = leiden(graph, math.exp(place), seed)
        counted = int(np.sum(np.bincount(labels) >= least))
        if counted >= k and (best is None or counted < best[0]):
            best = counted, labels, math.exp(place)
        if best is not None and best[0] <= (k if trial < PATIENCE else k + max(1, NEARLY * k)):
            break
        low, high = (place, high) if counted < k else (low, place)
        if high - low < NARROW:
            break
        stride = STRIDE * (1 + trial)
        place = place + stride if high == math.inf else place - stride if low == -math.inf else (low + high) / 2
    if best is None:  # not even a far finer resolution has enough of a size to be counted
        labels = leiden(graph, math.exp(place), seed)
        return Communities(_fewer(graph, _enough(labels, k), k, 1), math.exp(place))
    return Communities(_fewer(graph, best[1], k, least), best[2])


def leiden(graph: Graph, resolution: float, seed: int) -> Labels:
    """Communities of `graph` [n, n] by modularity, int32 [n] from 0 up."""
    from graspologic_native import leiden_csr  # noqa: PLC0415

    n = graph.shape[0]
    if graph.nnz == 0:
        return np.arange(n, dtype=np.int32)
    parts = graph.indptr.astype(np.int64), graph.indices.astype(np.int32), graph.data
    _, found = leiden_csr(*parts, n, resolution=resolution, seed=seed)
    labels = np.empty(n, np.int32)
    labels[np.fromiter(found.keys(), np.int64, n)] = np.fromiter(found.values(), np.int64, n)
    return labels


def modularity(graph: Graph, labels: Labels, resolution: float = 1.0) -> float:
    """Share of the weight inside communities, less resolution times what chance would put there."""
    joined = _joined(graph, labels, int(labels.max()) + 1)
    total = joined.sum()
    shares = joined.sum(axis=1) / total
    return float(np.trace(joined) / total - resolution * np.sum(shares**2))


def _joined(graph: Graph, labels: Labels, k: int) -> Float64:
    """Weight between communities, float64 [k, k]; inside of them counted from both ends."""
    from scipy import sparse  # noqa: PLC0415

    n = len(labels)
    member = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, k))
    between: Float64 = (member.T @ (graph @ member)).toarray()
    return between


def _fewer(graph: Graph, labels: Labels, k: int, least: int) -> Labels:
    """At most `k` communities: the most joined merge, for their sizes, and those of less than `least` images first."""
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    count = int(labels.max()) + 1
    group, sizes = np.arange(count), np.bincount(labels).astype(np.float64)
    joined = _joined(graph, labels, count)
    np.fill_diagonal(joined, 0)
    weight = sizes.copy()  # stands for the degree, which is about the same for all images, and never 0
    alive = np.ones(count, bool)

    def merge(one: int, other: int) -> None:
        joined[one] += joined[other]
        joined[:, one] += joined[:, other]
        joined[one, one] = 0
        joined[other] = joined[:, other] = 0
        sizes[one] += sizes[other]
        weight[one] += weight[other]
        alive[other] = False
        group[group == other] = one

    def partner(one: int) -> int:
        tightness = np.where(alive, (joined[one] + 1e-12) / weight, -1.0)
        tightness[one] = -1.0
        return int(tightness.argmax())

    while alive.sum() > k:
        small = np.flatnonzero(alive & (sizes < least))
        if len(small):
            one = int(small[sizes[small].argmin()])
            merge(partner(one), one)
            continue
        tightness = (joined + 1e-12) / np.outer(weight, weight)  # unjoined: the smallest first
        tightness[~alive] = tightness[:, ~alive] = -1.0
        np.fill_diagonal(tightness, -1.0)
        one, other = divmod(int(tightness.argmax()), count)
        merge(one, other)
    numbers: Labels = np.unique(group[labels], return_inverse=True)[1].astype(np.int32)
    return numbers


def _enough(labels: Labels, k: int) -> Labels:
    """`labels` with single images of the largest communities set apart, until there are `k`."""
    labels = labels.copy()
    while (count := len(np.unique(labels))) < k:
        largest = np.bincount(labels).argmax()
        labels[np.flatnonzero(labels == largest)[0]] = labels.max() + 1
        assert len(np.unique(labels)) == count + 1
    return labels
