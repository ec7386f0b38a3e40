"""Work on several cores: one thread a core, each with a BLAS of one thread.

k-means makes thousands of small matrix products. A BLAS that spreads each of them over all cores spends its time
waiting for its own threads, and far more so on a machine that is doing something else too: a QR decomposition of 1,280
by 256 took 19 ms with one thread and 18 with two on two idle cores, 27 and 1,076 beside another program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from shoal import blas
from shoal.cores import core_count

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` for all items, in their order, computed side by side.

    Within the work of another call items come one after another: the cores are busy. What is one item alone leaves them
    to the calls within it.
    """
    items = list(items)
    if _within.is_work:
        yield from map(work, items)
    elif len(items) < 2:
        with blas.single():
            yield from map(work, items)
    else:
        with blas.single(), ThreadPoolExecutor(core_count(), initializer=_begin_work) as pool:
            yield from pool.map(work, items)


class _Within(threading.local):
    is_work = False


_within = _Within()


def _begin_work() -> None:
    _within.is_work = True


def eigh(matrix: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Eigenvalues [d], rising, and eigenvectors [d, d] of a symmetric matrix, on one thread."""
    with blas.single():
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors
