"""Thousands of clusters and very many images: the same answers as the plain ways, in blocks and on samples."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.cluster import hierarchy
from sklearn.metrics import silhouette_samples

from shoal.cluster import graph, kmeans, levels
from shoal.cluster.contingency import adjusted_rand, contingency
from shoal.cluster.kmeans import scores
from shoal.cluster.kmeans.starts import plus_plus
from shoal.cluster.model import ClusterModel, fit_model
from shoal.cluster.number import silhouette
from shoal.cluster.sample import extended, sample_of
from shoal.cluster.space import ClusterSpace
from shoal.corrections import model as corrected_model
from shoal.corrections.model import CorrectedModel
from shoal.embeddings import normalise_rows

Points = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def unit(points: npt.NDArray[np.floating]) -> Points:
    return normalise_rows(points.astype(np.float32))


def cost(points: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64], one: list[int], other: list[int]) -> float:
    """By how much the sum of squares within groups rises if two of them merge."""
    s, t = sizes[one].sum(), sizes[other].sum()
    gap = np.average(points[one], axis=0, weights=sizes[one]) - np.average(points[other], axis=0, weights=sizes[other])
    return float(s * t / (s + t) * (gap @ gap))


def is_same(one: npt.NDArray[np.integer], other: npt.NDArray[np.integer]) -> bool:
    """Whether two labellings differ in numbers only."""
    return bool(np.array_equal(one[:, None] == one, other[:, None] == other))


# -- levels ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 25), st.integers(1, 4), st.integers(0, 2**31), st.booleans())
def test_each_merge_is_the_cheapest_there_is_ties_too(k: int, dims: int, seed: int, tied: bool) -> None:
    random = np.random.default_rng(seed)
    points = random.integers(0, 3, (k, dims)) if tied else random.standard_normal((k, dims))
    sizes = random.integers(1, 3 if tied else 50, k)
    before = levels.merged(points.astype(np.float32), sizes, k)
    assert len(np.unique(before)) == k
    exact = points.astype(np.float32).astype(np.float64)
    for groups in range(k - 1, 0, -1):
        after = levels.merged(points.astype(np.float32), sizes, groups)
        assert len(np.unique(after)) == groups
        parts = [np.flatnonzero(before == group).tolist() for group in range(groups + 1)]
        (joined,) = ([one for one in parts if after[one[0]] == group] for group in _joined(before, after))
        cheapest = min(cost(exact, sizes, one, other) for one, other in combinations(parts, 2))
        assert cost(exact, sizes, *joined) == pytest.approx(cheapest, rel=1e-9, abs=1e-12)
        before = after


def _joined(before: Labels, after: Labels) -> list[int]:
    """The groups of `after` that are made of two of `before`."""
    return [int(group) for group in np.unique(after) if len(np.unique(before[after == group])) == 2]


@pytest.mark.parametrize("groups", [1, 7, 60])
def test_levels_of_equal_sizes_are_those_of_scipys_ward(groups: int) -> None:
    points = np.random.default_rng(3).standard_normal((200, 5)).astype(np.float32)
    expected = hierarchy.fcluster(hierarchy.linkage(points.astype(np.float64), "ward"), groups, "maxclust")
    assert is_same(levels.merged(points, np.ones(200, np.int64), groups), expected)


def test_clusters_that_are_equal_merge_before_all_others() -> None:
    points = np.repeat(np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32), 4, axis=0)
    assert is_same(levels.merged(points, np.arange(1, 25), 6), np.repeat(np.arange(6), 4))


# -- k-means ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> Points:
    """6,000 points around 700 directions."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((700, 12))
    return unit(centres[random.integers(0, 700, 6_000)] + 0.3 * random.standard_normal((6_000, 12)))


def test_many_clusters_are_as_tight_as_those_that_k_means_plus_plus_starts(crowd: Points) -> None:
    found = kmeans.fit(crowd, 700, np.random.default_rng(0), starts=1)
    start = plus_plus(crowd, 700, np.random.default_rng(0))
    assert np.bincount(found.labels, minlength=700).min() > 0
    assert found.inertia < 1.03 * kmeans.lloyd(crowd, start, metric="cosine").inertia


def test_as_many_clusters_as_points_that_are_few_and_often_equal() -> None:
    points = np.repeat(unit(np.random.default_rng(0).standard_normal((200, 4))), 3, axis=0)
    found = kmeans.fit(points, 600, np.random.default_rng(0), starts=1)
    assert np.bincount(found.labels, minlength=600).tolist() == [1] * 600


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 2**31))
def test_sums_of_clusters_are_those_added_one_by_one(k: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    points, labels = random.standard_normal((count, 5)).astype(np.float32), random.integers(0, k, count, np.int32)
    expected = np.zeros((k, 5))
    np.add.at(expected, labels, points)
    sums, counts = kmeans.cluster_sums(points, labels, k)
    np.testing.assert_allclose(sums, expected, atol=1e-4)
    assert counts.tolist() == np.bincount(labels, minlength=k).tolist()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_passes_that_cores_share_out_change_nothing(
    crowd: Points, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kmeans.fit(crowd, 40, np.random.default_rng(1), metric=metric, starts=2)
    silhouettes = silhouette.of(crowd, whole.labels, metric)
    monkeypatch.setattr(scores, "PASS_SCORES", 40 * 512)
    monkeypatch.setattr(silhouette, "PASS_VALUES", 40 * 512)
    shared = kmeans.fit(crowd, 40, np.random.default_rng(1), metric=metric, starts=2)
    assert np.array_equal(shared.labels, whole.labels)
    np.testing.assert_allclose(silhouette.of(crowd, whole.labels, metric), silhouettes, atol=1e-6)


def test_no_table_of_all_points_and_clusters_is_held(crowd: Points) -> None:
    points = np.tile(crowd, (3, 1))
    centroids = points[::12].copy()  # 1,500: all scores would be 108 MB, and pairs of clusters 18 MB
    labels = kmeans.assign(points, centroids)[0]
    space = ClusterSpace("cosine", np.zeros(12, np.float32), np.eye(12, dtype=np.float32), np.ones(12, np.float32))
    lengths = np.ones((len(points), 2), np.float32)
    model = ClusterModel(space, centroids, 50.0, np.zeros(1_500, np.float32), 1.0)
    tracemalloc.start()
    kmeans.assign(points, centroids)
    silhouette.cosine(points, labels, 1_500)
    silhouette.root_mean_square(points, labels, 1_500)
    adjusted_rand(contingency(labels, labels, 1_500))
    levels.merged(centroids, np.bincount(labels, minlength=1_500), 40)
    model.assign_points(points, lengths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_the_runner_up_is_the_second_best(crowd: Points) -> None:
    found = kmeans.fit(crowd, 30, np.random.default_rng(0))
    space = ClusterSpace("cosine", np.zeros(12, np.float32), np.eye(12, dtype=np.float32), np.ones(12, np.float32))
    said = fit_model(space, found, crowd, np.ones((6_000, 2), np.float32), 0)
    assigned = said.assign_points(crowd, np.ones((6_000, 2), np.float32))
    order = np.argsort(-(crowd @ found.centroids.T), axis=1)
    assert np.mean(order[:, 0] == assigned.cluster) > 0.999
    assert np.mean(order[:, 1] == assigned.runner_up) > 0.999


# -- evidence --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_pairs_of_labels_are_counted(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(side, np.int32) for side in zip(*pairs, strict=True))
    expected = np.zeros((5, 5), np.int64)
    np.add.at(expected, (first, second), 1)
    assert np.array_equal(contingency(first, second, 5).dense(), expected)


def test_euclidean_silhouettes_of_very_many_points_are_near_those_of_all_pairs(
    crowd: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 20, 3_000).astype(np.int32)
    points = (np.eye(20, 40)[labels] * 4 + random.standard_normal((3_000, 40))).astype(np.float32)
    labels[::10] = random.integers(0, 20, 300)
    exact = silhouette_samples(points.astype(np.float64), labels)
    np.testing.assert_allclose(silhouette.of(points, labels, "euclidean"), exact, atol=1e-5)
    monkeypatch.setattr(silhouette, "PAIRED_POINTS", 1_000)
    np.testing.assert_allclose(silhouette.of(points, labels, "euclidean"), exact, atol=0.02)


def test_roots_of_mean_squares_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(1)
    points, labels = random.standard_normal((60, 3)), random.integers(0, 4, 60).astype(np.int32)
    labels[0] = 4  # alone, and so 0
    squared = np.square(points[:, None] - points).sum(axis=2)
    expected = np.zeros(60)
    for one in range(1, 60):
        counts = np.bincount(labels) - (np.arange(5) == labels[one])
        roots = np.sqrt(np.bincount(labels, squared[one]) / np.maximum(counts, 1)).tolist()
        own = roots.pop(labels[one])
        expected[one] = (min(roots) - own) / max(own, min(roots))
    found = silhouette.root_mean_square(points.astype(np.float32), labels, 6)  # and one that is empty
    np.testing.assert_allclose(found, expected, atol=1e-5)


# -- communities -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 30), st.integers(0, 2**31), st.integers(1, 4))
def test_communities_merge_as_by_a_table_of_all_pairs(count: int, seed: int, least: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(count), random.integers(0, count, 3 * count)])
    links = np.triu(random.random((len(labels), len(labels))) * (random.random((len(labels),) * 2) < 0.05), 1)
    joined = sparse.csr_array(links + links.T)
    k = int(random.integers(1, count))
    assert is_same(graph._fewer(joined, labels.astype(np.int32), k, least), by_table(joined, labels, k, least))


def by_table(links: sparse.csr_array, labels: npt.NDArray[np.int64], k: int, least: int) -> npt.NDArray[np.int64]:
    """The most joined for their sizes merge, small ones first."""
    member = np.eye(int(labels.max()) + 1)[labels]
    between, sizes = member.T @ (links @ member), member.sum(axis=0)
    group, alive = np.arange(len(sizes)), np.ones(len(sizes), bool)
    while alive.sum() > k:
        tightness = (between + 1e-12) / np.outer(sizes, sizes)
        np.fill_diagonal(tightness, -1)
        tightness[~alive] = tightness[:, ~alive] = -1
        small = np.flatnonzero(alive & (sizes < least))
        if len(small):
            other = int(small[sizes[small].argmin()])
            one = int(tightness[other].argmax())
        else:
            one, other = divmod(int(tightness.argmax()), len(sizes))
        between[one] += between[other]
        between[:, one] += between[:, other]
        sizes[one] += sizes[other]
        alive[other] = False
        group[group == other] = one
    return group[labels]


# -- samples ---------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 2**40), min_size=1, max_size=80), st.integers(1, 80), st.integers(0, 2**31))
def test_a_sample_depends_on_ids_and_seed_alone_and_is_part_of_larger_ones(ids: set[int], most: int, seed: int) -> None:
    listed = np.array(sorted(ids), np.int64)
    shuffled = np.random.default_rng(seed).permutation(listed)
    taken = listed[sample_of(listed, most, seed)]
    assert len(taken) == min(most, len(listed))
    assert set(taken) == set(shuffled[sample_of(shuffled, most, seed)])
    assert set(taken) <= set(listed[sample_of(listed, most + 7, seed)])
    some = listed[: len(listed) // 2 + 1]  # of a source that has grown, most were taken before
    assert set(taken) & set(some) <= set(some[sample_of(some, most, seed)])


def test_a_sample_is_as_even_as_chance() -> None:
    ids = np.arange(100_000)
    first, second = (sample_of(ids, 10_000, seed) for seed in (0, 1))
    assert np.abs(np.histogram(first, 10, (0, 100_000))[0] - 1_000).max() < 150
    assert abs(len(np.intersect1d(first, second)) - 1_000) < 150


def test_what_a_sample_found_places_the_others_with_the_nearest(crowd: Points) -> None:
    sample = sample_of(np.arange(len(crowd)), 2_000, 0)
    found = kmeans.fit(crowd[sample], 50, np.random.default_rng(0))
    everywhere = extended(found, crowd, sample, "cosine")
    assert np.array_equal(everywhere.labels[sample], found.labels)
    others = np.setdiff1d(np.arange(len(crowd)), sample)
    nearest = (crowd[others] @ found.centroids.T).argmax(axis=1)
    assert np.mean(everywhere.labels[others] == nearest) > 0.999
    assert everywhere.inertia == pytest.approx(float(np.sum(1 - np.max(crowd @ found.centroids.T, axis=1))), rel=1e-3)


# -- corrections -----------------------------------------------------------------------------------------------------


def test_clusters_of_several_centroids_are_as_likely_as_those_together_in_blocks_too(
    crowd: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = ClusterSpace("cosine", np.zeros(12, np.float32), np.eye(12, dtype=np.float32), np.ones(12, np.float32))
    numbers = np.random.default_rng(0).integers(0, 9, 30).astype(np.int32) * 2
    fitted = ClusterModel(space, crowd[:30].copy(), 8.0, np.zeros(30, np.float32), 1.0)
    model = CorrectedModel(fitted, numbers, {})
    posterior = np.exp(8 * (crowd @ crowd[:30].T))
    posterior /= posterior.sum(axis=1, keepdims=True)
    expected = np.stack([posterior[:, numbers == cluster].sum(axis=1) for cluster in np.unique(numbers)], axis=1)
    clusters, shares = model.shares(crowd)
    assert clusters.tolist() == np.unique(numbers).tolist()
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    lengths = np.ones((len(crowd), 2), np.float32)
    whole = model.assign_points(crowd, lengths)
    order = np.argsort(-shares, axis=1, kind="stable")
    assert np.array_equal(whole.cluster, clusters[order[:, 0]])
    assert np.array_equal(whole.runner_up, clusters[order[:, 1]])
    monkeypatch.setattr(corrected_model, "BLOCK_SHARES", 30 * 7)
    in_blocks = model.assign_points(crowd, lengths)
    assert np.array_equal(in_blocks.cluster, whole.cluster)
    np.testing.assert_allclose(in_blocks.confidence, whole.confidence, atol=1e-6)
