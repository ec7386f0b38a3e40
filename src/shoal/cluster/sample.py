"""Which images are looked at together where all of them would be too many: one rule, by id.

The space, the number of clusters, heads, communities and dense groups are found on a sample; what was found there
places all other images, in blocks. Every image has a place in one order, which a hash of its id and the run's seed
gives, and each looks at the first so many. So a sample does not depend on the order in which images are listed, is
part of every larger one, and stays mostly as it was when a source grows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans
from shoal.cluster.kmeans import Clustering
from shoal.embeddings import Float32, Ids

LOOKED_AT: Final = 200_000  # images that the space and the clusters are found on, at most ...
PER_CLUSTER: Final = kmeans.START_IMAGES_PER_CLUSTER  # ... or this many for each cluster asked for, if that is more

Hashes = npt.NDArray[np.uint64]


def sample_of(ids: Ids, most: int, seed: int) -> Ids:
    """Positions in `ids` [N] of the first `most` of them by the order of `seed`, rising; all, if they are no more."""
    if len(ids) <= most:
        return np.arange(len(ids))
    return np.sort(np.argpartition(_hashes(ids, seed), most)[:most])


def some_of(count: int, most: int) -> Ids:
    """`most` of the positions 0 to count - 1, rising; all, if they are no more.

    Never every so many: in a source that repeats itself, as pictures taken in turns do, these would all be alike.
    """
    return sample_of(np.arange(count), most, 0)


def extended(found: Clustering, points: Float32, sample: Ids, metric: str) -> Clustering:
    """The clustering of `points[sample]` for all points [N, d]: each of the others is in the nearest cluster."""
    if len(sample) == len(points):
        return found
    labels, _ = kmeans.assign(points, found.centroids, metric=metric)
    labels[sample] = found.labels
    return replace(found, labels=labels, inertia=kmeans.inertia(points, labels, found.centroids, metric))


def _hashes(ids: Ids, seed: int) -> Hashes:
    """A number for each id, none twice: the finishing steps of SplitMix64 (Steele, Lea and Flood, 2014)."""
    state = np.array([seed], np.uint64) * np.uint64(0xD1B54A32D192ED03)
    mixed = ids.astype(np.uint64) + state
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found: Hashes = mixed ^ (mixed >> np.uint64(31))
    return found
