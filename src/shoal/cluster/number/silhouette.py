"""The silhouette of every point, without an N×N matrix in memory.

With a the mean distance from a point to the others of its cluster and b the least mean distance to another cluster's
points, s = (b − a)/max(a, b), and 0 for a point that is alone in its cluster (Rousseeuw, Silhouettes, 1987).

For cosine and squared Euclidean distances the mean distance to a cluster follows from the sum of its points alone, so
the work is O(N·K·d), in blocks. Plain Euclidean distances have no such shortcut: O(N²·d), in blocks that all labellings
share, up to PAIRED_POINTS points. Beyond, the mean is the root of the mean square, which has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shoal.cluster import threads
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.kmeans import EUCLIDEAN
from shoal.embeddings import Float32

PAIRED_POINTS = 10_000  # Euclidean distances of up to this many points are taken pair by pair
BLOCK_VALUES = 1 << 18  # values of points, or of distances, that the linear forms hold at once (2 MB in float64)
PASS_VALUES = 1 << 25  # of distances that one core takes on
ROUGH_DISTANCE = 0.05  # mean distances down to this keep a relative precision of 1e-5 in float32
PAIR_ROWS = 2048  # the quadratic form holds a block of this many rows ...
PAIR_COLUMNS = 1024  # ... and columns of the distance matrix at once

Means = tuple[Float64, Float64]  # mean distances [rows] to the others of one's own cluster, and to the nearest other


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


def of(points: Float32, labels: Labels, metric: str) -> Float64:
    """Silhouettes under the distance of `metric`, float64 [N] from −1 to 1. Arguments as for `cosine`."""
    if metric == EUCLIDEAN:
        single: Float64 = euclidean(points, [labels])[0]
        return single
    return cosine(points, labels, int(labels.max()) + 1)


def euclidean(points: Float32, labellings: Sequence[Labels]) -> Float64:
    """Silhouettes under the Euclidean distance for several labellings of the same points, float64 [labellings, N].

    Up to PAIRED_POINTS points every distance is computed once for all labellings. Memory: a block of distances and, for
    its rows and its columns, one value for each cluster of each labelling. Of more points the distance to a cluster is
    the root of the mean square of those to its points.
    """
    if len(points) > PAIRED_POINTS:
        return np.stack([root_mean_square(points, labels, int(labels.max()) + 1) for labels in labellings])
    centre = points.mean(axis=0, dtype=np.float64)
    counts = [np.bincount(labels) for labels in labellings]
    starts = np.concatenate([[0], np.cumsum([len(count) for count in counts])])  # first column of each labelling
    silhouettes = np.zeros((len(labellings), len(points)))
    for begin in range(0, len(points), PAIR_ROWS):
        rows = slice(begin, min(begin + PAIR_ROWS, len(points)))
        totals = _distance_totals(points, centre, rows, labellings, starts)  # [rows, clusters of all labellings]
        for number, labels in enumerate(labellings):
            of_clusters = totals[:, starts[number] : starts[number + 1]].astype(np.float64)
            own, other = _from_totals(of_clusters, labels[rows], counts[number])
            silhouettes[number, rows], _ = _compared(own, other, counts[number][labels[rows]])
    return silhouettes


def root_mean_square(points: Float32, labels: Labels, k: int) -> Float64:
    """Silhouettes with roots of mean squared Euclidean distances for the mean ones, float64 [N] from −1 to 1.

    By Jensen no root is less than the mean; the more dimensions, the nearer they are. Arguments as for `cosine`.
    """
    means = _squared_means(points, labels, k)

    def rooted(where: slice) -> Means:
        own, other = means(where)
        return np.sqrt(np.maximum(own, 0)), np.sqrt(np.maximum(other, 0))

    return _of_blocks(points, labels, k, rooted)[0]


def _cosine(points: Float32, labels: Labels, k: int, precision: type[np.floating]) -> tuple[Float64, float]:
    """Silhouettes [N] from matrix products in `precision`, and the least of their denominators max(a, b)."""
    counts = np.bincount(labels, minlength=k)
    directions = (_sums(points, labels, k, 0.0) / np.maximum(counts, 1)[:, None]).T.astype(precision)  # [d, K]

    def means(where: slice) -> Means:
        block, own = points[where].astype(precision, copy=False), labels[where]
        alike = block @ directions  # mean cosine with each cluster's points
        rows = np.arange(len(own))
        # x is no other of its own cluster: x·x is 1 but for rounding and zero rows.
        itself = 1 - np.einsum("nd,nd->n", block, block, dtype=np.float64)
        total = counts[own] * (1 - alike[rows, own].astype(np.float64)) - itself
        return total / np.maximum(counts[own] - 1, 1), 1 - _greatest_other(alike, own, counts)

    return _of_blocks(points, labels, k, means)


def _squared_means(points: Float32, labels: Labels, k: int) -> Callable[[slice], Means]:
    """Mean squared Euclidean distances of rows to the others of their cluster and to the nearest other one."""
    counts = np.bincount(labels, minlength=k)
    centre = points.mean(axis=0, dtype=np.float64)
    lengths = np.empty(len(points))
    for where in _blocks(points, 1):
        lengths[where] = _squares(points[where] - centre)
    members = np.maximum(counts, 1)
    directions = (_sums(points, labels, k, centre) / members[:, None]).T  # [d, K]
    spread = np.bincount(labels, lengths, minlength=k) / members

    def means(where: slice) -> Means:
        # Σ‖x − y‖²/n = ‖x‖² + Σ‖y‖²/n − 2 x·S/n
        near, own = 2 * ((points[where] - centre) @ directions) - spread, labels[where]
        to_own = counts[own] * (lengths[where] - near[np.arange(len(own)), own]) / np.maximum(counts[own] - 1, 1)
        return to_own, lengths[where] - _greatest_other(near, own, counts)

    return means


def _greatest_other(values: npt.NDArray[np.floating], own: Labels, counts: npt.NDArray[np.int64]) -> Float64:
    """The greatest of the values [rows, K] of other clusters that have points, −inf without any; changes the values."""
    values[np.arange(len(own)), own] = -np.inf
    values[:, counts == 0] = -np.inf
    greatest: Float64 = values.max(axis=1).astype(np.float64)
    return greatest


def _of_blocks(points: Float32, labels: Labels, k: int, means: Callable[[slice], Means]) -> tuple[Float64, float]:
    """Silhouettes [N], and the least of their denominators, of the mean distances that `means` gives of each block."""
    counts = np.bincount(labels, minlength=k)
    silhouettes = np.empty(len(points))
    rows = max(1, PASS_VALUES // max(points.shape[1], k))

    def look(start: int) -> float:
        least = np.inf
        for block in _blocks(points[start : start + rows], k):
            where = slice(start + block.start, start + block.stop)
            silhouettes[where], nearest = _compared(*means(where), counts[labels[where]])
            least = min(least, nearest)
        return least

    return silhouettes, min(threads.each(look, range(0, len(points), rows)), default=np.inf)


def _squares(rows: Float64) -> Float64:
    """Squared length of each row."""
    squares: Float64 = np.einsum("nd,nd->n", rows, rows)
    return squares


def _sums(points: Float32, labels: Labels, k: int, centre: Float64 | float) -> Float64:
    """Sums of the centred points of each cluster, [k, d], added up in float64."""
    sums = np.zeros((k, points.shape[1]))
    for where in _blocks(points, 1):
        order = np.argsort(labels[where], kind="stable")
        there, first = np.unique(labels[where][order], return_index=True)
        sums[there] += np.add.reduceat(points[where][order].astype(np.float64) - centre, first, axis=0)
    return sums


def _from_totals(totals: Float64, labels: Labels, counts: npt.NDArray[np.int64]) -> Means:
    """Means from the summed distances of some points to every cluster, [rows, K], changed in place."""
    own = totals[np.arange(len(labels)), labels] / np.maximum(counts[labels] - 1, 1)
    totals /= -np.maximum(counts, 1)
    return own, -_greatest_other(totals, labels, counts)


def _compared(own: Float64, other: Float64, members: npt.NDArray[np.int64]) -> tuple[Float64, float]:
    """Silhouettes [rows], and the least of their denominators max(a, b) (infinite without any).

    Args:
        own, other: mean distances.
        members: points of each one's cluster.
    """
    largest = np.maximum(own, other)
    usable = (members > 1) & (largest > 0) & np.isfinite(largest)
    silhouettes = np.divide(other - own, largest, out=np.zeros(len(own)), where=usable)
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
