"""Nearest neighbours of very many images, piece by piece: each image looks into the coarse cells nearest to it.

First every embedding is read once, in pieces: reduced to few dimensions, put in its cell, and compared with some
sampled images. From what the true neighbours of half of these say follows how many cells are near enough. Then, again
in pieces, every image is compared with those of its near cells in few dimensions, and the best of them by the
embeddings themselves. The other sampled images tell what share of true neighbours was found.

Every piece is a function of the embeddings and of what came before all pieces; it becomes a file. So threads, processes
and machines may share them out, a killed search goes on at the piece, and the result is the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal import atomic
from shoal.array_header import memory_map
from shoal.disk import require_free
from shoal.embeddings import EmbeddingStore, Ids
from shoal.halves import widened
from shoal.neighbours.cells import CellOrder
from shoal.neighbours.finding import PieceFinder, PieceOfNeighbours
from shoal.neighbours.placing import best_of, place
from shoal.neighbours.plan import DIMENSIONS, Plan, load_array
from shoal.neighbours.random_rows import Rows
from shoal.rundir import digest_bytes, digest_of

VERSION = 2  # of what the pieces hold
PLACED_ROWS = 65_536  # in a piece of the first pass
FOUND_ROWS = 16_384  # in one of the second
WANTED_RECALL = (
    0.98  # of true neighbours: those that lie in the cells looked into, and of these those that are candidates
)
SPARE, MOST_SPARE = 46, 462  # candidates beyond k whose true similarity is looked at, at least and at most
MOST_NEAR = 192  # cells; beyond it structureless data would cost as much as an exact search
MOST_OF_A_CELL = 8  # times the even size of cells that one image is compared with
TIE = 1e-6  # a neighbour as similar as the true k-th to rounding is as good


@dataclass(frozen=True, slots=True)
class Search:
    """The k nearest others of each of the images `ids`, in files of `folder`.

    In this order: `make_plan`; `place` for all of `places()`; `join`; `find` for all of `finds()`; then `found` and
    `recall`. What is there already is not made again. Who calls them holds BLAS to one thread: with several it rounds
    otherwise.
    """

    folder: Path
    store: EmbeddingStore
    ids: Ids
    k: int

    @classmethod
    def within(cls, scratch: Path, store: EmbeddingStore, ids: Ids, k: int) -> Search:
        """A search in a folder of its own in `scratch`, which goes on where the same one was killed; others go.

        Args:
            ids: rising ids [n] of the images.
            k: neighbours of each, from 1 to n - 1.
        """
        parts = [(store.folder / name).stat() for name in store.parts]
        # Parts are written anew, never changed: size and time tell them apart without reading them all once more.
        written = [(part.st_size, part.st_mtime_ns) for part in parts]
        key = digest_of(VERSION, store.dim, store.dtype, written, digest_bytes(ids.tobytes()), k)
        for other in scratch.iterdir() if scratch.is_dir() else ():
            if other.name != key:
                shutil.rmtree(other)
        return cls(scratch / key, store, ids, k)

    def require_room(self) -> None:
        """Raise DiskSpaceError if the reduced rows and the pieces would not fit."""
        reduced = 2 * len(self.ids) * 2 * DIMENSIONS  # half floats, by position and by place
        require_free(self.folder, reduced + len(self.ids) * self.k * 8, "the search for neighbours")

    # -- the first pass -----------------------------------------------------------------------------------------------

    def make_plan(self) -> None:
        """Fit what all pieces need, on a sample."""
        if not self._plan.is_file():
            Plan.fit(self.store, self.ids).save(self._plan)

    def plan(self) -> Plan:
        """What was fitted."""
        return Plan.load(self._plan)

    def places(self) -> range:
        """Numbers of the pieces of the first pass."""
        return range(-(-len(self.ids) // PLACED_ROWS))

    def place(self, plan: Plan, number: int) -> None:
        """Make a piece of the first pass."""
        file = self._placed(number)
        if not file.is_file():
            place(plan, self.store, self.ids, self._piece(number, PLACED_ROWS), self.k).save(file)

    # -- between the passes -------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Put images in the order of their cells, the reduced rows too, and choose how many cells are near enough."""
        if self._joined.is_file():
            return
        plan = self.plan()
        files = [self._placed(number) for number in self.places()]
        cell = np.concatenate([load_array(file, "cell") for file in files])
        even = -(-len(cell) // len(plan.centroids))
        cells = CellOrder.of(cell, plan.centroids, max(MOST_OF_A_CELL * even, 4 * (self.k + SPARE)))
        place_of = np.empty(len(cell), dtype=np.int64)
        place_of[cells.order] = np.arange(len(cell))
        with atomic.filling_array(self._reduced, (len(cell), plan.projection.shape[1]), np.float16) as fill:
            for number, file in enumerate(files):
                fill(place_of[self._piece(number, PLACED_ROWS)], load_array(file, "reduced"))
        similarity, true = best_of(
            np.concatenate([load_array(file, "similarity") for file in files], axis=1),
            np.concatenate([load_array(file, "near_asked") for file in files], axis=1),
            self.k,
        )
        near = _near_enough(plan, cells, cells.cells_at(place_of[true]))
        kept = _candidates_enough(memory_map(self._reduced), place_of[plan.asked], place_of[true])
        cells.save(self._joined, near=np.array(near), kept=np.array(kept), kth=similarity.min(axis=1))

    def finder(self) -> PieceFinder:
        """What the second pass reads."""
        near, kept = (int(load_array(self._joined, name)) for name in ("near", "kept"))
        reduced = memory_map(self._reduced)
        return PieceFinder(CellOrder.load(self._joined), reduced, Rows(self.store), self.ids, near, kept, self.k)

    # -- the second pass ----------------------------------------------------------------------------------------------

    def finds(self) -> range:
        """Numbers of the pieces of the second pass."""
        return range(-(-len(self.ids) // FOUND_ROWS))

    def find(self, finder: PieceFinder, number: int) -> None:
        """Make a piece of the second pass."""
        file = self._found(number)
        if not file.is_file():
            finder.find(self._piece(number, FOUND_ROWS)).save(file)

    def found(self) -> Iterator[PieceOfNeighbours]:
        """All pieces: the neighbours of each image once."""
        return (PieceOfNeighbours.load(self._found(number)) for number in self.finds())

    def recall(self) -> float:
        """The share of true neighbours that was found, of images that did not choose the near cells."""
        asked, kth = _told(self.plan().asked), _told(load_array(self._joined, "kth"))
        by_position = np.argsort(asked)
        asked, kth = asked[by_position], kth[by_position]
        reached = 0
        for found in self.found():
            at = np.searchsorted(asked, found.rows)
            here = np.flatnonzero(asked[np.minimum(at, len(asked) - 1)] == found.rows)
            good = (found.neighbours[here] >= 0) & (found.similarity[here] >= kth[at[here], None] - TIE)
            reached += int(good.sum())
        return round(reached / (len(asked) * self.k), 6)

    # -- files --------------------------------------------------------------------------------------------------------

    @property
    def _plan(self) -> Path:
        return self.folder / "plan.safetensors"

    @property
    def _joined(self) -> Path:
        return self.folder / "joined.safetensors"

    @property
    def _reduced(self) -> Path:
        return self.folder / "reduced.npy"

    def _placed(self, number: int) -> Path:
        return self.folder / f"placed-{number:06d}.safetensors"

    def _found(self, number: int) -> Path:
        return self.folder / f"found-{number:06d}.safetensors"

    def _piece(self, number: int, rows: int) -> slice:
        return slice(number * rows, min((number + 1) * rows, len(self.ids)))


def _near_enough(plan: Plan, cells: CellOrder, true: npt.NDArray[np.int64]) -> int:
    """How many cells to look into so that the wanted share of true neighbours, in cells [q, k], is met."""
    half = len(true) // 2
    rank = cells.ranks(plan.asked_rows[:half] @ plan.projection)
    met_at = np.take_along_axis(rank, true[:half], 1)
    return min(int(np.quantile(met_at, WANTED_RECALL, method="higher")) + 1, MOST_NEAR)


def _candidates_enough(reduced: npt.NDArray[np.float16], asked: Ids, true: Ids) -> int:
    """How many candidates a row needs so that the wanted share of true neighbours is among them.

    Args:
        reduced: [n, r] by place; memory-mapped.
        asked, true: places [q] of those asked, and [q, k] of their true neighbours.
    """
    half, k = len(asked) // 2, true.shape[1]
    asked, true = asked[:half], true[:half]
    rows = widened(reduced[asked])
    bars = np.sort(np.einsum("qr,qkr->qk", rows, widened(reduced[true.ravel()]).reshape(*true.shape, -1)), axis=1)
    before = np.zeros((half, k + 1), dtype=np.int64)  # of each, how many lie between two of its true neighbours
    for start in range(0, len(reduced), PLACED_ROWS):
        block = slice(start, start + PLACED_ROWS)
        for number, estimates in enumerate(rows @ widened(reduced[block]).T):
            above = estimates[estimates > bars[number, 0]]
            before[number] += np.bincount(np.searchsorted(bars[number], above), minlength=k + 1)
    ranks = before[:, ::-1].cumsum(axis=1)[:, :k]  # of the true ones from the nearest on: all that is nearer
    wanted = int(np.quantile(ranks, WANTED_RECALL, method="higher")) + 1
    return int(np.clip(wanted, k + SPARE, k + MOST_SPARE))


def _told(of_asked: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The half of what belongs to asked images that `_near_enough` did not see."""
    return of_asked[len(of_asked) // 2 :]
