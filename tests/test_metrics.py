"""Metrics against brute force, scikit-learn and their degenerate cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from shoal.evaluate.metrics import (
    ami,
    ari,
    cluster_table,
    clustering_accuracy,
    confusion,
    matching,
    neighbour_purity,
    nmi,
    purity,
)

ALL = (clustering_accuracy, purity, nmi, ami, ari)
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30)


def brute_force_accuracy(labels: list[int], clusters: list[int]) -> float:
    """Try every one-to-one map of the clusters into the classes, made up to equal number with blanks."""
    names = sorted(set(clusters))
    classes: list[int | None] = [*sorted(set(labels)), *[None] * len(names)]
    return max(
        float(np.mean([chosen[names.index(cluster)] == label for label, cluster in zip(labels, clusters, strict=True)]))
        for chosen in permutations(classes, len(names))
    )


@settings(max_examples=60)
@given(PAIRS)
def test_accuracy_is_the_best_over_all_matchings(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = map(list, zip(*pairs, strict=True))
    assert clustering_accuracy(labels, clusters) == pytest.approx(brute_force_accuracy(labels, clusters))


@settings(max_examples=60)
@given(PAIRS, st.permutations(range(5)))
def test_renaming_clusters_changes_no_metric(pairs: list[tuple[int, int]], names: list[int]) -> None:
    labels, clusters = map(list, zip(*pairs, strict=True))
    renamed = [f"cluster {names[cluster]}" for cluster in clusters]
    for metric in ALL:
        assert metric(labels, clusters) == pytest.approx(metric(labels, renamed), abs=1e-9)


@settings(max_examples=60)
@given(PAIRS)
def test_bounds_and_order(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = map(list, zip(*pairs, strict=True))
    assert 0 < clustering_accuracy(labels, clusters) <= purity(labels, clusters) <= 1
    assert 0 <= nmi(labels, clusters) <= 1
    assert -0.5 <= ari(labels, clusters) <= 1


def test_information_and_rand_figures_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(["ant", "bee", "cow"], 200)
    clusters = np.where(
        generator.random(200) < 0.6, np.unique(labels, return_inverse=True)[1], generator.integers(0, 5, 200)
    )
    assert nmi(labels, clusters) == pytest.approx(reference.normalized_mutual_info_score(labels, clusters))
    assert ami(labels, clusters) == pytest.approx(reference.adjusted_mutual_info_score(labels, clusters))
    assert ari(labels, clusters) == pytest.approx(reference.adjusted_rand_score(labels, clusters))
    counts = reference.cluster.contingency_matrix(clusters, labels)
    assert confusion(labels, clusters).counts.tolist() == counts.tolist()


def test_one_cluster_for_all() -> None:
    labels = ["a", "a", "a", "b"]
    assert clustering_accuracy(labels, [7] * 4) == purity(labels, [7] * 4) == 0.75
    assert nmi(labels, [7] * 4) == ami(labels, [7] * 4) == ari(labels, [7] * 4) == 0
    assert [metric(["a"] * 4, [7] * 4) for metric in ALL] == [1] * 5


def test_a_cluster_for_each() -> None:
    labels = ["a", "a", "a", "b"]
    assert clustering_accuracy(labels, range(4)) == 0.5
    assert purity(labels, range(4)) == 1
    assert ari(labels, range(4)) == 0
    assert ami(labels, range(4)) == pytest.approx(0)


@pytest.mark.parametrize("metric", [*ALL, confusion, cluster_table])
def test_no_images_and_unequal_lengths_are_errors(metric) -> None:
    with pytest.raises(ValueError, match="at least one label"):
        metric([], [])
    with pytest.raises(ValueError, match="Got 2 and 1"):
        metric(["a", "b"], [0])


def test_matching_leaves_surplus_clusters_and_classes_out() -> None:
    assert matching(confusion(["a", "a", "a", "b"], [0, 0, 1, 2])) == {0: "a", 2: "b"}
    assert matching(confusion(["a", "a", "b", "c"], [5, 5, 5, 5])) == {5: "a"}


def test_cluster_table_names_the_majority_and_the_first_on_a_tie() -> None:
    rows = cluster_table(["cat", "dog", "cat", "dog", "ant"], [1, 1, 1, 4, 4])
    assert [(row.cluster, row.size, row.majority) for row in rows] == [(1, 3, "cat"), (4, 2, "ant")]
    assert [row.accuracy for row in rows] == [pytest.approx(2 / 3), 0.5]


def test_purity_is_the_mean_of_cluster_accuracies_weighted_by_size() -> None:
    generator = np.random.default_rng(1)
    labels, clusters = generator.integers(0, 4, 100), generator.integers(0, 6, 100)
    rows = cluster_table(labels, clusters)
    weighted = sum(row.size * row.accuracy for row in rows) / sum(row.size for row in rows)
    assert purity(labels, clusters) == pytest.approx(weighted)


def test_neighbour_purity_equals_a_literal_loop() -> None:
    generator = np.random.default_rng(2)
    classes = generator.integers(-1, 3, 80)
    neighbours = generator.integers(-1, 80, (80, 8))
    neighbours[5] = -1  # a duplicate's row
    for k, found in neighbour_purity(classes, neighbours, at=(1, 3, 8, 20)).items():
        shares = []
        for anchor in range(80):
            theirs = [classes[n] for n in neighbours[anchor, :k] if n >= 0 and classes[n] >= 0]
            if classes[anchor] >= 0 and theirs:
                shares.append(np.mean([label == classes[anchor] for label in theirs]))
        assert found == pytest.approx(np.mean(shares))
    assert set(neighbour_purity(classes, neighbours, at=(1, 3, 8, 20))) == {1, 3, 8}


def test_neighbour_purity_without_a_labelled_pair_is_empty() -> None:
    assert neighbour_purity(np.array([0, -1]), np.array([[1], [0]])) == {}
