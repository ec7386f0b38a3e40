"""BLAS held to one thread by several at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy  # noqa: F401  (which brings a BLAS)
import pytest
import threadpoolctl

from shoal.blas import single

USUAL = 2  # however many cores there are


@pytest.fixture(autouse=True)
def _several() -> Iterator[None]:
    with threadpoolctl.threadpool_limits(USUAL, user_api="blas"):
        assert counted() == {USUAL}
        yield


def counted() -> set[int]:
    """How many threads the process's BLAS uses, of each library."""
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


class Holder:
    """Another thread that enters, and leaves when it is told."""

    def __init__(self) -> None:
        self._entered, self._told, self._left, self._done = (threading.Event() for _ in range(4))
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()
        assert self._entered.wait(60)

    def _hold(self) -> None:
        with single():
            self._entered.set()
            self._told.wait(60)
        self._left.set()
        self._done.wait(60)

    def leave(self) -> None:
        self._told.set()
        assert self._left.wait(60)

    def end(self) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.parametrize("lives_on", [True, False])
def test_the_last_thread_out_sets_back_what_there_was(lives_on: bool) -> None:
    """Whether or not the first one goes on with something else."""
    first = Holder()
    second = Holder()
    assert counted() == {1}
    first.leave()
    if not lives_on:
        first.end()
    assert counted() == {1}
    second.leave()
    assert counted() == {USUAL}
    with single():
        assert counted() == {1}
    assert counted() == {USUAL}
    first.end()
    second.end()


def test_blocks_of_one_thread_are_nested() -> None:
    with single():
        with single():
            assert counted() == {1}
        assert counted() == {1}
    assert counted() == {USUAL}


def test_an_error_leaves_too() -> None:
    with single():
        with pytest.raises(ValueError, match="inside"), single():
            raise ValueError("inside")
        assert counted() == {1}
    assert counted() == {USUAL}


def test_a_library_that_has_several_threads_meanwhile_is_held_to_one() -> None:
    """As one that is loaded only then."""
    with single():
        threadpoolctl.threadpool_limits(USUAL, user_api="blas")
        with single():
            assert counted() == {1}
        assert counted() == {1}
    assert counted() == {USUAL}


def test_a_generator_that_is_dropped_leaves() -> None:
    def held() -> Iterator[None]:
        with single():
            yield

    generator = held()
    next(generator)
    assert counted() == {1}
    del generator
    gc.collect()
    assert counted() == {USUAL}
