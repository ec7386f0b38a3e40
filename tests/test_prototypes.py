"""Which images stand for a cluster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from shoal.report.prototypes import SAME, least_sure, prototypes


def _unit(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def _squared_gaps(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    gaps = np.square(points[:, None] - points[None]).sum(axis=-1)
    return gaps[np.triu_indices(len(points), 1)]


def _cluster_with_burst(burst: int, others: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A cluster whose most confident members are `burst` near-copies of one image."""
    rng = np.random.default_rng(0)
    middle = np.ones((1, 16))
    scattered = middle + rng.normal(0, 0.5, (others, 16))
    copies = middle + rng.normal(0, 0.02, (burst, 16))
    confidence = np.concatenate([np.linspace(1.0, 0.95, burst), np.linspace(0.9, 0.5, others)])
    return _unit(np.vstack([copies, scattered])), confidence.astype(np.float32)


def test_of_a_burst_one_image_is_taken() -> None:
    points, confidence = _cluster_with_burst(burst=30, others=60)
    taken = prototypes(points, confidence)
    assert len(taken) == 8
    assert np.sum(taken < 30) == 1


def test_the_most_confident_comes_first_and_confidence_falls() -> None:
    points, confidence = _cluster_with_burst(burst=5, others=40)
    taken = prototypes(points, confidence)
    assert taken[0] == 0
    assert (np.diff(confidence[taken]) <= 0).all()


def test_what_a_person_put_there_comes_after_what_the_model_is_sure_of() -> None:
    points, confidence = _cluster_with_burst(burst=5, others=6)
    placed = np.zeros(11, bool)
    placed[[0, 7]] = True
    taken = prototypes(points, confidence, 11, placed)
    assert taken[-2:].tolist() == [0, 7]
    assert (np.diff(confidence[taken[:-2]]) <= 0).all()
    assert prototypes(points, confidence, 11, ~placed)[:2].tolist() == [0, 7]


def test_near_copies_are_let_in_where_a_cluster_holds_nothing_else() -> None:
    points, confidence = _cluster_with_burst(burst=40, others=2)
    taken = prototypes(points, confidence)
    assert len(taken) == 8
    assert {40, 41} <= set(taken.tolist())


def test_of_a_cluster_of_one_and_the_same_image_one_is_shown() -> None:
    points = np.tile(_unit(np.ones((1, 4))), (20, 1))
    assert prototypes(points, np.ones(20, np.float32)).tolist() == [0]


@given(members=st.integers(1, 40), distinct=st.integers(1, 40), count=st.integers(1, 10), seed=st.integers(0, 2**16))
def test_never_two_that_look_the_same(members: int, distinct: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = _unit(rng.normal(size=(distinct, 6)))[rng.integers(distinct, size=members)]
    taken = prototypes(points, rng.random(members).astype(np.float32), count)
    assert 1 <= len(taken) == len(set(taken.tolist())) <= count
    assert (_squared_gaps(points[taken]) >= SAME * 0.99).all()
    assert len(taken) == min(count, len(np.unique(points, axis=0)))


def test_least_sure_are_the_least_confident_not_yet_shown() -> None:
    confidence = np.array([0.9, 0.2, 0.8, 0.1, 0.3], np.float32)
    assert least_sure(confidence, shown=[3], count=2).tolist() == [1, 4]
    assert least_sure(confidence, shown=range(5)).tolist() == []
