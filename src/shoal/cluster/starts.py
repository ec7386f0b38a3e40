"""Clusterings that heads begin with: by k-means, of about one size, or by communities, of what sizes there are."""

from __future__ import annotations

import numpy as np

from shoal.cluster import kmeans, threads
from shoal.cluster.graph import communities, shared_neighbours
from shoal.cluster.ground import NEIGHBOURS, Ground
from shoal.cluster.information import information
from shoal.cluster.kmeans import Labels
from shoal.embeddings import normalise_rows
from shoal.neighbours.exact import exact_neighbours

START_DIMS = (24, 32, 40, 48)  # of the spaces that heads begin in ...
SMALL_DIMS = (4, 8, 16)  # ... or in these, if one of them tells more of neighbours by this factor
MARGIN = 1.03
STARTS = 2
GRAPHS = ((True, 10), (False, 15), (True, 15), (False, 20), (True, 20))  # of smoothed points or not, of so many nearest


class KMeansStarts:
    """Clusterings of smoothed points by k-means, `k` clusters each, in whitened spaces of several sizes.

    Few kinds far apart need a small space, since whitening makes the other directions, which are noise, as large. So
    one start is made in each space first, to see whether small ones tell more of an image's neighbours.
    """

    def __init__(self, ground: Ground, k: int, seed: int) -> None:
        self._ground, self._k, self._seed = ground, k, seed
        sizes = [*START_DIMS, *SMALL_DIMS]
        found = dict(zip(sizes, threads.each(lambda item: self._start(*item), enumerate(sizes)), strict=True))
        told = {dims: information(labels, ground.neighbours, k) for dims, labels in found.items()}
        large, small = (max(dims, key=lambda one: told[one]) for dims in (START_DIMS, SMALL_DIMS))
        self._spaces = (small,) if told[small] > MARGIN * told[large] else START_DIMS
        self._ready = [found[dims] for dims in self._spaces]
        self._number = len(sizes)  # of the next one

    def next(self, count: int) -> list[Labels]:
        """`count` more of them; the same however many are asked for at once."""
        missing = range(self._number, self._number + max(0, count - len(self._ready)))
        self._number = missing.stop
        made = threads.each(lambda number: self._start(number, self._spaces[number % len(self._spaces)]), missing)
        ready = [*self._ready, *made]
        self._ready = ready[count:]
        return ready[:count]

    def _start(self, number: int, dims: int) -> Labels:
        rows = self._ground.smooth[:, :dims].copy()  # made of unit length in place
        rng = np.random.default_rng([self._seed, self._k, 7, number])
        return kmeans.fit(normalise_rows(rows), self._k, rng, starts=STARTS).labels


class CommunityStarts:
    """Communities of `k` clusters, of graphs of 10 to 20 neighbours, before and after points are smoothed."""

    def __init__(self, ground: Ground, k: int, seed: int) -> None:
        self._k, self._seed = k, seed
        smooth, _ = exact_neighbours(normalise_rows(ground.drawn), min(NEIGHBOURS, len(ground.white) - 1))
        lists = [(smooth if smoothed else ground.neighbours)[:, :nearest] for smoothed, nearest in GRAPHS]
        self._graphs = list(threads.each(shared_neighbours, lists))
        self._resolutions = [1.0] * len(lists)  # that gave `k` communities of each graph last
        self._made = 0

    def next(self, count: int) -> list[Labels]:
        """`count` more of them, of each graph in turn; the same however many are asked for at once."""
        numbers = range(self._made, self._made + count)
        self._made += count

        def of(kind: int) -> list[tuple[int, Labels]]:
            found = []
            for number in numbers:
                if number % len(self._graphs) == kind:
                    own = int(np.random.default_rng([self._seed, self._k, 10, number]).integers(2**31))
                    one = communities(self._graphs[kind], self._k, own, self._resolutions[kind])
                    self._resolutions[kind] = one.resolution
                    found.append((number, one.labels))
            return found

        made = [one for some in threads.each(of, range(len(self._graphs))) for one in some]
        return [labels for _, labels in sorted(made, key=lambda one: one[0])]
