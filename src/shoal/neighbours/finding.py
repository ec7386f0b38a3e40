"""A piece of the second pass: the nearest others of rows that lie side by side in the order of cells."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32, Ids, products
from shoal.halves import widened
from shoal.neighbours.candidates import NeighbourIds
from shoal.neighbours.cells import CellOrder
from shoal.neighbours.leading import Leading
from shoal.neighbours.plan import load_arrays, save_arrays
from shoal.neighbours.random_rows import Rows

ESTIMATES = 2**18  # computed at a time: few enough for the cache
CANDIDATES = 2**21  # held at a time
SCORED_ROWS = 256  # whose candidates' embeddings are read together
MARGIN = 8  # candidates beyond k that are compared without rounding errors
CHEAPER = 16  # times as many products by one of matrices take no longer than those of rows taken one by one


@dataclass(frozen=True, slots=True)
class PieceOfNeighbours:
    """Neighbours of consecutive places in the order of cells."""

    rows: Ids  # [m] positions whose they are
    neighbours: NeighbourIds  # [m, k] positions; -1 where there are fewer
    similarity: Float32  # [m, k] falling; 0 where there are fewer

    def save(self, file: Path) -> None:
        save_arrays(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> PieceOfNeighbours:
        return cls(**load_arrays(file))


@dataclass(frozen=True, slots=True)
class PieceFinder:
    """What every piece of the second pass reads."""

    cells: CellOrder
    reduced: npt.NDArray[np.float16]  # [n, r] by place; memory-mapped
    rows: Rows
    ids: Ids  # [n] by position
    near: int  # cells that each row looks into
    kept: int  # candidates of each row, whose true similarity is looked at
    k: int

    def find(self, piece: slice) -> PieceOfNeighbours:
        """The nearest others of the rows at places `piece`; the same whatever other pieces there are."""
        places = np.arange(piece.start, piece.stop)
        positions = self.cells.order[places]
        neighbours = np.full((len(places), self.k), -1, dtype=np.int32)
        similarity = np.zeros((len(places), self.k), dtype=np.float32)
        height = max(SCORED_ROWS, CANDIDATES // self.kept)
        for first in range(0, len(places), height):
            candidates = self._candidates(places[first : first + height])
            for start in range(0, len(candidates), SCORED_ROWS):
                part = slice(first + start, first + min(start + SCORED_ROWS, len(candidates)))
                few = candidates[start : start + SCORED_ROWS]
                neighbours[part], similarity[part] = self._scored(positions[part], few)
        return PieceOfNeighbours(positions, neighbours, similarity)

    def _candidates(self, places: npt.NDArray[np.int64]) -> NeighbourIds:
        """Places [m, kept] most similar to each of `places` in few dimensions, in no order; -1 for none."""
        queries = widened(self.reduced[places[0] : places[-1] + 1])
        best = Leading(len(places), self.kept)
        for rows, first, end in self.cells.looks(queries, places, self.near, self.kept + 1):
            others = widened(self.reduced[first:end])
            height = max(1, ESTIMATES // len(others))
            for start in range(0, len(rows), height):
                few = rows[start : start + height]
                estimates = queries[few] @ others.T
                own = places[few] - first
                inside = np.flatnonzero((own >= 0) & (own < len(others)))
                estimates[inside, own[inside]] = -np.inf
                best.offer(few, first, estimates)
        return best.finish()

    def _scored(self, positions: Ids, candidates: NeighbourIds) -> tuple[NeighbourIds, Float32]:
        """The k best of candidates [m, c] by the embeddings themselves: positions and similarity, ties by position."""
        among = np.where(candidates >= 0, self.cells.order[candidates], positions[:, None])
        is_one = among != positions[:, None]
        needed, at = np.unique(np.column_stack([positions, among]), return_inverse=True)
        at = at.reshape(len(positions), -1)
        rows = self.rows.read(self.ids[needed])
        own, others = at[:, 0], at[:, 1:]
        if is_one.shape[1] > self.k + MARGIN:
            leading = self._leading(rows, own, others, is_one)
            among, others, is_one = (np.take_along_axis(of, leading, 1) for of in (among, others, is_one))
        similarity = np.empty(among.shape, dtype=np.float32)
        taken = np.empty((among.shape[1], rows.shape[1]), dtype=np.float32)
        for number, (row, near) in enumerate(zip(own, others, strict=True)):
            np.take(rows, near, axis=0, out=taken, mode="clip")
            similarity[number] = products(taken, rows[row, None])[:, 0]
        similarity[~is_one] = -np.inf
        first = np.lexsort((among, -similarity))[:, : self.k]
        similarity = np.take_along_axis(similarity, first, 1)
        missing = similarity == -np.inf
        found = np.where(missing, -1, np.take_along_axis(among, first, 1)).astype(np.int32)
        return found, np.where(missing, np.float32(0), similarity)

    def _leading(self, rows: Float32, own: Ids, others: Ids, is_one: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Columns [m, k + MARGIN] of the nearest of `others` [m, c], to rounding. Both are places in `rows` [u, d]."""
        if len(rows) <= CHEAPER * others.shape[1]:
            estimates = np.take_along_axis(rows[own] @ rows.T, others, 1)
        else:
            estimates = np.empty(others.shape, dtype=np.float32)
            taken = np.empty((others.shape[1], rows.shape[1]), dtype=np.float32)
            for number, (row, near) in enumerate(zip(own, others, strict=True)):
                np.take(rows, near, axis=0, out=taken, mode="clip")
                np.dot(taken, rows[row], out=estimates[number])
        estimates[~is_one] = -np.inf
        count = self.k + MARGIN
        return np.argpartition(-estimates, count - 1, axis=1)[:, :count]
