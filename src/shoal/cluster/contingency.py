"""How far two clusterings of the same points agree, by how many points have each pair of labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Float64, Labels


@dataclass(frozen=True, slots=True, eq=False)
class Contingency:
    """How many points have each pair of labels; only pairs that occur, which are no more than there are points.

    Attributes:
        first, second: labels of each pair, [pairs], from 0 to k − 1; by rising first, then second.
        count: int64 [pairs], 1 or more.
    """

    first: Labels
    second: Labels
    count: npt.NDArray[np.int64]
    k: int

    def dense(self) -> npt.NDArray[np.int64]:
        """The table [k, k]."""
        table = np.zeros((self.k, self.k), np.int64)
        table[self.first, self.second] = self.count
        return table


def matched(table: Contingency) -> float:
    """Greatest share of the points that a one-to-one match of first and second labels covers."""
    from scipy.sparse import csgraph, csr_array  # noqa: PLC0415  (as in linkage; scipy.optimize takes longer to load)

    counts = table.dense()
    missed = csr_array(counts.max() + 1 - counts)  # above 0, or the pair could not be matched
    rows, columns = csgraph.min_weight_full_bipartite_matching(missed)
    return float(counts[rows, columns].sum() / counts.sum())


def contingency(first: Labels, second: Labels, k: int) -> Contingency:
    """Pairs of labels [n] and [n], which run from 0 to k − 1."""
    pairs, count = np.unique(first.astype(np.int64) * k + second, return_counts=True)
    return Contingency((pairs // k).astype(np.int32), (pairs % k).astype(np.int32), count.astype(np.int64), k)


def adjusted_rand(table: Contingency) -> float:
    """Adjusted Rand index (Hubert and Arabie, Comparing partitions, 1985, equation 5)."""
    both, first, second, possible = _pairs(table)
    expected = first * second / possible if possible else 0.0
    largest = (first + second) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def together(table: Contingency) -> float:
    """Share of the pairs that are together in one labelling that are together in the other (mean over both ways)."""
    both, first, second, _ = _pairs(table)
    return 1.0 if first + second == 0 else 2 * both / (first + second)


def _pairs(table: Contingency) -> tuple[float, float, float, float]:
    """Pairs of points together in both labellings, in the first, in the second, and all pairs."""

    def count(sizes: npt.NDArray[np.integer] | Float64) -> float:
        values = sizes.astype(np.float64)
        return float(np.sum(values * (values - 1)) / 2)

    margins = (np.bincount(labels, table.count, table.k) for labels in (table.first, table.second))
    first, second = (count(sizes) for sizes in margins)
    return count(table.count), first, second, count(table.count.sum(keepdims=True))
