"""Sums, means and sizes of clusters that there are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.kmeans.scores import BLOCK_SCORES, COSINE
from shoal.embeddings import Float32, normalise_rows

SUMMED_BY_PRODUCT = 128  # up to this many clusters BLAS adds up points sooner than sorting them by cluster does
SORTED_VALUES = 1 << 20  # of points that are sorted at once


def cluster_sums(points: Float32, labels: Labels, k: int) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Sum of the points of each cluster, float64 [k, d], and their number, int64 [k]."""
    sums = np.zeros((k, points.shape[1]), np.float64)
    by_product = k <= SUMMED_BY_PRODUCT
    rows = max(1, BLOCK_SCORES // k if by_product else SORTED_VALUES // points.shape[1])
    for start in range(0, len(points), rows):
        (_add_by_product if by_product else _add_sorted)(
            sums, points[start : start + rows], labels[start : start + rows]
        )
    return sums, np.bincount(labels, minlength=k)


def means_of(points: Float32, labels: Labels, metric: str) -> Float32:
    """Mean of each cluster's points, float32 [K, d], of unit length if the metric is cosine; K: last label + 1."""
    return means_from(*cluster_sums(points, labels, int(labels.max()) + 1), metric)


def means_from(sums: Float64, counts: npt.NDArray[np.int64], metric: str) -> Float32:
    """Means [k, d] of clusters from the sums [k, d] of their points and the number [k] of these, as `means_of`."""
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return normalise_rows(means) if metric == COSINE else means


def number_by_size(labels: Labels, k: int) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Number clusters from 0 by falling size, ties by the smallest index of a member.

    Returns:
        The new labels int32 [N], and `order` int64 [k]: the old number of each new cluster.
    """
    counts = np.bincount(labels, minlength=k)
    first = np.full(k, len(labels), np.int64)
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -counts))
    rank = np.empty(k, np.int32)
    rank[order] = np.arange(k, dtype=np.int32)
    return rank[labels], order


def _add_by_product(sums: Float64, points: Float32, labels: Labels) -> None:
    """Add points [n, d] to the sums [K, d] of their clusters, by a product with the one-hot labels."""
    members = np.zeros((len(points), len(sums)), np.float32)
    members[np.arange(len(points)), labels] = 1
    sums += members.T @ points


def _add_sorted(sums: Float64, points: Float32, labels: Labels) -> None:
    """The same in a time that does not grow with the number of clusters."""
    order = np.argsort(labels, kind="stable")
    there, first = np.unique(labels[order], return_index=True)
    sums[there] += np.add.reduceat(points[order], first, axis=0)
