"""Communities: groups of images with many neighbours among themselves, in a graph of shared neighbours.

Their sizes come out as they are, where k-means makes clusters of about the same size. The algorithm is that of Leiden
(Traag, Waltman and van Eck, From Louvain to Leiden, 2019), by modularity with a resolution (Reichardt and Bornholdt,
Statistical mechanics of community detection, 2006), from graspologic-native.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Labels, Neighbours
from shoal.cluster.ground.ground import prepare
from shoal.cluster.heads.placed import MOST_IMAGES, Placed, place, teach
from shoal.cluster.sample import sample_of
from shoal.cluster.space import Rows
from shoal.embeddings import Ids

Graph = Any  # scipy.sparse.csr_array of float64 [n, n], symmetric, without a diagonal

_Pair = tuple[float, int, int, tuple[int, int]]  # minus how tight, two communities and their sizes

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
class PlacedCommunities:
    """Communities of all images, placed by one head, and the modularity [-1, 1] of those looked at together."""

    placed: Placed
    modularity: float


def find(store: Rows, ids: Ids, k: int, seed: int, most: int = MOST_IMAGES) -> PlacedCommunities:
    """Cut the images `ids` in `store` into `k` communities.

    One linear head learns them. It gives images between two communities to the likelier one, places those beyond the
    `most` that the graph is made of, and new ones. Of more than 256 communities there is no head, but their means.
    """
    sample = sample_of(ids, most, seed)
    ground = prepare(store, ids, sample, seed)
    graph = shared_neighbours(ground.neighbours[:, :NEAREST])
    own = int(np.random.default_rng([seed, k, 14]).integers(2**31))
    found = communities(graph, k, own)
    placed = place(ground, teach(ground, found.labels, k, seed), k, store, ids, sample)
    return PlacedCommunities(placed, modularity(graph, placed.found.labels[sample]))


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
    return float(joined.diagonal().sum() / total - resolution * np.sum(shares**2))


def _joined(graph: Graph, labels: Labels, k: int) -> Graph:
    """Weight between communities, sparse [k, k]; inside of them counted from both ends."""
    from scipy import sparse  # noqa: PLC0415

    n = len(labels)
    member = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, k))
    between = (member.T @ (graph @ member)).tocsr()
    between.sort_indices()
    return between


def _fewer(graph: Graph, labels: Labels, k: int, least: int) -> Labels:
    """At most `k` communities: the most joined merge, for their sizes, and those of less than `least` images first."""
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    left = _Left(_joined(graph, labels, int(labels.max()) + 1), np.bincount(labels))
    while left.count > k and (small := left.smallest()) is not None and left.sizes[small] < least:
        left.merge(left.partner(small), small)
    pairs = left.pairs()
    while left.count > k:
        tightest = left.tightest(pairs) or left.two_smallest()
        left.merge(*tightest)
        for other in left.links[tightest[0]]:
            heapq.heappush(pairs, left.pair(tightest[0], other))
    numbers: Labels = np.unique(left.group[labels], return_inverse=True)[1].astype(np.int32)
    return numbers


class _Left:
    """Communities that are merged, and the weight of the links between those that have any.

    The size stands for the degree, which is about the same for all images, and never 0.
    """

    def __init__(self, joined: Graph, sizes: npt.NDArray[np.int64]) -> None:
        self.sizes = sizes.astype(np.int64)
        self.group = np.arange(len(sizes))
        self.count = len(sizes)
        self.links: dict[int, dict[int, float]] = {}
        for one in range(len(sizes)):
            where = slice(joined.indptr[one], joined.indptr[one + 1])
            ends = zip(joined.indices[where].tolist(), joined.data[where].tolist(), strict=True)
            self.links[one] = {other: weight for other, weight in ends if other != one}
        self._by_size = [(int(size), one) for one, size in enumerate(sizes)]
        heapq.heapify(self._by_size)

    def merge(self, one: int, other: int) -> None:
        """`other` becomes part of `one`."""
        for far, weight in self.links.pop(other).items():
            del self.links[far][other]
            if far != one:
                self.links[one][far] = self.links[far][one] = self.links[one].get(far, 0.0) + weight
        self.sizes[one] += self.sizes[other]
        self.group[self.group == other] = one
        self.count -= 1
        heapq.heappush(self._by_size, (int(self.sizes[one]), one))

    def smallest(self) -> int | None:
        """The smallest community, the first of equal ones."""
        while self._by_size and not self._is_left(self._by_size[0]):
            heapq.heappop(self._by_size)
        return self._by_size[0][1] if self._by_size else None

    def two_smallest(self) -> tuple[int, int]:
        first = self.smallest()
        size, one = heapq.heappop(self._by_size)
        second = self.smallest()
        heapq.heappush(self._by_size, (size, one))
        assert first is not None
        assert second is not None
        return min(first, second), max(first, second)

    def partner(self, one: int) -> int:
        """What `one` is joined to most, for its size; the smallest other if it is joined to none."""
        links = self.links[one]
        if not links:
            pair = self.two_smallest()
            return pair[0] if pair[1] == one else pair[1]
        return min(links, key=lambda other: (-links[other] / self.sizes[other], other))

    def pair(self, one: int, other: int) -> _Pair:
        """How tightly two communities are joined, most first."""
        one, other = min(one, other), max(one, other)
        sizes = int(self.sizes[one]), int(self.sizes[other])
        return -self.links[one][other] / (sizes[0] * sizes[1]), one, other, sizes

    def pairs(self) -> list[_Pair]:
        """All that are joined, as a heap."""
        found = [self.pair(one, other) for one, links in self.links.items() for other in links if one < other]
        heapq.heapify(found)
        return found

    def tightest(self, pairs: list[_Pair]) -> tuple[int, int] | None:
        """The first pair that is still as it was, if any is."""
        while pairs:
            _, one, other, sizes = heapq.heappop(pairs)
            if self._is_left((sizes[0], one)) and self._is_left((sizes[1], other)):
                return one, other
        return None

    def _is_left(self, known: tuple[int, int]) -> bool:
        size, one = known
        return one in self.links and int(self.sizes[one]) == size


def _enough(labels: Labels, k: int) -> Labels:
    """`labels` with single images of the largest communities set apart, until there are `k`."""
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    sizes = np.bincount(labels)
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(sizes)
    largest = [(-int(size), one) for one, size in enumerate(sizes)]
    heapq.heapify(largest)
    for number in range(len(sizes), k):
        left, one = largest[0]
        labels[order[ends[one] + left]] = number  # its first image that is still there
        heapq.heapreplace(largest, (left + 1, one))
    return labels
