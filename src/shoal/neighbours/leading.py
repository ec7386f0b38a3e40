"""The best few of each row by an estimate, out of very many that come in blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32
from shoal.neighbours.candidates import sort_key

Places = npt.NDArray[np.int64]


class Leading:
    """Of each row the `keep` largest estimates and where they are."""

    def __init__(self, rows: int, keep: int) -> None:
        self._keep = keep
        self._bar = np.full(rows, -np.inf, dtype=np.float32)  # what does not pass it is not among the row's best
        self._waiting = 0
        self._parts: list[tuple[Places, npt.NDArray[np.int32], Float32]] = []

    def offer(self, rows: Places, first: int, estimates: Float32) -> None:
        """Take from estimates [len(rows), m] of places from `first` on what may be among the best."""
        m = estimates.shape[1]
        if m > self._keep and (self._bar[rows] == -np.inf).all():
            columns = np.argpartition(estimates, m - self._keep, axis=1)[:, m - self._keep :]
            passing = np.arange(len(rows)).repeat(self._keep), columns.ravel()
            self._bar[rows] = np.take_along_axis(estimates, columns[:, :1], 1)[:, 0]
        else:
            passing = np.divmod(np.flatnonzero(estimates > self._bar[rows, None]), m)
        self._parts.append((rows[passing[0]], (passing[1] + first).astype(np.int32), estimates[passing]))
        self._waiting += len(passing[0])
        if self._waiting > 3 * self._keep * len(self._bar):
            self._merge()

    def finish(self) -> npt.NDArray[np.int32]:
        """The places of the best of each row [rows, keep], in no order; -1 where there were fewer."""
        self._merge()
        rows, places, _ = self._parts.pop()
        found = np.full((len(self._bar), self._keep), -1, dtype=np.int32)
        found[rows, _ranks(rows, len(self._bar))] = places
        return found

    def _merge(self) -> None:
        rows, places, estimates = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(sort_key(rows, estimates))
        rank = _ranks(rows[order], len(self._bar))
        last = order[rank == self._keep - 1]
        self._bar[rows[last]] = estimates[last]
        stay = order[rank < self._keep]
        self._parts = [(rows[stay], places[stay], estimates[stay])]
        self._waiting = 0


def _ranks(rows: Places, count: int) -> Places:
    """The number of each of sorted `rows` among those of its row."""
    sizes = np.bincount(rows, minlength=count)
    return np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
