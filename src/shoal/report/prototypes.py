"""Which images stand for a cluster: its most confident ones, unlike each other; and those it is least sure of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32

POOL: Final = 256  # most confident members looked at
TYPICAL_SHARE: Final = (
    0.5  # of the root mean square distance of two members, that prototypes keep from each other at first
)
SAME: Final = 1e-4  # squared distance of unit vectors below which two images are one for the eye

Positions = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]


def prototypes(points: Float32, confidence: Float32, count: int = 8, placed: Bools | None = None) -> Positions:
    """Positions of up to `count` members that show what a cluster is, most confident first.

    Walks down the most confident members and takes each that lies far enough from all taken before; so of a burst one
    image is taken. If that gives too few, near ones are let in too, but never two that look the same.

    Args:
        points: [n, d], the members' vectors; rows are compared by direction.
        confidence: [n].
        placed: [n], those that a person put there, which come after all others: they are certain, which says nothing
            of how typical they are.
    """
    order = (np.argsort(-confidence, kind="stable") if placed is None else np.lexsort((-confidence, placed)))[:POOL]
    pool = _unit(points[order])
    squared = np.maximum(2.0 - 2.0 * (pool @ pool.T), 0.0)  # [pool, pool]
    apart = squared[np.triu_indices(len(pool), 1)]
    # The mean, not the median: where most of the pool is one burst, the few others still count.
    gap = float(apart.mean()) * TYPICAL_SHARE**2 if len(apart) else 0.0
    taken: list[int] = []
    while True:
        taken = _take(squared, max(gap, SAME), count, taken)
        if len(taken) == count or gap <= SAME:
            return order[sorted(taken)]
        gap /= 4.0  # half the distance


def least_sure(confidence: Float32, shown: Sequence[int] | Positions, count: int = 7) -> Positions:
    """Positions of up to `count` least confident members, least first, none of those already `shown`."""
    order = np.argsort(confidence, kind="stable")
    return order[~np.isin(order, np.asarray(shown, dtype=np.intp))][:count]


def _take(squared: Float32, gap: float, count: int, taken: list[int]) -> list[int]:
    """Add to `taken` those that lie at least `gap` (squared) from all others in it, up to `count`."""
    taken = list(taken)
    for candidate in range(len(squared)):
        if len(taken) == count:
            break
        if candidate not in taken and bool((squared[candidate, taken] >= gap).all()):
            taken.append(candidate)
    return taken


def _unit(points: Float32) -> Float32:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit: Float32 = np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 0)
    return unit
