"""A clustering of some images, learned by one linear head, which places all of them and those to come."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shoal.cluster import kmeans
from shoal.cluster.distilled import distil
from shoal.cluster.ground import Ground
from shoal.cluster.kmeans import Clustering, Labels
from shoal.cluster.space import ClusterSpace, Rows, points_of
from shoal.embeddings import Float32, Ids, normalise_rows

MOST_IMAGES = 60_000  # that are looked at together; the head places the others


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A clustering of some images, as one head that places all of them.

    Attributes:
        space: whitening and the head.
        found: the clustering of all N images, by the nearest of its centroids in that space.
        points, lengths: of all images in the space, as `ClusterSpace.project` gives them.
    """

    space: ClusterSpace
    found: Clustering
    points: Float32
    lengths: Float32


def sample_of(images: int, seed: int) -> Ids:
    """Positions, rising, of the images that are looked at together: all of them, or MOST_IMAGES at random."""
    if images <= MOST_IMAGES:
        return np.arange(images)
    return np.sort(np.random.default_rng([seed, 4]).choice(images, MOST_IMAGES, replace=False))


def place(ground: Ground, labels: Labels, k: int, store: Rows, ids: Ids, sample: Ids, seed: int) -> Placed:
    """Teach `labels` [n] of the images `ids[sample]` to one head, and place all `ids` by it.

    Where a head cannot tell so many clusters apart, the nearest of their means in the whitened space places images.
    """
    head = distil(ground.white, labels, ground.neighbours, k, seed)
    space = replace(ground.space, consensus=head)
    points, lengths = points_of(space, store, ids)
    centroids = _means(points[sample], labels, k) if head is None else head.directions
    nearest, scores = kmeans.assign(points, centroids)
    if head is None:
        nearest[sample] = labels
    found = Clustering(nearest, centroids, float(np.sum(1 - scores, dtype=np.float64)), 0)
    return Placed(space, found, points, lengths)


def _means(points: Float32, labels: Labels, k: int) -> Float32:
    """Mean direction of each cluster's points, unit rows [k, dims]."""
    sums, counts = kmeans.cluster_sums(points, labels, k)
    return normalise_rows((sums / np.maximum(counts, 1)[:, None]).astype(np.float32))
