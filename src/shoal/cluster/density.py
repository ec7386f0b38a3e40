"""Clusters by density: HDBSCAN on points drawn towards their neighbours. What lies in no dense group stays marked.

In the features' own space nearly everything is noise to HDBSCAN; drawn towards their neighbours, images of one kind
lie close enough together (docs/decisions.md has figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Labels
from shoal.cluster.ground.ground import prepare
from shoal.cluster.sample import sample_of
from shoal.cluster.space import Rows
from shoal.embeddings import Float32, Ids

NOISE: Final = -1
DIMS: Final = 16  # principal coordinates that are looked at, not whitened
MOST_IMAGES: Final = 10_000  # that are looked at pair by pair; the others take after the nearest of these
LEAST_SHARE: Final = 0.01  # of the images, in a dense group
LEAST_GROUP: Final = 5
MIN_SAMPLES: Final = 15
BLOCK_ROWS: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Groups that stand out by density.

    Attributes:
        k: how many; less than 2 if no clustering came of it.
        labels: int32 [N], from 0 to k − 1; an image in no group has that of the nearest image which is in one.
        noise: bool [N], the images in no group.
    """

    k: int
    labels: Labels
    noise: npt.NDArray[np.bool_]


def find(store: Rows, ids: Ids, points: Float32, seed: int) -> Dense:
    """Find dense groups among the images `ids` in `store`, whose unit points are `points` [N, d].

    HDBSCAN (Campello, Moulavi and Sander, 2013), with the groups of its tree that last longest ("excess of mass").
    """
    from sklearn.cluster import HDBSCAN  # noqa: PLC0415  (half a second that other methods need not wait for)

    n = len(ids)
    sample = sample_of(ids, MOST_IMAGES, seed)
    least = max(LEAST_GROUP, round(LEAST_SHARE * len(sample)))
    if len(sample) < 2 * least:
        return Dense(0, np.zeros(n, np.int32), np.ones(n, bool))
    drawn = prepare(store, ids, sample, seed).drawn[:, :DIMS]
    tree = HDBSCAN(min_cluster_size=least, min_samples=min(MIN_SAMPLES, least), copy=True)
    found = tree.fit_predict(drawn).astype(np.int32)
    noise = np.empty(n, bool)
    noise[sample] = found == NOISE
    labels = np.empty(n, np.int32)
    labels[sample] = found
    rest = np.setdiff1d(np.arange(n), sample, assume_unique=True)
    noise[rest] = noise[sample][nearest(points[sample], points[rest])]
    unplaced = np.union1d(rest, np.flatnonzero(noise))
    labels[unplaced] = nearest_cluster(points[sample], found, points[unplaced])
    return Dense(int(found.max()) + 1, labels, noise)


def nearest_cluster(rows: Float32, labels: Labels, new: Float32) -> Labels:
    """The cluster of the image nearest to each of `new` [m, d] among the `rows` [n, d] that are not noise, int32 [m].

    Rows are of unit length. Where all are noise there is one cluster, 0.
    """
    clustered = np.flatnonzero(labels != NOISE)
    if not len(clustered):
        return np.zeros(len(new), np.int32)
    placed: Labels = labels[clustered][nearest(np.ascontiguousarray(rows[clustered]), new)]
    return placed


def nearest(rows: Float32, new: Float32) -> npt.NDArray[np.intp]:
    """Position of the nearest of `rows` [n, d] to each of `new` [m, d], all of unit length, [m]."""
    found = np.empty(len(new), np.intp)
    for start in range(0, len(new), BLOCK_ROWS):
        where = slice(start, start + BLOCK_ROWS)
        found[where] = (new[where] @ rows.T).argmax(axis=1)
    return found
