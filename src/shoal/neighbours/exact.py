"""Exact k-nearest neighbours by cosine similarity, at about half the work of comparing every row with every other.

The similarity of a pair is estimated once, in a block of a matrix product, and offered to both its rows. What passes
a row's bar (see `candidates`) is scored again by one summation in a fixed order. So a pair's similarity is a function
of its two vectors alone: it depends on no block, thread or BLAS, ties are ties, and the same rows give the same bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import threadpoolctl

from shoal.embeddings import Float32
from shoal.neighbours.candidates import Candidates, NeighbourIds, Rows
from shoal.progress import Progress, Task

BLOCK_ROWS = 2048  # a block of estimates is then 16 MB, and the product as fast as larger ones
MOST_THREADS = 8  # each holds a block of estimates


def exact_neighbours(
    x: Float32, k: int, progress: Progress | None = None, threads: int | None = None
) -> tuple[NeighbourIds, Float32]:
    """The k rows most similar to each row; never the row itself, but rows equal to it.

    Args:
        x: [n, d] rows of unit length, or zero (of similarity 0 to all).
        k: neighbours of each row, from 0 to n - 1.
        progress: shown a bar of blocks.
        threads: by default one for each core, up to 8. Changes the time only.

    Returns:
        ids [n, k] int32 and similarity [n, k] float32, by falling similarity; ties by the smaller id.

    Raises:
        ValueError: k is not from 0 to n - 1.
    """
    n = len(x)
    if not 0 <= k < max(n, 1):
        raise ValueError(f"The 'k' parameter of exact_neighbours must be from 0 to n - 1 = {n - 1}. Got {k} instead.")
    if k == 0:
        return np.empty((n, 0), dtype=np.int32), np.empty((n, 0), dtype=np.float32)
    search = _Search(np.ascontiguousarray(x, dtype=np.float32), k)
    # Each thread multiplies, compares and sorts on its own: no core waits while another picks candidates.
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads or min(os.cpu_count() or 1, MOST_THREADS)) as pool,
        (progress or Progress()).task("neighbours", search.steps, unit="blocks") as task,
    ):
        search.run(pool, task)
    return search.ids, search.similarity


class _Search:
    """The blocks of one search, and where its results go."""

    def __init__(self, x: Float32, k: int) -> None:
        n, d = x.shape
        self._x, self._k = x, k
        self.ids = np.empty((n, k), dtype=np.int32)
        self.similarity = np.empty((n, k), dtype=np.float32)
        error = np.full(n, rounding_error(d), dtype=np.float32)
        self._blocks = [Candidates(rows, k, error[rows]) for rows in _even_slices(n, BLOCK_ROWS)]
        count = len(self._blocks)
        self.steps = count * (count + 1) // 2 + count
        self._scratch = threading.local()

    def run(self, pool: ThreadPoolExecutor, task: Task) -> None:
        blocks = self._blocks
        # The blocks on the diagonal go first: they give every row its first bar.
        _run(pool, (partial(self._compare_within, block) for block in blocks), task)
        pairs = ((first, second) for number, first in enumerate(blocks) for second in blocks[number + 1 :])
        _run(pool, (partial(self._compare, first, second) for first, second in pairs), task)
        _run(pool, (partial(self._finish, block) for block in blocks), task)

    def _compare_within(self, block: Candidates) -> None:
        estimates = self._estimate(block.rows, block.rows)
        np.fill_diagonal(estimates, -np.inf)
        block.raise_bar(estimates)
        block.offer(estimates, block.rows.start)

    def _compare(self, first: Candidates, second: Candidates) -> None:
        estimates = self._estimate(first.rows, second.rows)
        first.offer(estimates, second.rows.start)
        second.offer(estimates.T, first.rows.start)

    def _estimate(self, rows: slice, columns: slice) -> Float32:
        """Similarities of two blocks of rows, [rows, columns], in this thread's scratch memory."""
        a, b = self._x[rows], self._x[columns]
        if not hasattr(self._scratch, "estimates"):
            self._scratch.estimates = np.empty(BLOCK_ROWS * BLOCK_ROWS, dtype=np.float32)
        out: Float32 = self._scratch.estimates[: len(a) * len(b)].reshape(len(a), len(b))
        return np.matmul(a, b.T, out=out)

    def _finish(self, block: Candidates) -> None:
        rows, ids, _ = block.finish()
        scores = score_pairs(self._x, rows + block.rows.start, ids)
        best = np.lexsort((ids, -scores, rows))
        starts = np.searchsorted(rows, np.arange(len(block.bar)))
        best = best[starts[:, None] + np.arange(self._k)]  # [rows of the block, k]
        self.ids[block.rows] = ids[best]
        self.similarity[block.rows] = scores[best]


def score_pairs(x: Float32, rows: Rows, ids: NeighbourIds) -> Float32:
    """Dot products of x[rows[i]] with x[ids[i]], each summed in the same order whatever else is asked; rows ascend."""
    scores = np.empty(len(ids), dtype=np.float32)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(rows)), strict=True):
        np.einsum("nd,d->n", x[ids[start:stop]], x[rows[start]], out=scores[start:stop])
    return scores


def rounding_error(d: int) -> float:
    """The most by which two float32 summations of one dot product of unit vectors in d dimensions can differ.

    Each is off by at most d u / (1 - d u), u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd
    edition, eq. 3.5); doubled once more for rows that are of unit length to rounding only.
    """
    unit = 2.0**-24
    return 4 * d * unit / (1 - d * unit)


def _even_slices(n: int, most: int) -> list[slice]:
    count = -(-n // most)
    edges = [n * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _run(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], None]], task: Task) -> None:
    """Make the calls on the pool; the first error, or an interruption, drops those not begun."""
    try:
        for _ in pool.map(lambda call: call(), calls):
            task.advance()
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
