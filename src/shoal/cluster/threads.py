"""Work on several cores: one thread a core, each with a BLAS of one thread.

k-means makes thousands of small matrix products. A BLAS that spreads each of them over all cores spends its time
waiting for its own threads, and far more so on a machine that is doing something else too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from shoal.cores import core_count

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` for all items, in their order, computed side by side."""
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(core_count()) as pool:
        yield from pool.map(work, items)
