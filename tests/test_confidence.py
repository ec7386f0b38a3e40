"""Confidence: what it promises, against mixtures whose posterior is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from shoal.cluster import kmeans
from shoal.cluster.confidence import Landmarks, trusted
from shoal.cluster.contingency import contingency, matched
from shoal.cluster.linkage import linked
from shoal.cluster.model import ClusterModel, fit_model
from shoal.cluster.space import ClusterSpace
from shoal.corrections.model import CorrectedModel
from shoal.embeddings import Float32, normalise_rows
from shoal.evaluate.metrics import confusion, matching
from shoal.evaluate.reliability import reliability

METRICS = ["cosine", "euclidean"]


def mixture(
    kinds: int, images: int, apart: float, dims: int = 8, seed: int = 0
) -> tuple[Float32, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Points [n, dims] of equal Gaussians of variance 1, the kind of each, and the greatest posterior of its kinds."""
    random = np.random.default_rng(seed)
    means = apart * np.linalg.qr(random.standard_normal((dims, dims)))[0][:kinds]
    truth = random.integers(kinds, size=images)
    points = means[truth] + random.standard_normal((images, dims))
    odds = np.exp(points @ means.T - (points @ means.T).max(axis=1, keepdims=True))
    return points.astype(np.float32), truth, odds.max(axis=1) / odds.sum(axis=1)


def fitted(rows: Float32, k: int, metric: str = "euclidean", seed: int = 0) -> ClusterModel:
    points, lengths, space = in_space(rows, metric)
    found = kmeans.fit(points, k, np.random.default_rng(seed), metric=metric)
    return fit_model(space, found, points, lengths, seed)


def in_space(rows: Float32, metric: str) -> tuple[Float32, Float32, ClusterSpace]:
    dims = rows.shape[1]
    if metric == "euclidean":
        space = ClusterSpace(metric, rows.mean(axis=0))
    else:
        space = ClusterSpace(
            metric, np.zeros(dims, np.float32), np.eye(dims, dtype=np.float32), np.ones(dims, np.float32)
        )
    return *space.project(rows), space


@pytest.mark.parametrize(("kinds", "apart"), [(3, 2.0), (4, 2.4), (4, 3.0)])
def test_confidence_is_the_posterior_where_that_is_known(kinds: int, apart: float) -> None:
    rows, truth, posterior = mixture(kinds, 2000, apart)
    found = fitted(rows, kinds).assign(rows)
    match = matching(confusion(truth, found.cluster))
    right = np.array([match[cluster] for cluster in found.cluster]) == truth
    assert reliability(found.confidence, right).error < 0.06
    assert np.corrcoef(found.confidence, posterior)[0, 1] > 0.95
    assert abs(float(found.confidence.mean()) - posterior.mean()) < 0.05


@pytest.mark.parametrize("metric", METRICS)
def test_clusters_of_nothing_are_not_trusted(metric: str) -> None:
    rows = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32)
    found = fitted(rows, 8, metric).assign(rows)
    assert float(found.confidence.mean()) < 0.45
    assert found.unsure.mean() > 0.5


@pytest.mark.parametrize("metric", METRICS)
def test_kinds_far_apart_are_trusted(metric: str) -> None:
    rows, _, _ = mixture(5, 600, 12.0)
    found = fitted(rows, 5, metric).assign(rows)
    assert float(found.confidence.mean()) > 0.97
    assert not found.unsure.any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("images", "k"), [(2, 1), (2, 2), (5, 2), (12, 12), (30, 4), (300, 7)])
def test_confidence_lies_between_an_even_share_and_one(metric: str, images: int, k: int) -> None:
    rows = mixture(3, images, 2.0)[0]
    model = fitted(rows, k, metric)
    found, shares = model.assign(rows), model.probabilities(rows)
    assert (found.confidence >= 1 / k - 1e-6).all()
    assert (found.confidence <= 1).all()
    assert shares.sum(axis=1) == pytest.approx(np.ones(images), abs=1e-6)
    assert shares.max(axis=1) == pytest.approx(found.confidence, abs=1e-5)
    assert (shares.argmax(axis=1) == found.cluster).mean() > 0.99


def test_equal_images_are_one_cluster_of_which_one_is_sure() -> None:
    rows = np.ones((40, 4), np.float32)
    assert (fitted(rows, 1).assign(rows).confidence == 1).all()
    assert np.isfinite(fitted(rows, 3).assign(rows).confidence).all()


def test_confidence_of_an_image_does_not_depend_on_the_others_asked_about() -> None:
    rows = mixture(4, 1500, 2.4)[0]
    model = fitted(rows, 4)
    together = model.assign(rows).confidence
    some = np.arange(3, 1500, 7)
    assert model.assign(rows[some]).confidence == pytest.approx(together[some], abs=1e-5)


def test_trust_moves_confidence_from_an_even_share_to_the_posterior() -> None:
    posterior = np.linspace(0.25, 1, 9, dtype=np.float32)
    told = [trusted(posterior, np.full(9, trust, np.float32), 4) for trust in (0, 0.3, 0.7, 1)]
    assert told[0] == pytest.approx(np.full(9, 0.25))
    assert told[3] == pytest.approx(posterior)
    assert (np.diff(told, axis=0) >= 0).all()
    assert (np.diff(told[1:], axis=1) > 0).all()


@pytest.mark.parametrize("agreement", [0.4, 0.6, 0.8])
def test_mean_confidence_is_how_far_another_way_of_clustering_agrees(agreement: float) -> None:
    rows = mixture(4, 1500, 2.4)[0]
    points, lengths, space = in_space(rows, "euclidean")
    found = kmeans.fit(points, 4, np.random.default_rng(0), metric="euclidean")
    model = fit_model(space, found, points, lengths, seed=0, level=agreement)
    assert float(model.assign(rows).confidence.mean()) == pytest.approx(agreement, abs=0.01)


def test_clusterings_are_matched_one_to_one() -> None:
    for table, share in (([[3, 5, 0], [4, 0, 1], [0, 1, 6]], (5 + 4 + 6) / 20), ([[10, 0], [10, 0]], 0.5)):
        counts = np.array(table)
        first, second = (np.repeat(side.ravel(), counts.ravel()).astype(np.int32) for side in np.indices(counts.shape))
        assert matched(contingency(first, second, len(counts))) == pytest.approx(share)


def test_trust_in_a_place_is_that_of_the_landmarks_around_it() -> None:
    points = np.array([[0, 0], [1, 0], [0, 1], [50, 50], [51, 50], [50, 51]], np.float32)
    landmarks = Landmarks(points, np.array([0.2, 0.3, 0.4, 0.9, 1.5, 1.8], np.float32))
    found = landmarks.trust_at(np.array([[0.2, 0.2], [50.2, 50.2]], np.float32), "euclidean")
    assert found == pytest.approx([0.3, 1.0])


def test_merged_clusters_keep_the_trust_and_sum_to_one() -> None:
    rows = mixture(4, 1500, 2.4)[0]
    model = fitted(rows, 4)
    merged = CorrectedModel(model, np.array([0, 1, 1, 3], np.int32), {})
    clusters, shares = merged.probabilities(rows)
    found = merged.assign(rows)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert (clusters[:, 0] == found.cluster).mean() > 0.99
    assert shares[:, 0] == pytest.approx(found.confidence, abs=1e-5)
    one_of_two = found.cluster == 1
    assert found.confidence[one_of_two].mean() > model.assign(rows).confidence[one_of_two].mean()


@pytest.mark.parametrize("metric", METRICS)
def test_linkage_keeps_the_sizes_of_a_long_tail(metric: str) -> None:
    random = np.random.default_rng(0)
    sizes = [1500, 300, 90, 40]
    truth = np.repeat(np.arange(4), sizes)
    rows = (8 * np.eye(4, 10)[truth] + random.standard_normal((sum(sizes), 10))).astype(np.float32)
    points = rows if metric == "euclidean" else normalise_rows(rows)
    assert sorted(np.bincount(linked(points, 4, np.random.default_rng(1), metric)).tolist()) == sorted(sizes)


def test_strangers_are_no_clusters_of_the_linkage() -> None:
    rows, truth, _ = mixture(3, 900, 9.0)
    far = np.concatenate([rows, 200 * np.eye(4, 8, 4, dtype=np.float32)])
    labels = linked(far, 3, np.random.default_rng(0), "euclidean")
    assert labels.max() == 2
    assert all(len(np.unique(labels[:900][truth == kind])) == 1 for kind in range(3))
    assert len(np.unique(labels[:900])) == 3
