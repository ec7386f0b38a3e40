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

SPARE = 46  # candidates beyond k whose true similarity is looked at
ESTIMATES = 2**18  # computed at a time: few enough for the cache
SCORED_ROWS = 256  # whose candidates' embeddings are read together


@dataclass(frozen=True, slots=True)
class Found:
    """Neighbours of consecutive places in the order of cells."""

    rows: Ids  # [m] positions whose they are
    neighbours: NeighbourIds  # [m, k] positions; -1 where there are fewer
    similarity: Float32  # [m, k] falling; 0 where there are fewer

    def save(self, file: Path) -> None:
        save_arrays(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Found:
        return cls(**load_arrays(file))


@dataclass(frozen=True, slots=True)
class Finder:
    """What every piece of the second pass reads."""

    cells: CellOrder
    reduced: npt.NDArray[np.float16]  # [n, r] by place; memory-mapped
    rows: Rows
    ids: Ids  # [n] by position
    near: int  # cells that each row looks into
    k: int

    def find(self, piece: slice) -> Found:
        """The nearest others of the rows at places `piece`; the same whatever other pieces there are."""
        places = np.arange(piece.start, piece.stop)
        candidates = self._candidates(places)
        positions = self.cells.order[places]
        neighbours = np.full((len(places), self.k), -1, dtype=np.int32)
        similarity = np.zeros((len(places), self.k), dtype=np.float32)
        for start in range(0, len(places), SCORED_ROWS):
            part = slice(start, start + SCORED_ROWS)
            neighbours[part], similarity[part] = self._scored(positions[part], candidates[part])
        return Found(positions, neighbours, similarity)

    def _candidates(self, places: npt.NDArray[np.int64]) -> NeighbourIds:
        """Places [m, k + SPARE] most similar to each of `places` in few dimensions, in no order; -1 for none."""
        queries = widened(self.reduced[places[0] : places[-1] + 1])
        best = Leading(len(places), self.k + SPARE)
        for rows, first, end in self.cells.looks(queries, places, self.near, self.k + SPARE + 1):
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
        there = candidates >= 0
        among = np.where(there, self.cells.order[candidates], positions[:, None])
        needed, at = np.unique(np.column_stack([positions, among]), return_inverse=True)
        rows = self.rows.read(self.ids[needed])
        similarity = np.empty(among.shape, dtype=np.float32)
        others = np.empty((among.shape[1], rows.shape[1]), dtype=np.float32)
        for number, row in enumerate(at.reshape(len(positions), -1)):
            np.take(rows, row[1:], axis=0, out=others, mode="clip")
            similarity[number] = products(others, rows[row[0], None])[:, 0]
        similarity[~there | (among == positions[:, None])] = -np.inf
        first = np.lexsort((among, -similarity))[:, : self.k]
        similarity = np.take_along_axis(similarity, first, 1)
        missing = similarity == -np.inf
        found = np.where(missing, -1, np.take_along_axis(among, first, 1)).astype(np.int32)
        return found, np.where(missing, np.float32(0), similarity)
