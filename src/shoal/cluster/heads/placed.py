"""A clustering of some images, learned by one linear head, which places all of them and those to come."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shoal.cluster import kmeans
from shoal.cluster.arrays import Labels
from shoal.cluster.consensus import Consensus
from shoal.cluster.ground.ground import Ground
from shoal.cluster.heads.distilled import distil
from shoal.cluster.kmeans import Clustering
from shoal.cluster.space import ClusterSpace, Rows, points_of
from shoal.embeddings import Float32, Ids, normalise_rows

MOST_IMAGES = 60_000  # that are looked at together; the head places the others
MOST_TAUGHT = 256  # clusters that a head is taught: its answers are [images, clusters], as large as all whitened points


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A clustering of some images, as one head that places all of them.

    Attributes:
        space: whitening and the head.
        found: the clustering of all N images, by the nearest of its centroids in that space.
        points, lengths: of all images in the space, as `ClusterSpace.project` gives them.
        level: share of the images on which another way of clustering agrees, if one was at hand.
    """

    space: ClusterSpace
    found: Clustering
    points: Float32
    lengths: Float32
    level: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """Clusters of the images that are looked at together, int32 [n], and the head that learned them, if one could."""

    labels: Labels
    head: Consensus | None


def teach(ground: Ground, labels: Labels, k: int, seed: int) -> Taught:
    """Teach `labels` [n] to one head; then they are what it says of the images.

    Where a head cannot tell so many clusters apart, they stay as they are.
    """
    head = distil(ground.white, labels, ground.neighbours, k, seed) if k <= MOST_TAUGHT else None
    if head is None:
        return Taught(labels, None)
    return Taught(kmeans.assign(head.transform(ground.white), head.directions)[0], head)


def place(
    ground: Ground, taught: Taught, k: int, store: Rows, ids: Ids, sample: Ids, level: float | None = None
) -> Placed:
    """Place all `ids` by the head that was taught `ids[sample]`, or by the nearest of the clusters' means.

    `level` is handed on.
    """
    labels, head = taught.labels, taught.head
    many = k > MOST_TAUGHT  # the nearest mean is looked for where k-means would look for it
    space = ground.space.half_whitened() if many else replace(ground.space, consensus=head)
    points, lengths = points_of(space, store, ids)
    centroids = _means(points[sample], labels, k) if head is None else head.directions
    nearest, scores = kmeans.assign(points, centroids)
    if head is None:
        nearest[sample] = labels
    found = Clustering(nearest, centroids, float(np.sum(1 - scores, dtype=np.float64)), 0)
    return Placed(space, found, points, lengths, level)


def _means(points: Float32, labels: Labels, k: int) -> Float32:
    """Mean direction of each cluster's points, unit rows [k, dims]."""
    sums, counts = kmeans.cluster_sums(points, labels, k)
    return normalise_rows((sums / np.maximum(counts, 1)[:, None]).astype(np.float32))
