"""Votes joined so that sizes come out as they are: small groups of images alike to all heads, by average linkage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans
from shoal.cluster.arrays import Float64, Labels
from shoal.embeddings import Float32

GROUPS_PER_CLUSTER = 8
IMAGES_PER_GROUP = 2
STARTS = 4
PER_CLUSTER = 12  # a group of less than this part of the mean cluster is no cluster of its own


def joined(rows: Float32, votes: Float32, k: int, rng: np.random.Generator) -> Labels:
    """Join images into `k` clusters by how many heads put them together, int32 [n].

    Small groups, by k-means of `rows`, are joined by average linkage, as in evidence accumulation (Fred and Jain,
    2005); so a cluster is as large as the heads make it.

    Args:
        rows: unit rows [n, dims] that lie near where heads agree, as those of a `Consensus`.
        votes: each head's probabilities [n, heads, clusters].
    """
    n, heads, _ = votes.shape
    groups = max(k, min(GROUPS_PER_CLUSTER * k, n // IMAGES_PER_GROUP))
    if groups >= n:
        return np.arange(n, dtype=np.int32) if k >= n else kmeans.fit(rows, k, rng, starts=STARTS).labels
    group = kmeans.fit(rows, groups, rng, starts=STARTS).labels
    sums, sizes = kmeans.cluster_sums(votes.reshape(n, -1), group, groups)
    means = sums / np.maximum(sizes, 1)[:, None]
    return average(means @ means.T / heads, sizes, k, max(1, n // (PER_CLUSTER * k)))[group]


def average(alike: Float64, sizes: npt.NDArray[np.int64], k: int, least: int) -> Labels:
    """Clusters of m groups, int32 [m]: the two that are most alike, by the mean over their images, join.

    It goes on until `k` clusters have `least` images or more; those with less then join the most alike of these.

    Args:
        alike: [m, m], mean likeness of the images of two groups.
        sizes: images of each group, [m].
    """
    m = len(alike)
    alike, weight = alike.astype(np.float64).copy(), sizes.astype(np.float64).copy()
    np.fill_diagonal(alike, -np.inf)
    cluster, alive = np.arange(m), np.ones(m, bool)

    def join(one: int, other: int) -> None:
        share = weight[other] / max(weight[one] + weight[other], 1)
        mean = (1 - share) * alike[one] + share * alike[other]
        alike[one] = alike[:, one] = mean
        alike[one, one] = -np.inf
        alike[other] = alike[:, other] = -np.inf
        weight[one] += weight[other]
        alive[other] = False
        cluster[cluster == other] = one

    while alive.sum() > k and np.sum(alive & (weight >= least)) != k:
        one, other = divmod(int(alike.argmax()), m)
        join(one, other)
    while alive.sum() > k:
        small = np.flatnonzero(alive)[weight[alive].argmin()]
        join(int(alike[small].argmax()), int(small))
    numbers: Labels = np.unique(cluster, return_inverse=True)[1].astype(np.int32)
    return numbers
