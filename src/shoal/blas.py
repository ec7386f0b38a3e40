"""BLAS held to one thread, for the whole process, by as many at once as want it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController


@contextmanager
def single() -> Iterator[None]:
    """A BLAS of one thread: for what is too small to be spread, or spread already, or must be rounded in one way.

    It is so for all threads. The first one in sets it, and the last one out sets back what there was before; in between
    blocks may be nested, and overlap in any order.
    """
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [(library, library.num_threads) for library in found if _is_of_each_thread(library)]
    try:
        _limit.enter([library for library in found if not _is_of_each_thread(library)])
        for library, _ in own:
            library.set_num_threads(1)
        yield
    finally:
        for library, threads in own:
            library.set_num_threads(threads)
        _limit.leave()


class _Limit:
    """Counts those who want one thread.

    The collector may close a dropped generator that holds the limit while this thread is in here: so the lock is one
    that it may take again, and who enters is counted before anything else.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders = 0
        self._before: list[tuple[Any, int]] = []  # libraries, and how many threads each had

    def enter(self, libraries: list[Any]) -> None:
        with self._lock:
            self._holders += 1
            for library in libraries:
                threads = library.num_threads
                if threads != 1:  # or it was loaded after the first one entered
                    self._before.append((library, threads))
                    _set_threads(library, 1)

    def leave(self) -> None:
        with self._lock:
            self._holders -= 1
            while self._before and not self._holders:
                _set_threads(*self._before.pop())


_limit = _Limit()


def _is_of_each_thread(library: Any) -> bool:
    """Whether each thread of the process sets a number of its own."""
    return bool(library.internal_api == "openblas" and library.threading_layer == "openmp")


def _set_threads(library: Any, threads: int) -> None:
    """Whoever set it last: since 3.8 threadpoolctl heeds nobody else while the thread lives that did."""
    free = getattr(library, "clear_controlling_thread", None)
    if free is not None:
        free(force=True)
    library.set_num_threads(threads)
    if free is not None:
        free(force=True)
