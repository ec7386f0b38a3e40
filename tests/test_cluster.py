"""Clusters on arrays: silhouettes, k-means, their number, levels, the model; against scikit-learn and brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, pairwise_distances, silhouette_samples

from shoal.cluster import kmeans, levels
from shoal.cluster.contingency import adjusted_rand, contingency
from shoal.cluster.known import scores_without_itself
from shoal.cluster.model import ClusterModel, fit_model
from shoal.cluster.number import silhouette
from shoal.cluster.number.choose_k import choose, most_kinds
from shoal.cluster.number.coding_length import PRECISION, coding_length
from shoal.cluster.space import ClusterSpace
from shoal.cluster.stage import _unequal
from shoal.config import ClusterCounts
from shoal.embeddings import normalise_rows
from shoal.errors import RunError, TooFewImagesError
from small_run import wholly_inside

Points = npt.NDArray[np.float32]


def unit(points: npt.NDArray[np.floating]) -> Points:
    return normalise_rows(points.astype(np.float32))


def blobs(
    kinds: int, each: int, dims: int = 12, spread: float = 0.25, seed: int = 0
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Directions around well separated axes, and the kind of each."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(kinds), each)
    return unit(np.eye(kinds, dims)[truth] + spread * generator.standard_normal((len(truth), dims)) / dims**0.5), truth


# -- silhouettes -----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(2, 7), st.integers(4, 60), st.integers(2, 9), st.integers(0, 2**31))
def test_silhouettes_equal_scikit_learns(k: int, count: int, dims: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = unit(generator.standard_normal((count, dims)) + 0.1)
    labels = generator.integers(0, k, count).astype(np.int32)
    if not 2 <= len(np.unique(labels)) < count:
        return
    # The cosine distances from the points in double precision: scikit-learn's own are single where the points are.
    distances = np.maximum(pairwise_distances(points.astype(np.float64), metric="cosine"), 0)
    np.fill_diagonal(distances, 0)
    expected = silhouette_samples(distances, labels, metric="precomputed")
    np.testing.assert_allclose(silhouette.cosine(points, labels, k), expected, atol=1e-4)
    expected = silhouette_samples(points.astype(np.float64), labels, metric="euclidean")
    np.testing.assert_allclose(silhouette.euclidean(points, [labels])[0], expected, atol=1e-4)


def test_realistic_silhouettes_equal_scikit_learns_to_1e_5() -> None:
    generator = np.random.default_rng(0)
    points = unit(generator.standard_normal((2000, 64)) + 0.5)
    labels = generator.integers(0, 20, 2000).astype(np.int32)
    expected = silhouette_samples(points.astype(np.float64), labels, metric="cosine")
    np.testing.assert_allclose(silhouette.cosine(points, labels, 20), expected, atol=1e-5)


def test_a_lonely_point_has_silhouette_0() -> None:
    points, _ = blobs(2, 3)
    labels = np.array([0, 0, 0, 1, 1, 2], np.int32)
    assert silhouette.cosine(points, labels, 3)[5] == 0
    assert silhouette.euclidean(points, [labels])[0, 5] == 0


def test_clusters_of_equal_points_are_as_apart_as_can_be() -> None:
    points = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    np.testing.assert_allclose(silhouette.cosine(points, np.repeat([0, 1], 5).astype(np.int32), 2), 1, atol=1e-6)


# -- k-means ---------------------------------------------------------------------------------------------------------


def test_separate_kinds_are_found_exactly() -> None:
    points, truth = blobs(6, 40)
    for metric in (kmeans.COSINE, kmeans.EUCLIDEAN):
        found = kmeans.fit(points, 6, np.random.default_rng(0), metric=metric)
        assert adjusted_rand_score(truth, found.labels) == 1.0


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
def test_no_cluster_is_ever_empty_and_every_point_is_at_its_nearest(k: int, more: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = unit(generator.integers(-1, 2, (k + more, 3)) + 0.0)  # many equal points, and zero rows
    found = kmeans.fit(points, k, generator, starts=2)
    assert np.bincount(found.labels, minlength=k).min() >= 1
    assert np.isfinite(found.centroids).all()
    assert found.inertia >= -1e-4


@pytest.mark.rounding
@pytest.mark.parametrize("metric", [kmeans.COSINE, kmeans.EUCLIDEAN])
@pytest.mark.parametrize("k", [3, 10, 17, 33])
def test_equal_points_have_one_cluster_and_equal_centroids_the_lower_number(k: int, metric: str) -> None:
    generator = np.random.default_rng(0)
    centroids = unit(generator.standard_normal((k, 512)))
    points = unit(generator.standard_normal((1500, 512)))
    points[1::3] = points[0]
    points[2::3] = (centroids[0] + centroids[1]) / np.float32(2)  # as near to one as to the other
    labels, scores = kmeans.assign(points, np.concatenate([centroids, centroids]), metric=metric)
    assert labels.max() < k
    assert len(set(labels[1::3].tolist())) == len(set(labels[2::3].tolist())) == 1
    assert len(set(scores[2::3].tolist())) == 1
    alone, _ = kmeans.assign(points, centroids, metric=metric)
    np.testing.assert_array_equal(labels, alone)


def test_the_same_seed_gives_the_same_clusters() -> None:
    points, _ = blobs(5, 30, spread=2.0)
    one, other = (kmeans.fit(points, 5, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.centroids, other.centroids)


def test_inertia_is_the_sum_of_distances() -> None:
    points, _ = blobs(4, 25, spread=1.0)
    found = kmeans.fit(points, 4, np.random.default_rng(0))
    by_hand = sum(1 - float(point @ found.centroids[label]) for point, label in zip(points, found.labels, strict=True))
    assert found.inertia == pytest.approx(by_hand, rel=1e-4)


def test_clusters_are_numbered_by_size_then_by_first_member() -> None:
    labels, order = kmeans.number_by_size(np.array([2, 0, 0, 1, 2, 0], np.int32), 3)
    assert labels.tolist() == [1, 0, 0, 2, 1, 0]
    assert order.tolist() == [0, 2, 1]


def test_more_clusters_than_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="k has value 4"):
        kmeans.fit(np.eye(3, dtype=np.float32), 4, np.random.default_rng(0))


# -- stability and the number of clusters ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60))
def test_the_adjusted_rand_index_equals_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(side, np.int32) for side in zip(*pairs, strict=True))
    ours = adjusted_rand(contingency(first, second, 5))
    assert ours == pytest.approx(adjusted_rand_score(first, second), abs=1e-9)


@pytest.mark.parametrize("kinds", [3, 7, 12])
def test_auto_finds_how_many_kinds_there_are_and_says_why(kinds: int) -> None:
    points, truth = blobs(kinds, 40, dims=16)
    choice = choose(points, ClusterCounts(), seed=0)
    assert choice.chosen.k == kinds
    assert adjusted_rand_score(truth, choice.chosen.clustering.labels) == 1.0
    assert choice.sentence.startswith(f"{kinds} clusters: the mean silhouette is highest there")


def test_only_the_listed_numbers_are_looked_at_and_evidence_does_not_depend_on_the_others() -> None:
    points, _ = blobs(4, 30, spread=1.0)
    few = choose(points, ClusterCounts.parse("3,5"), seed=0)
    many = choose(points, ClusterCounts.parse("2-9"), seed=0)
    assert [item.k for item in few.candidates] == [3, 5]
    by_k = {item.k: item for item in many.candidates}
    for item in few.candidates:
        if item is not few.chosen and by_k[item.k] is not many.chosen:
            assert (item.silhouette, item.stability) == (by_k[item.k].silhouette, by_k[item.k].stability)


def test_numbers_near_the_number_of_images_are_not_chosen() -> None:
    points, _ = blobs(4, 50, spread=3.0)
    choice = choose(points, ClusterCounts.parse("2-8,100-190:30"), seed=0)
    assert choice.chosen.k <= most_kinds(200)
    assert choose(points, ClusterCounts.parse("150"), seed=0).chosen.k == 150


def test_kinds_of_kinds_are_defensible_too() -> None:
    generator = np.random.default_rng(0)
    kinds = np.repeat(np.eye(4, 16), 3, axis=0) + 0.45 * np.eye(12, 16, 4)  # four families of three
    truth = np.repeat(np.arange(12), 40)
    points = unit(kinds[truth] + 0.05 * generator.standard_normal((480, 16)))
    choice = choose(points, ClusterCounts(), seed=0)
    assert {choice.chosen.k, *choice.runners_up} >= {4, 12}
    assert f"also defensible: {', '.join(map(str, choice.runners_up))}" in choice.sentence


def test_one_number_asked_for_has_no_runner_up() -> None:
    assert choose(blobs(3, 20)[0], ClusterCounts.parse("3"), seed=0).runners_up == ()


def test_of_a_long_tail_of_kinds_far_apart_at_most_the_smallest_is_missed() -> None:
    sizes = [400, 200, 100, 50, 25, 12]
    truth = np.repeat(np.arange(6), sizes)
    noise = np.random.default_rng(0).standard_normal((len(truth), 12))
    choice = choose(unit(np.eye(6, 12)[truth] + 0.05 * noise), ClusterCounts(), seed=0)
    assert choice.chosen.k in (5, 6)


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_stands_out_the_sentence_says_so(seed: int) -> None:
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, 400)  # any number of arcs is as good
    choice = choose(unit(np.stack([np.cos(angle), np.sin(angle)], axis=1)), ClusterCounts.parse("2-20"), seed=0)
    assert len(choice.runners_up) >= 2
    assert f"no one number stands out, also defensible: {choice.runners_up[0]}" in choice.sentence


def test_sizes_that_differ_are_told_as_a_reason_against_one_number() -> None:
    assert _unequal(np.array([300, 310, 280, 295])) == ""
    assert _unequal(np.array([900, 20])) == ""
    assert _unequal(np.array([900, 300, 100, 30, 10])) == (
        "; sizes are unequal (1 of the clusters holds half of the images, the smallest 10), so more clusters would "
        "part the frequent kinds and fewer would join the rare ones"
    )


def test_the_coding_length_equals_its_formula_and_is_least_at_the_kinds() -> None:
    points, truth = blobs(4, 30, spread=0.1)
    n, d = points.shape
    expected = 0.0
    for kind in range(4):
        members = points[truth == kind].astype(np.float64)
        m = len(members)
        scatter = np.eye(d) + d / (PRECISION * m) * members.T @ members
        expected += (m + d) / 2 * np.log2(np.linalg.det(scatter)) - m * np.log2(m / n)
    found = {
        k: coding_length(points, kmeans.fit(points, k, np.random.default_rng(0), starts=10).labels, k)
        for k in (2, 3, 4, 6, 12)
    }
    assert found[4] == pytest.approx(expected / n, rel=1e-6)
    assert min(found, key=lambda k: found[k]) == 4


def test_too_few_images_are_named() -> None:
    points, _ = blobs(2, 3)
    with pytest.raises(TooFewImagesError, match="asks for 10 clusters, but the source has only 6"):
        choose(points, ClusterCounts.parse("10"), seed=0)
    with pytest.raises(TooFewImagesError, match="1 usable image"):
        choose(points[:1], ClusterCounts(), seed=0)


@pytest.mark.parametrize("count", [2, 3, 5, 11])
def test_a_handful_of_images_is_clustered_without_complaint(count: int) -> None:
    points = unit(np.random.default_rng(0).standard_normal((count, 4)))
    choice = choose(points, ClusterCounts(), seed=0)
    assert 2 <= choice.chosen.k <= count
    assert np.isfinite(choice.silhouettes).all()


def test_images_that_all_look_the_same_are_one_cluster() -> None:
    choice = choose(np.tile(unit(np.ones((1, 4))), (20, 1)), ClusterCounts(), seed=0)
    assert (choice.chosen.k, choice.sentence) == (1, "1 cluster: all images look the same to the backbone")


# -- levels ----------------------------------------------------------------------------------------------------------


def test_levels_nest() -> None:
    points, _ = blobs(9, 30, spread=1.0)
    found = kmeans.fit(points, 9, np.random.default_rng(0))
    nested = levels.nested(points, found.labels, found.centroids, seed=0)
    for finer, coarser in ((nested.fine, nested.medium), (nested.medium, nested.coarse)):
        assert all(len(np.unique(coarser[finer == cluster])) == 1 for cluster in np.unique(finer))
    assert len(np.unique(nested.coarse)) < 9 < len(np.unique(nested.fine))
    assert np.array_equal(nested.medium, found.labels)


def test_the_nearest_clusters_merge_first() -> None:
    centroids = np.array([[0, 0], [0.1, 0], [5, 5], [5.1, 5]], np.float32)
    assert levels.merged(centroids, np.ones(4, np.int64), 2).tolist() == [0, 0, 1, 1]


# -- the model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> tuple[ClusterModel, Points]:
    points, _ = blobs(5, 200, dims=10, spread=0.8)
    space = ClusterSpace("cosine", np.zeros(10, np.float32), np.eye(10, dtype=np.float32), np.ones(10, np.float32))
    found = kmeans.fit(points, 5, np.random.default_rng(0))
    return fit_model(space, found, points, wholly_inside(len(points)), seed=0), points


def test_confidence_is_a_probability_that_falls_towards_the_border(model: tuple[ClusterModel, Points]) -> None:
    fitted, _ = model
    one, other = fitted.centroids[:2]
    along = unit(np.array([one * (1 - t) + other * t for t in (0, 0.3, 0.49)]))
    found = fitted.assign_points(along, wholly_inside(3))
    assert (found.cluster == 0).all()
    assert (found.runner_up[1:] == 1).all()
    assert (np.diff(found.confidence) <= 0).all()
    assert found.confidence[2] < 0.9 < found.confidence[0]
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert found.unsure.tolist() == (found.confidence < 0.5).tolist()


def test_nearly_all_images_it_was_made_of_are_known_and_far_ones_are_not(model: tuple[ClusterModel, Points]) -> None:
    fitted, points = model
    assert fitted.assign_points(points, wholly_inside(len(points))).unknown.mean() < 0.02
    opposite = -fitted.centroids.mean(axis=0, keepdims=True)
    assert fitted.assign_points(unit(opposite), wholly_inside(1)).unknown.all()
    mostly_outside = np.tile(np.array([0.05, 1], np.float32), (5, 1))
    assert fitted.assign_points(points[:5], mostly_outside).unknown.all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_point_is_judged_by_the_others_of_its_cluster(metric: str) -> None:
    points, _ = blobs(3, 8, dims=6, spread=1.0)
    found = kmeans.fit(points, 3, np.random.default_rng(0), metric=metric)
    for number, score in enumerate(scores_without_itself(points, found, metric)):
        others = points[(found.labels == found.labels[number]) & (np.arange(len(points)) != number)]
        mean = others.mean(axis=0)
        expected = (
            points[number] @ mean - mean @ mean / 2 if metric == "euclidean" else points[number] @ unit(mean[None])[0]
        )
        assert score == pytest.approx(expected, abs=1e-5)


def test_a_saved_model_assigns_the_same(model: tuple[ClusterModel, Points], tmp_path: Path) -> None:
    fitted, points = model
    fitted.save(tmp_path)
    again, before = ClusterModel.load(tmp_path).assign(points), fitted.assign(points)
    for name in ("cluster", "confidence", "unsure", "runner_up", "unknown"):
        assert np.array_equal(getattr(again, name), getattr(before, name))
    (tmp_path / "clusters.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match="no readable clusters"):
        ClusterModel.load(tmp_path)
