"""k-nearest neighbours by comparing pairs of blocks of rows: all pairs are the exact search, some an approximate one.

The similarity of a pair of rows is computed once, in a block of a matrix product, and offered to both. Neighbours so
close in similarity that rounding may have set their order are scored again by one summation in a fixed order, so that
equal rows are equally similar to any other wherever they lie: a matrix product rounds by a row's place in its block.
Threads share out blocks and change no result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from shoal import blas
from shoal.cores import core_count
from shoal.embeddings import Float32, products
from shoal.neighbours.candidates import Candidates, NeighbourIds, RowNumbers
from shoal.progress import Progress, Task

MOST_THREADS = 8  # each holds a block of estimates

Pair = tuple[int, int]


def search(
    x: Float32, k: int, blocks: Sequence[slice], pairs: Sequence[Pair], progress: Progress, threads: int | None = None
) -> tuple[NeighbourIds, Float32]:
    """The k best neighbours of each row among its own block and those paired with it.

    Args:
        x: [n, d] rows of unit length, or zero; may be memory-mapped.
        k: from 1 up; each row must be compared with at least as many others.
        blocks: consecutive slices that cover the rows.
        pairs: of two different blocks, by number, each pair once.
        progress: shown a bar of blocks.
        threads: by default one for each core, up to 8. Changes the time only.

    Returns:
        ids [n, k] int32 and similarity [n, k] float32, by falling similarity; ties by the smaller id.

    Raises:
        ValueError: a row is not finite, or is compared with too few.
    """
    found = _Search(x, k, blocks)
    # Each thread multiplies, compares and sorts on its own: no core waits while another picks candidates.
    with (
        blas.single(),
        ThreadPoolExecutor(threads or min(core_count(), MOST_THREADS)) as pool,
        progress.task("Neighbours", len(pairs) + 2 * len(blocks), unit="blocks") as task,
    ):
        found.run(pool, pairs, task)
    return found.ids, found.similarity


def even_slices(n: int, most: int) -> list[slice]:
    """The fewest consecutive slices of 0 to n of at most `most` rows, equal to within one."""
    count = -(-n // most)
    edges = [n * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


class _Search:
    """The blocks of one search, and where its results go."""

    def __init__(self, x: Float32, k: int, blocks: Sequence[slice]) -> None:
        n, d = x.shape
        self._x, self._k = x, k
        self._first = _first_equal(x)
        self.ids = np.empty((n, k), dtype=np.int32)
        self.similarity = np.empty((n, k), dtype=np.float32)
        self._blocks = [Candidates(rows, k, rounding_error(d), partial(self._score, rows.start)) for rows in blocks]
        self._scratch = threading.local()
        self._scratch_size = max(rows.stop - rows.start for rows in blocks) ** 2

    def run(self, pool: ThreadPoolExecutor, pairs: Sequence[Pair], task: Task) -> None:
        # Every block with itself goes first: that gives every row its first bar.
        _run(pool, (partial(self._compare_within, block) for block in self._blocks), task)
        _run(pool, (partial(self._compare, self._blocks[a], self._blocks[b]) for a, b in pairs), task)
        _run(pool, (partial(self._finish, block) for block in self._blocks), task)

    def _compare_within(self, block: Candidates) -> None:
        estimates = self._estimate(block.rows, block.rows)
        np.fill_diagonal(estimates, -np.inf)
        block.raise_bar(estimates)
        block.offer_rows(estimates, block.rows.start)

    def _compare(self, first: Candidates, second: Candidates) -> None:
        estimates = self._estimate(first.rows, second.rows)
        first.offer_rows(estimates, second.rows.start)
        second.offer_columns(estimates, first.rows.start)

    def _estimate(self, rows: slice, columns: slice) -> Float32:
        """Similarities of two blocks of rows, [rows, columns], in this thread's scratch memory."""
        a, b = self._x[rows], self._x[columns]
        if not hasattr(self._scratch, "estimates"):
            self._scratch.estimates = np.empty(self._scratch_size, dtype=np.float32)
        out: Float32 = self._scratch.estimates[: len(a) * len(b)].reshape(len(a), len(b))
        return np.matmul(a, b.T, out=out)

    def _score(self, start: int, rows: RowNumbers, ids: NeighbourIds) -> Float32:
        """Dot products of rows start + rows[i] with ids[i], each summed in the same order; equal pairs once."""
        pairs, number = np.unique(self._first[start + rows] << 32 | self._first[ids], return_inverse=True)
        left, right = pairs >> 32, pairs & 0xFFFFFFFF
        scores = np.empty(len(pairs), dtype=np.float32)
        edges = np.append(np.flatnonzero(np.diff(left, prepend=-1)), len(pairs))
        for begin, end in pairwise(edges.tolist()):
            scores[begin:end] = products(self._x[right[begin:end]], self._x[left[begin], None])[:, 0]
        return scores[number]

    def _finish(self, block: Candidates) -> None:
        rows, ids, scores = block.finish()
        doubtful = _doubtful(rows, scores, 2 * likely_error(self._x.shape[1]))
        scores[doubtful] = self._score(block.rows.start, rows[doubtful], ids[doubtful])
        best = np.lexsort((ids, -scores, rows))
        starts = np.searchsorted(rows, np.arange(len(block.bar)))
        if np.diff(starts, append=len(rows)).min() < self._k:  # comparisons with NaN are all false
            raise ValueError("x has rows that are not finite, or pairs that leave a row fewer than k others")
        best = best[starts[:, None] + np.arange(self._k)]  # [rows of the block, k]
        self.ids[block.rows] = ids[best]
        self.similarity[block.rows] = scores[best]


def _first_equal(x: Float32) -> npt.NDArray[np.int64]:
    """The number of the first row with the same bytes as each of `x` [n, d], [n]."""
    digests = np.empty((len(x), 2), dtype=np.uint64)
    for number, row in enumerate(x):
        digests[number] = np.frombuffer(blake2b(row, digest_size=16).digest(), dtype=np.uint64)
    order = np.lexsort(digests.T)  # stable: of equal rows the first comes first
    fresh = np.append(True, (np.diff(digests[order], axis=0) != 0).any(axis=1))
    first = np.empty(len(x), dtype=np.int64)
    first[order] = order[np.flatnonzero(fresh)][np.cumsum(fresh) - 1]
    return first


def _doubtful(rows: RowNumbers, estimates: Float32, gap: float) -> RowNumbers:
    """Which candidates, sorted by row and falling estimate, lie within `gap` of the one before or after them."""
    close = (np.diff(rows) == 0) & (np.diff(estimates) >= -gap)
    beside = np.zeros(len(rows), dtype=bool)
    beside[1:] |= close
    beside[:-1] |= close
    return np.flatnonzero(beside)


def rounding_error(d: int) -> float:
    """The most by which float32 rounding can move a dot product of unit vectors in d dimensions.

    It is d u / (1 - d u) with u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, eq.
    3.5); doubled for rows that are of unit length only to rounding.
    """
    unit = 2.0**-24
    return 2 * d * unit / (1 - d * unit)


def likely_error(d: int) -> float:
    """What it moves it by at most in practice: of the order of sqrt(d) u (Higham & Mary, 2019), here 5 times that."""
    return 5 * float(np.sqrt(d)) * 2.0**-24


def _run(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], None]], task: Task) -> None:
    """Make the calls on the pool; the first error, or an interruption, drops those not begun."""
    try:
        for _ in pool.map(lambda call: call(), calls):
            task.advance()
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
