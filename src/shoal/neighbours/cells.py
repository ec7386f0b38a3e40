"""All images in the order of their cells, and which cells each looks into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32
from shoal.neighbours.plan import Cells, load_array, nearness, save_arrays

Places = npt.NDArray[np.int64]  # in the order of cells

FIRST_OF = 8  # of that many near cells one is looked into before the others, which then have few rows to give
BLOCK = 1024  # rows whose nearness to all cells is held at a time


@dataclass(frozen=True, slots=True)
class CellOrder:
    """Images cell by cell, within a cell by position. Cell c holds places starts[c] up to starts[c + 1]."""

    order: npt.NDArray[np.int64]  # [n] the position at each place
    starts: Places  # [C + 1]
    centroids: Float32  # [C, r], of cells that hold something
    most: int  # rows of a cell that one row is compared with: past it a cell is cut into even slices

    @classmethod
    def of(cls, cell: Cells, centroids: Float32, most: int) -> CellOrder:
        """The order of images by their cells [n]."""
        order = np.argsort(cell, kind="stable")
        present, starts = np.unique(cell[order], return_index=True)
        return cls(order, np.append(starts, len(cell)), centroids[present], most)

    def save(self, file: Path, **more: npt.NDArray[Any]) -> None:
        """Write it and some arrays more."""
        named = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        save_arrays(file, **named, **more)

    @classmethod
    def load(cls, file: Path) -> CellOrder:
        """What `save` wrote."""
        order, starts, centroids, most = (load_array(file, field.name) for field in fields(cls))
        return cls(order, starts, centroids, int(most))

    @property
    def sizes(self) -> Places:
        """How many images each cell holds, [C]."""
        return np.diff(self.starts)

    def cells_at(self, places: Places) -> Places:
        """The cell at each place."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def ranks(self, reduced: Float32) -> Places:
        """Each cell's rank by nearness to rows [q, r], 0 the nearest: [q, C]."""
        return nearness(reduced, self.centroids).argsort(axis=1)[:, ::-1].argsort(axis=1)

    def looks(self, reduced: Float32, places: Places, near: int, least: int) -> Iterator[tuple[Places, int, int]]:
        """Where the rows at `places` look: (which of them, first place, last place + 1), each row's own cell first.

        Args:
            reduced: [m, r], the rows.
            near: cells that each looks into besides its own, if it is not among them.
            least: images that each is to meet at least, if there are as many.
        """
        own = self.cells_at(places)
        for cell in np.unique(own).tolist():
            yield from self._slices(cell, np.flatnonzero(own == cell), places, own=True)
        for rows, cells in self._near(reduced, near, least):
            others = np.flatnonzero(cells != own[rows])
            others = others[np.argsort(cells[others], kind="stable")]
            edges = np.flatnonzero(np.diff(cells[others], prepend=-1)).tolist()
            for start, stop in pairwise([*edges, len(others)]):
                yield from self._slices(int(cells[others[start]]), rows[others[start:stop]], places, own=False)

    def _near(self, reduced: Float32, near: int, least: int) -> Iterator[tuple[Places, Places]]:
        """Pairs of a row and a cell that it looks into, by row: first of the nearest cells, then of the others."""
        sizes = self.sizes // -(-self.sizes // self.most)  # of the least slice of each
        near = min(near, len(sizes))
        first = -(-near // FIRST_OF)
        pairs: list[list[tuple[Places, Places]]] = [[], []]
        for start in range(0, len(reduced), BLOCK):
            far = -nearness(reduced[start : start + BLOCK], self.centroids)
            nearest = np.argpartition(far, (first - 1, near - 1), axis=1)[:, :near]
            enough = sizes[nearest].sum(axis=1) >= least
            rows = np.flatnonzero(enough) + start
            for batch, columns in enumerate((slice(first), slice(first, near))):
                cells = nearest[enough, columns]
                pairs[batch].append((rows.repeat(cells.shape[1]), cells.ravel()))
            short = np.flatnonzero(~enough)  # many cells of few images
            by_nearness = far[short].argsort(axis=1)
            met_before = sizes[by_nearness].cumsum(axis=1) - sizes[by_nearness]
            row, rank = np.nonzero(met_before < least)
            pairs[1].append((short[row] + start, by_nearness[row, rank]))
        for batch_pairs in pairs:
            rows, cells = (np.concatenate(column) for column in zip(*batch_pairs, strict=True))
            yield rows, cells

    def _slices(self, cell: int, rows: Places, places: Places, *, own: bool) -> Iterator[tuple[Places, int, int]]:
        """One cell, or for each row one slice of it: of its own cell the slice that it is in."""
        start, stop = self.starts[cell : cell + 2].tolist()
        count = -(-(stop - start) // self.most)
        edges = start + (stop - start) * np.arange(count + 1) // count
        which = np.searchsorted(edges, places[rows], side="right") - 1 if own else places[rows] % count
        for number in np.unique(which).tolist():
            yield rows[which == number], int(edges[number]), int(edges[number + 1])
