"""Clusterings that heads begin with: by k-means, of about one size, or by communities, of what sizes there are."""

from __future__ import annotations

import numpy as np

from shoal.cluster import kmeans, threads
from shoal.cluster.arrays import Labels
from shoal.cluster.graph import communities, shared_neighbours
from shoal.cluster.ground.ground import NEIGHBOURS, Ground
from shoal.cluster.ground.information import information
from shoal.embeddings import normalise_rows
from shoal.neighbours.exact import exact_neighbours

START_DIMS = (24, 32, 40, 48)  # of the spaces that heads begin in ...
SMALL_DIMS = (4, 8, 16)  # ... or in these, if one of them tells more of neighbours by this factor
MARGIN = 1.03
STARTS = 2
GRAPHS = ((True, 10), (False, 15), (True, 15), (False, 20), (True, 20))  # of smoothed points or not, of so many nearest


def by_k_means(ground: Ground, k: int, count: int, seed: int) -> list[Labels]:
    """Clusterings of smoothed points by k-means, in whitened spaces of several sizes.

    Few kinds far apart need a small space, since whitening makes the other directions, which are noise, as large. So
    one start is made in each space first, to see whether small ones tell more of an image's neighbours.
    """

    def start(number: int, dims: int) -> Labels:
        rows = ground.smooth[:, :dims].copy()  # made of unit length in place
        return kmeans.fit(normalise_rows(rows), k, np.random.default_rng([seed, k, 7, number]), starts=STARTS).labels

    sizes = [*START_DIMS, *SMALL_DIMS]
    found = dict(zip(sizes, threads.each(lambda item: start(*item), enumerate(sizes)), strict=True))
    told = {dims: information(labels, ground.neighbours, k) for dims, labels in found.items()}
    large, small = (max(dims, key=lambda one: told[one]) for dims in (START_DIMS, SMALL_DIMS))
    spaces = (small,) if told[small] > MARGIN * told[large] else START_DIMS
    numbers = range(len(sizes), len(sizes) + count - len(spaces))
    more = threads.each(lambda number: start(number, spaces[number % len(spaces)]), numbers)
    return [*(found[dims] for dims in spaces), *more][:count]


def by_communities(ground: Ground, k: int, count: int, seed: int) -> list[Labels]:
    """Communities of graphs of 10 to 20 neighbours, before and after points are smoothed, of each graph in turn."""
    smooth, _ = exact_neighbours(normalise_rows(ground.drawn), min(NEIGHBOURS, len(ground.white) - 1))

    def of(kind: int) -> list[Labels]:
        smoothed, nearest = GRAPHS[kind]
        graph = shared_neighbours((smooth if smoothed else ground.neighbours)[:, :nearest])
        found, resolution = [], 1.0
        for number in range(kind, count, len(GRAPHS)):
            own = int(np.random.default_rng([seed, k, 10, number]).integers(2**31))
            one = communities(graph, k, own, resolution)
            found.append(one.labels)
            resolution = one.resolution  # near that of the next
        return found

    made = list(threads.each(of, range(min(count, len(GRAPHS)))))
    return [made[number % len(GRAPHS)][number // len(GRAPHS)] for number in range(count)]
