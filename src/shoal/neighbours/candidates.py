"""The candidates of one block of rows: what may still be among each row's k nearest, and the bar to get in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32

RowNumbers = npt.NDArray[np.intp]
NeighbourIds = npt.NDArray[np.int32]
Score = Callable[[RowNumbers, NeighbourIds], Float32]  # of pairs of a row and an id

MERGE_AT_LEAST = 4096  # candidates; fewer are not worth a sort
STRIP = 2**19  # estimates compared at a time: few enough for the cache, and for memory even if all of them pass
SPARE = 64  # more candidates than this beyond k are kept for no row: thousands of equal images must not fill the memory


class Candidates:
    """Collects (row, id, estimate) and forgets what cannot be among a row's k best.

    With every estimate within `error` of the true similarity, a row that has k candidates of estimate e or more has
    k of true similarity e - error or more; one of estimate below e - 2 error is then no neighbour. `bar` is that
    limit for each row. It only ever rises, so a reader who sees an old value takes too many, never too few.
    """

    def __init__(self, rows: slice, k: int, error: float, score: Score) -> None:
        """Candidates of `rows`.

        Args:
            error: the most by which an estimate is off; above 0.
            score: the similarity of rows, numbered from 0, and ids, no more off than an estimate but equal for equal
                images: where many are as good as each other, it and the smaller id say which stay.
        """
        self.rows = rows
        self.bar = np.full(rows.stop - rows.start, -np.inf, dtype=np.float32)
        self._k = k
        self._margin = np.float32(2 * error)
        self._score = score
        self._lock = threading.Lock()
        self._parts: list[tuple[RowNumbers, NeighbourIds, Float32]] = []
        self._kept = 0
        self._pending = 0

    def raise_bar(self, estimates: Float32) -> None:
        """Set the first bar from a block of estimates [number of rows, m]; nothing is collected."""
        m = estimates.shape[1]
        if m >= self._k:
            kth = np.partition(estimates, m - self._k, axis=1)[:, m - self._k]
            self.bar = np.maximum(self.bar, kth - self._margin)

    def offer_rows(self, estimates: Float32, first_id: int) -> None:
        """Take from estimates [number of rows, m] of ids from `first_id` on what is above the bar. Thread-safe."""
        for start, strip in _strips(estimates):
            bar = self.bar[start : start + len(strip), None]
            rows, columns = np.divmod(np.flatnonzero(strip > bar), strip.shape[1])
            self._add(rows + start, columns + first_id, strip[rows, columns])

    def offer_columns(self, estimates: Float32, first_id: int) -> None:
        """The same from estimates [m, number of rows]."""
        for start, strip in _strips(estimates):
            columns, rows = np.divmod(np.flatnonzero(strip > self.bar), strip.shape[1])
            self._add(rows, columns + (start + first_id), strip[columns, rows])

    def _add(self, rows: RowNumbers, ids: RowNumbers, estimates: Float32) -> None:
        if not len(rows):
            return
        with self._lock:
            self._parts.append((rows, ids.astype(np.int32), estimates))
            self._pending += len(rows)
            if self._pending > max(self._kept, MERGE_AT_LEAST):
                self._merge()

    def finish(self) -> tuple[RowNumbers, NeighbourIds, Float32]:
        """Hand over what is left, by row and within a row by falling estimate."""
        with self._lock:
            self._merge()
            return self._parts.pop()

    def _merge(self) -> None:
        rows, ids, estimates = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(sort_key(rows, estimates))
        rows, estimates = rows[order], estimates[order]
        counts = np.bincount(rows, minlength=len(self.bar))
        kth = np.cumsum(counts) - counts + self._k - 1
        full = np.flatnonzero(counts >= self._k)
        self.bar[full] = estimates[kth[full]] - self._margin
        stay = np.flatnonzero(estimates > self.bar[rows])
        merged = rows[stay], ids[order[stay]], estimates[stay]
        crowded = np.bincount(merged[0]) > self._k + SPARE
        if crowded.any():
            merged = self._cut(*merged, crowded)
        self._parts = [merged]
        self._kept, self._pending = len(merged[0]), 0

    def _cut(
        self, rows: RowNumbers, ids: NeighbourIds, estimates: Float32, crowded: npt.NDArray[np.bool_]
    ) -> tuple[RowNumbers, NeighbourIds, Float32]:
        """The best of each crowded row, scored, and all of the others, by row and falling estimate."""
        among = crowded[rows]
        estimates[among] = self._score(rows[among], ids[among])
        order = np.lexsort((ids, -estimates, rows))
        rows = rows[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        stay = rank < self._k + SPARE
        return rows[stay], ids[order[stay]], estimates[order[stay]]


def _strips(estimates: Float32) -> Iterator[tuple[int, Float32]]:
    height = max(1, STRIP // estimates.shape[1])
    for start in range(0, len(estimates), height):
        yield start, estimates[start : start + height]


def sort_key(rows: RowNumbers, estimates: Float32) -> npt.NDArray[np.int64]:
    """Integers that sort by row, then by falling estimate: one integer sort is several times faster than a lexsort."""
    bits = estimates.view(np.int32)
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # IEEE 754: negative numbers rise as their bits fall
    return (rows.astype(np.int64) << 32) - rising
