"""A piece of the first pass: each row reduced and placed in its cell, and compared with those asked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.neighbours.plan import Cells, Plan, nearest_cell, save_arrays


@dataclass(frozen=True, slots=True)
class Placed:
    """Consecutive positions, m of them."""

    reduced: npt.NDArray[np.float16]  # [m, r]
    cell: Cells  # [m]
    near_asked: Ids  # [q, at most k] positions nearest to those asked, themselves left out, in no order
    similarity: Float32  # [q, at most k], of these

    def save(self, file: Path) -> None:
        save_arrays(file, **{field.name: getattr(self, field.name) for field in fields(self)})


def place(plan: Plan, store: EmbeddingStore, ids: Ids, piece: slice, k: int) -> Placed:
    """Place the rows at positions `piece` of `ids`; the same whatever other pieces there are.

    Raises:
        RunError: an embedding is not readable, or not finite.
    """
    reduced: list[npt.NDArray[np.float16]] = []
    cells: list[Cells] = []
    best = np.empty((len(plan.asked), 0), dtype=np.float32)
    best_at = np.empty((len(plan.asked), 0), dtype=np.int64)
    for where, rows in store.blocks(ids[piece]):
        normalise_rows(rows)
        few = rows @ plan.projection
        reduced.append(few.astype(np.float16))
        cells.append(nearest_cell(few, plan.centroids))
        first = piece.start + where.start
        similarity = plan.asked_rows @ rows.T
        inside = np.flatnonzero((plan.asked >= first) & (plan.asked < first + len(rows)))
        similarity[inside, plan.asked[inside] - first] = -np.inf
        at = np.broadcast_to(np.arange(len(rows)) + first, similarity.shape)
        best, best_at = best_of(np.concatenate([best, similarity], 1), np.concatenate([best_at, at], 1), k)
    return Placed(np.concatenate(reduced), np.concatenate(cells), best_at, best)


def best_of(similarity: Float32, at: Ids, k: int) -> tuple[Float32, Ids]:
    """The k largest of each row of similarities [q, m], or all if there are fewer, in no order, and where they are."""
    if similarity.shape[1] <= k:
        return similarity, at
    first = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return np.take_along_axis(similarity, first, 1), np.take_along_axis(at, first, 1)
