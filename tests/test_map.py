"""The map: t-SNE from known neighbours, and the stage that writes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from shoal.neighbours.exact import exact_neighbours
from shoal.report import map as mapping
from shoal.report import tsne
from shoal.report.space import principal_components

Points = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int32]


def _blobs(count: int, blobs: int, seed: int = 0) -> tuple[Points, npt.NDArray[np.int64]]:
    """Unit vectors in `blobs` well separated groups, and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.arange(count) % blobs
    points = 3 * rng.normal(size=(blobs, 16))[group] + rng.normal(size=(count, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), group


def _same_group_share(places: Points, group: npt.NDArray[np.int64]) -> float:
    """How many have a nearest neighbour in the plane from their own group."""
    squared = np.square(places[:, None] - places[None]).sum(axis=-1)
    np.fill_diagonal(squared, np.inf)
    return float((group[squared.argmin(axis=1)] == group).mean())


def test_affinities_have_the_asked_perplexity() -> None:
    points, _ = _blobs(200, 3)
    neighbours, similarity = exact_neighbours(points, 45)
    weights = tsne.affinities(neighbours, similarity)
    entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(entropy), 15, rtol=1e-3)  # a third of the neighbours


def test_affinities_pass_over_missing_neighbours_and_exact_copies() -> None:
    neighbours = np.array([[1, 2, -1], [0, -1, -1], [-1, -1, -1]], np.int32)
    weights = tsne.affinities(neighbours, np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0]])


def test_forces_are_the_gradient_of_the_divergence() -> None:
    """Against a numerical derivative of KL(P‖Q), computed literally in float64."""
    points, _ = _blobs(200, 3)
    neighbours, similarity = exact_neighbours(points, 12)
    edges = tsne.Edges.of(neighbours, tsne.affinities(neighbours, similarity))
    joint = np.zeros((200, 200))
    joint[edges.source, edges.target] = edges.weight
    np.testing.assert_allclose(joint, joint.T)
    assert joint.sum() == pytest.approx(1)

    def divergence(at: npt.NDArray[np.float64]) -> float:
        kernel = 1 / (1 + np.square(at[:, None] - at[None]).sum(axis=-1))
        np.fill_diagonal(kernel, 0)
        inside = joint > 0
        return float((joint[inside] * np.log(joint[inside] / (kernel / kernel.sum())[inside])).sum())

    places = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    push, total = tsne.pairwise_repulsion(places)
    gradient = 4 * (edges.attraction(places) - push / total)
    for row, axis in [(0, 0), (0, 1), (77, 0), (199, 1)]:
        step = np.zeros((200, 2))
        step[row, axis] = 1e-4
        numerical = (divergence(places + step) - divergence(places - step)) / 2e-4
        assert gradient[row, axis] == pytest.approx(numerical, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("spread", [3.0, 30.0])
def test_the_grid_pushes_as_all_pairs_do(spread: float) -> None:
    places = np.random.default_rng(2).normal(scale=spread, size=(3000, 2)).astype(np.float32)
    push, total = tsne.pairwise_repulsion(places)
    on_grid, total_on_grid = tsne.grid_repulsion(places)
    assert total_on_grid == pytest.approx(total, rel=0.02)
    assert np.linalg.norm(on_grid - push) < 0.2 * np.linalg.norm(push)


@pytest.mark.parametrize("count", [400, tsne.EXACT_POINTS + 100])
def test_groups_lie_together(count: int) -> None:
    points, group = _blobs(count, 8)
    neighbours, similarity = exact_neighbours(points, 15)
    places, _ = mapping.place(points, neighbours, similarity, seed=0)
    assert _same_group_share(places, group) > 0.97


def test_many_images_are_placed_among_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "LANDMARKS", 300)
    points, group = _blobs(1500, 6)
    neighbours, similarity = exact_neighbours(points, 10)
    places, method = mapping.place(points, neighbours, similarity, seed=0)
    assert "300" in method
    assert np.isfinite(places).all()
    assert _same_group_share(places, group) > 0.97


def test_spread_reaches_images_whose_neighbours_wait_themselves() -> None:
    places = np.array([[1, 2], [np.nan, np.nan], [np.nan, np.nan], [np.nan, np.nan]], np.float32)
    neighbours = np.array([[1], [0], [1], [-1]], np.int32)  # a chain, and one that nothing leads to
    spread = mapping.spread(places, neighbours, np.ones((4, 1), np.float32))
    np.testing.assert_array_equal(spread, [[1, 2], [1, 2], [1, 2], [0, 0]])


def test_principal_components_equal_the_singular_vectors() -> None:
    points, _ = _blobs(60, 4)
    for some in (points, points[:10]):  # more rows than columns, and fewer
        left, lengths, _ = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
        np.testing.assert_allclose(np.abs(principal_components(some)), np.abs(left * lengths)[:, :2], atol=1e-4)
