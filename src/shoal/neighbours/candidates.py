"""The candidates of one block of rows: what may still be among each row's k nearest, and the bar to get in."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32

RowNumbers = npt.NDArray[np.intp]
NeighbourIds = npt.NDArray[np.int32]

MERGE_AT_LEAST = 4096  # candidates; fewer are not worth a sort


class Candidates:
    """Collects (row, id, estimate) and forgets what cannot be among a row's k best.

    With every estimate within `error` of the true similarity, a row that has k candidates of estimate e or more has
    k of true similarity e - error or more; one of estimate below e - 2 error is then no neighbour. `bar` is that
    limit for each row. It only ever rises, so a reader who sees an old value takes too many, never too few.
    """

    def __init__(self, rows: slice, k: int, error: float) -> None:
        """`error`: the most by which an estimate is off; above 0."""
        self.rows = rows
        self.bar = np.full(rows.stop - rows.start, -np.inf, dtype=np.float32)
        self._k = k
        self._margin = np.float32(2 * error)
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

    def offer(self, estimates: Float32, first_id: int) -> None:
        """Take from a block of estimates [number of rows, m], of ids from `first_id` on, what is above the bar.

        Safe from several threads.
        """
        if estimates.flags.c_contiguous:
            flat = np.flatnonzero(estimates > self.bar[:, None])
            rows, columns = np.divmod(flat, estimates.shape[1])
        else:  # the transpose of a block: walk it as it lies in memory
            flat = np.flatnonzero(self.bar < estimates.T)
            columns, rows = np.divmod(flat, estimates.shape[0])
        if not len(flat):
            return
        part = (rows, (columns + first_id).astype(np.int32), estimates[rows, columns])
        with self._lock:
            self._parts.append(part)
            self._pending += len(flat)
            if self._pending > max(self._kept, MERGE_AT_LEAST):
                self._merge()

    def finish(self) -> tuple[RowNumbers, NeighbourIds, Float32]:
        """Hand over what is left, by row and within a row by falling estimate."""
        with self._lock:
            self._merge()
            return self._parts.pop()

    def _merge(self) -> None:
        rows, ids, estimates = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(_sort_key(rows, estimates))
        rows, estimates = rows[order], estimates[order]
        ends = np.searchsorted(rows, np.arange(len(self.bar)), side="right")
        kth = np.diff(ends, prepend=0).cumsum() - np.diff(ends, prepend=0) + self._k - 1
        full = np.flatnonzero(kth < ends)
        self.bar[full] = estimates[kth[full]] - self._margin
        stay = estimates > self.bar[rows]
        self._parts = [(rows[stay], ids[order[stay]], estimates[stay])]
        self._kept, self._pending = len(self._parts[0][0]), 0


def _sort_key(rows: RowNumbers, estimates: Float32) -> npt.NDArray[np.int64]:
    """Integers that sort by row, then by falling estimate: one integer sort is several times faster than a lexsort."""
    bits = estimates.view(np.int32)
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # IEEE 754: negative numbers rise as their bits fall
    return (rows.astype(np.int64) << 32) - rising
