"""The silhouette of every point, exactly, without an N×N matrix in memory.

With a the mean distance from a point to the others of its cluster and b the least mean distance to another cluster's
points, s = (b − a)/max(a, b), and 0 for a point that is alone in its cluster (Rousseeuw, Silhouettes, 1987).

For cosine and squared Euclidean distances the mean distance to a cluster follows from the sum of its points alone, so
the work is O(N·K·d). Plain Euclidean distances have no such shortcut: O(N²·d), in blocks that all labellings share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shoal.cluster.kmeans import Float64, Labels
from shoal.embeddings import Float32

BLOCK_VALUES = 1 << 18  # values of points, or of distances, that the linear forms hold at once (2 MB in float64)
ROUGH_DISTANCE = 0.05  # mean distances down to this keep a relative precision of 1e-5 in float32
PAIR_ROWS = 2048  # the quadratic form holds a block of this many rows ...
PAIR_COLUMNS = 1024  # ... and columns of the distance matrix at once


def cosine(points: Float32, labels: Labels, k: int) -> Float64:
    """Silhouettes under the cosine distance, float64 [N] from −1 to 1.

    Args:
        points: [N, d], rows of length 1 (a zero row has distance 1 to all others).
        labels: int32 [N], from 0 to k − 1; empty clusters are passed over.
    """
    silhouettes, nearest = _cosine(points, labels, k, np.float32)
    if nearest < ROUGH_DISTANCE:  # then the single precision of 1 − x·S/n shows
        silhouettes, _ = _cosine(points, labels, k, np.float64)
    return silhouettes


def squared_euclidean(points: Float32, labels: Labels, k: int) -> Float64:
    """Silhouettes under the squared Euclidean distance, float64 [N] from −1 to 1. Arguments as for `cosine`."""
    counts = np.bincount(labels, minlength=k)
    centre = points.mean(axis=0, dtype=np.float64)
    sums, lengths = _sums_and_lengths(points, labels, k, np.float64, centre)
    spread = np.bincount(labels, lengths, minlength=k)
    silhouettes = np.empty(len(points))
    for where in _blocks(points, k):
        # Σ‖x − y‖² = n‖x‖² + Σ‖y‖² − 2 x·S
        totals = lengths[where, None] * counts + spread - 2 * ((points[where] - centre) @ sums)
        silhouettes[where], _ = _from_totals(totals, labels[where], counts)
    return silhouettes


def euclidean(points: Float32, labellings: Sequence[Labels]) -> Float64:
    """Silhouettes under the Euclidean distance for several labellings of the same points, float64 [labellings, N].

    Every distance is computed once for all labellings. Memory: a block of distances and, for its rows and its columns,
    one value for each cluster of each labelling.
    """
    centre = points.mean(axis=0, dtype=np.float64)
    counts = [np.bincount(labels) for labels in labellings]
    starts = np.concatenate([[0], np.cumsum([len(count) for count in counts])])  # first column of each labelling
    silhouettes = np.zeros((len(labellings), len(points)))
    for begin in range(0, len(points), PAIR_ROWS):
        rows = slice(begin, min(begin + PAIR_ROWS, len(points)))
        totals = _distance_totals(points, centre, rows, labellings, starts)  # [rows, clusters of all labellings]
        for number, labels in enumerate(labellings):
            of_clusters = totals[:, starts[number] : starts[number + 1]].astype(np.float64)
            silhouettes[number, rows], _ = _from_totals(of_clusters, labels[rows], counts[number])
    return silhouettes


def _cosine(points: Float32, labels: Labels, k: int, precision: type[np.floating]) -> tuple[Float64, float]:
    """Silhouettes [N] from matrix products in `precision`, and the least of their denominators max(a, b)."""
    counts = np.bincount(labels, minlength=k)
    sums, lengths = _sums_and_lengths(points, labels, k, precision)
    sums = sums.astype(precision)
    silhouettes = np.empty(len(points))
    nearest = np.inf
    for where in _blocks(points, k):
        # The distances to a cluster of n points with sum S add up to n − x·S.
        products = points[where].astype(precision, copy=False) @ sums
        totals = np.asarray(counts - products, np.float64)  # [rows, K]
        # x itself adds 1 − x·x to its own cluster's total, which is 0 but for rounding and zero rows.
        silhouettes[where], least = _from_totals(totals, labels[where], counts, 1 - lengths[where])
        nearest = min(nearest, least)
    return silhouettes, nearest


def _sums_and_lengths(
    points: Float32, labels: Labels, k: int, precision: type[np.floating], centre: Float64 | float = 0.0
) -> tuple[Float64, Float64]:
    """Sums of the centred points of each cluster, [d, k], and their squared lengths, [N]; added up in float64."""
    sums = np.zeros((points.shape[1], k))
    lengths = np.empty(len(points))
    for where in _blocks(points, k):
        block = points[where].astype(precision)
        block -= centre
        members = np.zeros((len(block), k), precision)
        members[np.arange(len(block)), labels[where]] = 1
        lengths[where] = np.einsum("nd,nd->n", block, block)
        sums += (members.T @ block).T
    return sums, lengths


def _from_totals(
    totals: Float64, labels: Labels, counts: npt.NDArray[np.int64], itself: Float64 | float = 0.0
) -> tuple[Float64, float]:
    """Silhouettes from the summed distances of some points to every cluster, [rows, K], changed in place.

    Args:
        itself: what each point added to the total of its own cluster.

    Returns:
        The silhouettes [rows], and the least of their denominators max(a, b) (infinite without any).
    """
    rows = np.arange(len(totals))
    own = (totals[rows, labels] - itself) / np.maximum(counts[labels] - 1, 1)
    totals /= np.maximum(counts, 1)
    totals[:, counts == 0] = np.inf
    totals[rows, labels] = np.inf
    other = totals.min(axis=1)
    largest = np.maximum(own, other)
    usable = (counts[labels] > 1) & (largest > 0) & np.isfinite(largest)
    silhouettes = np.divide(other - own, largest, out=np.zeros(len(totals)), where=usable)
    return np.clip(silhouettes, -1, 1, out=silhouettes), float(np.min(largest, where=usable, initial=np.inf))


def _blocks(points: Float32, k: int) -> Iterator[slice]:
    rows = max(1, BLOCK_VALUES // max(points.shape[1], k))
    for begin in range(0, len(points), rows):
        yield slice(begin, min(begin + rows, len(points)))


def _distance_totals(
    points: Float32, centre: Float64, rows: slice, labellings: Sequence[Labels], starts: npt.NDArray[np.int64]
) -> Float32:
    """Sums of Euclidean distances from the rows to each cluster of each labelling, [rows, clusters]."""
    left = points[rows] - centre
    left_lengths = np.einsum("nd,nd->n", left, left)
    totals = np.zeros((len(left), starts[-1]), np.float32)
    for begin in range(0, len(points), PAIR_COLUMNS):
        columns = slice(begin, min(begin + PAIR_COLUMNS, len(points)))
        right = points[columns] - centre
        squared = left @ right.T  # [rows, columns]; float64, since near points would lose their distance in float32
        squared *= -2
        squared += left_lengths[:, None]
        squared += np.einsum("nd,nd->n", right, right)
        distances = np.sqrt(np.maximum(squared, 0, out=squared)).astype(np.float32)
        shared = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
        distances[shared - rows.start, shared - columns.start] = 0  # of a point to itself, whatever rounding says
        members = np.zeros((distances.shape[1], starts[-1]), np.float32)
        for number, labels in enumerate(labellings):
            members[np.arange(len(members)), starts[number] + labels[columns]] = 1
        totals += distances @ members
    return totals
