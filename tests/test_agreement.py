"""Figures beyond the plain metrics: reliability, top-5 ACC, and what a run's evaluation says of them."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import top_k_accuracy_score

from shoal.cluster.kmeans import COSINE, EUCLIDEAN
from shoal.cluster.known import NO_LIMIT
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import ClusterSpace
from shoal.corrections.model import CorrectedModel
from shoal.embeddings import normalise_rows
from shoal.evaluate.agreement import agreement
from shoal.evaluate.metrics import clustering_accuracy, matching, top_accuracy
from shoal.evaluate.metrics import confusion as count
from shoal.evaluate.ranking import led_by, ranked_clusters
from shoal.evaluate.reliability import reliability

JUDGED = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=80)
@given(JUDGED, st.integers(1, 20))
def test_calibration_error_equals_a_literal_loop(judged: list[tuple[float, bool]], bins: int) -> None:
    confidence, right = (np.array(column) for column in zip(*judged, strict=True))
    edges = np.linspace(0, 1, bins + 1)
    error = 0.0
    for low, high in pairwise(edges):
        inside = [one for one in judged if low < one[0] <= high or (low == 0 == one[0])]
        if inside:
            gap = abs(np.mean([value for value, _ in inside]) - np.mean([is_right for _, is_right in inside]))
            error += len(inside) / len(judged) * gap
    found = reliability(confidence, right, bins)
    assert found.error == pytest.approx(error, abs=1e-9)
    assert 0 <= found.error <= 1
    assert sum(one.n for one in found.bins) == len(judged)
    assert all(one.low <= one.confidence <= one.high + 1e-12 for one in found.bins)


def test_the_diagram_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.random(500)
    right = generator.random(500) < confidence**2
    found = reliability(confidence, right, 10)
    shares, means = calibration_curve(right, confidence, n_bins=10)
    assert [one.accuracy for one in found.bins] == pytest.approx(shares.tolist())
    assert [one.confidence for one in found.bins] == pytest.approx(means.tolist())


def test_confidence_that_is_true_has_a_small_error_and_boasting_a_large_one() -> None:
    generator = np.random.default_rng(1)
    chance = generator.random(20_000)
    right = generator.random(20_000) < chance
    assert reliability(chance, right).error < 0.02
    assert reliability(np.ones(20_000), right).error == pytest.approx(1 - right.mean())


def test_confidence_out_of_range_and_nothing_to_judge_are_errors() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability(np.array([0.5, 1.5]), np.array([True, False]))
    with pytest.raises(ValueError, match="not empty"):
        reliability(np.array([]), np.array([], bool))


def test_top_accuracy_equals_a_literal_loop_and_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    labels = generator.choice(list("abcdefgh"), 300)
    scores = generator.random((300, 8)) + 0.7 * np.eye(8)[np.unique(labels, return_inverse=True)[1]][:, ::-1]
    ranked = np.argsort(-scores, axis=1)
    match = matching(count(labels, ranked[:, 0]))
    for depth in (1, 3, 5):
        hits = [
            label in {match.get(cluster) for cluster in row[:depth].tolist()}
            for label, row in zip(labels, ranked, strict=True)
        ]
        assert top_accuracy(labels, ranked[:, :depth]) == pytest.approx(np.mean(hits))
        of_classes = np.array([scores[:, cluster] for cluster in sorted(match, key=lambda one: match[one])]).T
        assert top_accuracy(labels, ranked[:, :depth]) == pytest.approx(
            top_k_accuracy_score(labels, of_classes, k=depth)
        )
    assert top_accuracy(labels, ranked[:, :1]) == pytest.approx(clustering_accuracy(labels, ranked[:, 0]))
    assert top_accuracy(labels, ranked) == 1


def test_surplus_clusters_match_no_class_at_any_depth() -> None:
    labels = ["a", "a", "a", "b"]
    ranked = np.array([[0, 1], [0, 1], [2, 1], [1, 2]])
    assert top_accuracy(labels, ranked[:, :1]) == 0.75
    assert top_accuracy(labels, ranked) == 0.75  # cluster 2 has no class


def test_ranking_follows_the_scores_and_starts_with_the_assigned_cluster() -> None:
    generator = np.random.default_rng(3)
    mean, basis = np.zeros(6, np.float32), np.eye(6, dtype=np.float32)
    space = ClusterSpace(COSINE, mean, basis, np.ones(6, np.float32))
    centroids = normalise_rows(generator.standard_normal((9, 6)).astype(np.float32))
    model = ClusterModel(space, centroids, 5.0, np.full(9, -1, np.float32), NO_LIMIT)
    features = generator.standard_normal((50, 6)).astype(np.float32)
    ranked = ranked_clusters(CorrectedModel(model, np.arange(9, dtype=np.int32), {}), features, 5)
    scores = space.transform(features) @ centroids.T
    assert (np.diff(np.take_along_axis(scores, ranked, axis=1), axis=1) <= 0).all()
    found = model.assign(features)
    assert ranked[:, 0].tolist() == found.cluster.tolist()
    assert ranked[:, 1].tolist() == found.runner_up.tolist()
    assert ranked_clusters(CorrectedModel(model, np.arange(9, dtype=np.int32), {}), features, 20).shape == (50, 9)


@pytest.mark.parametrize("concentration", [0.5, 5.0, 5000.0])  # the last leaves nearly all posteriors at 0
def test_clusters_of_several_centroids_are_as_likely_as_those_together(concentration: float) -> None:
    generator = np.random.default_rng(4)
    centroids = generator.standard_normal((7, 6)).astype(np.float32)
    model = ClusterModel(ClusterSpace(EUCLIDEAN, np.zeros(6, np.float32)), centroids, concentration, np.zeros(7), 1.0)
    numbers = np.array([4, 0, 9, 4, 2, 9, 9], np.int32)  # merged, with gaps, in no order
    features = generator.standard_normal((40, 6)).astype(np.float32)
    ranked = ranked_clusters(CorrectedModel(model, numbers, {}), features, 5)
    assert ranked.shape == (40, 4)
    for row, point in zip(ranked, features.astype(np.float64), strict=True):
        together = {number: Decimal(0) for number in (4, 0, 9, 2)}
        for number, centroid in zip(numbers.tolist(), centroids.astype(np.float64), strict=True):
            together[number] += Decimal(-concentration * float((point - centroid) @ (point - centroid)) / 2).exp()
        assert row.tolist() == sorted(together, key=lambda number: -together[number])


def test_without_any_centroid_nothing_is_ranked() -> None:
    space = ClusterSpace(COSINE, np.zeros(6, np.float32))
    model = ClusterModel(space, np.empty((0, 6), np.float32), 5.0, np.empty(0, np.float32), NO_LIMIT)
    none = CorrectedModel(model, np.empty(0, np.int32), {})
    assert ranked_clusters(none, np.ones((3, 6), np.float32), 5).shape == (3, 0)


def test_the_recorded_cluster_leads_and_nothing_is_listed_twice() -> None:
    own, ranked = np.array([3, 2, 7], np.int32), np.array([[3, 1, 2], [3, 1, 2], [3, 1, 2]], np.int32)
    assert led_by(own, ranked, 3).tolist() == [[3, 1, 2], [2, 3, 1], [7, 3, 1]]
    assert led_by(own, ranked, 5).tolist() == [[3, 1, 2, -1], [2, 3, 1, -1], [7, 3, 1, 2]]
    assert led_by(own, np.empty((3, 0), np.int32), 5).tolist() == [[3], [2], [7]]


def test_agreement_judges_confidence_by_the_matched_label_and_by_the_majority() -> None:
    labels = np.array(["a", "a", "b", "b", "b"])
    clusters = np.array([0, 0, 0, 1, 2], np.int32)  # 2 clusters for b: one of them has no match
    found = agreement(labels, clusters, confidence=np.full(5, 0.6, np.float32), unsure=np.array([True] + [False] * 4))
    assert found.calibration is not None
    assert found.calibration.matched.accuracy == found.acc == pytest.approx(3 / 5)
    assert found.calibration.majority.accuracy == found.purity == pytest.approx(4 / 5)
    assert found.sure is not None
    assert (found.sure.n, found.sure.acc) == (4, pytest.approx(2 / 4))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["calibration"]["matched"]["bins"][0]["n"] == 5


def test_agreement_of_bare_clusters_leaves_out_what_is_not_known() -> None:
    found = agreement(np.array(["a", "b"]), np.array([0, 1], np.int32))
    assert (found.sure, found.calibration, found.acc_top5, found.acc) == (None, None, None, 1)
