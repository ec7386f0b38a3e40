"""The corrected model and what a refit makes of it: against literal loops, finite differences, and its promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shoal.cluster import kmeans
from shoal.cluster.known import NO_LIMIT, closeness_of, least_closeness
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import ClusterSpace
from shoal.corrections.fit import objective, refit
from shoal.corrections.model import CorrectedModel, load_model
from shoal.embeddings import normalise_rows
from small_run import wholly_inside

METRICS = ("cosine", "euclidean")


def blobs(
    metric: str, seed: int = 0, each: int = 60, k: int = 4
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Points [k * each, 6] around k centres, and which."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(k, dtype=np.int32), each)
    points = (np.eye(k, 6) * 2)[labels] + rng.normal(0, 0.5, (k * each, 6))
    found = points.astype(np.float32)
    return (normalise_rows(found) if metric == "cosine" else found), labels


def model_of(points: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], metric: str) -> ClusterModel:
    sums, counts = kmeans.cluster_sums(points, labels, int(labels.max()) + 1)
    centroids = (sums / counts[:, None]).astype(np.float32)
    if metric == "cosine":
        normalise_rows(centroids)
    space = ClusterSpace("euclidean" if metric == "euclidean" else "cosine", np.zeros(points.shape[1], np.float32))
    scores = np.einsum("nd,nd->n", points, centroids[labels])
    if metric == "euclidean":
        scores -= np.einsum("kd,kd->k", centroids, centroids)[labels] / 2
    closeness = closeness_of(points, scores, wholly_inside(len(points)), metric)
    least = least_closeness(closeness, labels, len(centroids))
    return ClusterModel(space, centroids, 8.0, least, NO_LIMIT)


@pytest.mark.parametrize("metric", METRICS)
def test_merged_clusters_have_the_sum_of_their_posteriors(metric: str) -> None:
    points, labels = blobs(metric)
    fitted = model_of(points, labels, metric)
    merged = CorrectedModel(fitted, np.array([0, 1, 1, 7], np.int32), {1: "both"})
    clusters, shares = merged.shares(points)
    assert clusters.tolist() == [0, 1, 7]
    for row in range(0, len(points), 17):
        scores = [
            float(points[row] @ centroid) - (0.5 * float(centroid @ centroid) if metric == "euclidean" else 0.0)
            for centroid in fitted.centroids
        ]
        weights = np.exp(8.0 * (np.array(scores) - max(scores)))
        weights /= weights.sum()
        assert shares[row].tolist() == pytest.approx([weights[0], weights[1] + weights[2], weights[3]], abs=1e-5)
    found = merged.assign_points(points, wholly_inside(len(points)))
    assert set(found.cluster.tolist()) <= {0, 1, 7}
    assert found.confidence.tolist() == pytest.approx(shares.max(axis=1).tolist())
    assert (found.runner_up != found.cluster).all()
    assert found.unknown.mean() < 0.05


def test_one_centroid_a_cluster_answers_as_fitted() -> None:
    points, labels = blobs("cosine")
    fitted = model_of(points, labels, "cosine")
    lengths = wholly_inside(len(points))
    plain = fitted.assign_points(points, lengths)
    wrapped = CorrectedModel(fitted, np.arange(4, dtype=np.int32), {}).assign_points(points, lengths)
    for name in ("cluster", "confidence", "unsure", "runner_up", "unknown"):
        assert (getattr(plain, name) == getattr(wrapped, name)).all()


def test_a_model_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    points, labels = blobs("cosine")
    model = CorrectedModel(model_of(points, labels, "cosine"), np.array([0, 1, 1, 2], np.int32), {1: "both"})
    model.model.save(tmp_path, model.numbers, model.names)
    again = load_model(tmp_path)
    assert again.numbers.tolist() == [0, 1, 1, 2]
    assert again.names == {1: "both"}
    assert (again.model.centroids == model.model.centroids).all()
    model.model.save(tmp_path / "unnamed", model.numbers)
    assert load_model(tmp_path / "unnamed").names == {}


@pytest.mark.parametrize("metric", METRICS)
def test_the_slope_is_that_of_the_value(metric: str) -> None:
    points, labels = blobs(metric, each=10)
    fitted = model_of(points, labels, metric)
    rng = np.random.default_rng(1)
    targets = rng.dirichlet(np.ones(3), len(points)).astype(np.float32)
    weights = rng.uniform(0.5, 2, len(points))
    owner = np.array([0, 1, 1, 2])
    loss = objective(points, targets, weights, fitted.centroids, owner, 4.0, metric)
    place = fitted.centroids.astype(np.float64).ravel() + rng.normal(0, 0.1, fitted.centroids.size)
    _, slope = loss(place)
    for direction in rng.normal(0, 1, (5, place.size)):
        step = 1e-3 * direction
        measured = (loss(place + step)[0] - loss(place - step)[0]) / 2
        assert measured == pytest.approx(float(slope @ step), rel=2e-2, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_without_moved_images_nothing_moves(metric: str) -> None:
    points, _ = blobs(metric)
    fitted = model_of(points, blobs(metric)[1], metric)
    lengths = wholly_inside(len(points))
    labels = fitted.assign_points(points, lengths).cluster
    model = CorrectedModel(fitted, np.arange(4, dtype=np.int32), {2: "two"})
    found = refit(model, points, lengths, labels, np.zeros(len(points), bool))
    assert (found.labels == labels).all()
    assert np.abs(found.model.model.centroids - fitted.centroids).max() < 1e-2
    assert found.model.names == {2: "two"}


@pytest.mark.parametrize("metric", METRICS)
def test_moved_images_stay_and_bring_those_like_them(metric: str) -> None:
    """Two kinds in one cluster; a few of one kind are moved to a cluster that has a centroid among them."""
    points, kinds = blobs(metric, k=4)
    clusters = np.where(kinds == 3, 0, kinds).astype(np.int32)  # kinds 0 and 3 lie together in cluster 0
    fitted = model_of(points, kinds, metric)
    moved = np.flatnonzero(kinds == 3)[:6]
    labels = clusters.copy()
    labels[moved] = 9
    pinned = np.zeros(len(points), bool)
    pinned[moved] = True
    own = points[moved].mean(axis=0, keepdims=True)
    centroids = np.concatenate([fitted.centroids, normalise_rows(own) if metric == "cosine" else own])
    least = np.append(fitted.least_closeness, fitted.least_closeness.min())
    model = CorrectedModel(
        ClusterModel(fitted.space, centroids, 8.0, least, NO_LIMIT), np.array([0, 1, 2, 0, 9], np.int32), {9: "mine"}
    )
    found = refit(model, points, wholly_inside(len(points)), labels, pinned)
    assert found.numbers == {0: 0, 1: 1, 2: 2, 9: 3}
    assert (found.labels[moved] == 3).all()
    followed = found.labels == 3
    assert followed[kinds == 3].mean() > 0.4  # a tenth of them was moved
    assert followed[kinds != 3].mean() < 0.05
    assert (found.labels[kinds == 1] == 1).mean() > 0.95


def test_no_cluster_loses_all_its_images() -> None:
    points, labels = blobs("cosine")
    fitted = model_of(points, labels, "cosine")
    far = fitted.centroids.copy()
    far[3] = -far[:3].mean(axis=0)  # nothing lies there
    lengths = wholly_inside(len(points))
    model = CorrectedModel(
        ClusterModel(fitted.space, far, 8.0, fitted.least_closeness, NO_LIMIT), np.arange(4, dtype=np.int32), {}
    )
    found = refit(model, points, lengths, labels, np.zeros(len(points), bool))
    assert set(found.labels.tolist()) == {0, 1, 2, 3}
