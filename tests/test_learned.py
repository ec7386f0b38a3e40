"""Learned clusters: the objectives against literal loops, heads, consensus, and whether they are taken."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from shoal.cluster import LearnedClustering, SphericalKMeans, stage
from shoal.cluster.ground.ground import Ground, prepare
from shoal.cluster.ground.information import entropy, held_out, information, own_shares, worst_cluster
from shoal.cluster.ground.smoothing import principal, smoothed
from shoal.cluster.heads import objectives
from shoal.cluster.heads.distilled import distil
from shoal.cluster.heads.objectives import (
    BALANCE_WEIGHT,
    ENTROPY_WEIGHT,
    MIXED,
    OBJECTIVES,
    SHARPNESS,
    SIZES_WEIGHT,
    LinearHeads,
)
from shoal.cluster.heads.training import Heads, train_heads
from shoal.cluster.learned import judging, learning
from shoal.cluster.learned.accumulation import average, joined
from shoal.cluster.learned.agreed import agreed, consensus_of
from shoal.cluster.learned.sizes import Sizes
from shoal.cluster.learned.starts import by_communities, by_k_means
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import ArrayRows, fit_space
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, normalise_rows
from shoal.evaluate.metrics import clustering_accuracy
from shoal.neighbours.exact import exact_neighbours
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult
from small_run import write_small_run

Points = npt.NDArray[np.float32]


def kinds(
    count: int, each: int, dims: int = 24, noise: float = 0.9, seed: int = 0
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Overlapping kinds of images as features of an encoder: not negative, and most dimensions noise."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(count), each)
    centres = 3 * random.standard_normal((count, 6))
    signal = (centres[truth] + random.standard_normal((len(truth), 6))) @ random.standard_normal((6, dims)) / 6**0.5
    return np.maximum(signal + noise * random.standard_normal((len(truth), dims)), 0).astype(np.float32), truth


def bands(each: int = 300, dims: int = 32, seed: int = 0) -> tuple[Points, npt.NDArray[np.int64]]:
    """Four kinds, each far more spread along a direction of its own than kinds are apart: k-means cuts across them."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(4), each)
    centres, along = random.standard_normal((4, dims)), random.standard_normal((4, dims))
    along *= 12 / np.linalg.norm(along, axis=1, keepdims=True)
    points = centres[truth] + random.uniform(-1, 1, (len(truth), 1)) * along[truth]
    points += 0.8 * random.standard_normal(points.shape)
    return np.maximum(points, 0).astype(np.float32), truth


def ring(images: int) -> Points:
    """No kinds at all, but arcs of one circle, which k-means cuts evenly."""
    turn = 2 * np.pi * np.arange(images) / images
    return np.stack([np.cos(turn), np.sin(turn), np.full(images, 0.2)], axis=1).astype(np.float32)


def cluster(run: RunDir, method: str, clusters: str = "4", seed: int = 0) -> StageResult:
    return stage.run(ClusterConfig(("x",), method=method, clusters=clusters, seed=seed), run, Progress())


# -- objectives ------------------------------------------------------------------------------------------------------


def literal(name: str, first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """The objective of one head, [n, k] each, as its paper writes it."""
    n, k = first.shape
    if name == "scan":
        mean = [sum(first[i, c] for i in range(n)) / n for c in range(k)]
        agree = sum(-math.log(sum(first[i, c] * second[i, c] for c in range(k))) for i in range(n)) / n
        return agree - ENTROPY_WEIGHT * -sum(m * math.log(m) for m in mean)
    if name == "mutual_information":
        joint = [[0.0] * k for _ in range(k)]
        for i in range(n):
            for c in range(k):
                for d in range(k):
                    joint[c][d] += (first[i, c] * second[i, d] + first[i, d] * second[i, c]) / (2 * n)
        margin = [sum(row) for row in joint]
        return -sum(joint[c][d] * math.log(joint[c][d] / margin[c] / margin[d]) for c in range(k) for d in range(k))
    assert name == "icon"
    prior = [sum(first[i, c] + second[i, c] for i in range(n)) / (2 * n) for c in range(k)]
    steps = [sum(first[i, c] * second[i, c] / prior[c] for c in range(k)) for i in range(n)]
    return -sum(math.log((1 - MIXED) * step + MIXED) for step in steps) / n


def drawn(count: int = 2, heads: int = 1) -> npt.NDArray[np.float64]:
    """Logits [count, heads, 3, 7]."""
    return np.random.default_rng(0).standard_normal((count, heads, 3, 7))


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exponential = np.exp(logits)
    return exponential / exponential.sum(axis=-2, keepdims=True)


@pytest.mark.parametrize("name", ["icon", "mutual_information", "scan"])
def test_losses_equal_literal_loops(name: str) -> None:
    first, second = softmax(drawn())
    found, *_ = getattr(objectives, name)(first, second)
    assert found.shape == (1,)
    assert float(found[0]) == pytest.approx(literal(name, first[0].T, second[0].T), abs=1e-7)


def test_mutual_information_with_sizes_adds_how_far_they_are_from_those() -> None:
    first, second = softmax(drawn())
    sizes = np.array([[0.2, 0.3, 0.5]])
    found = float(objectives.mutual_information(first, second, sizes)[0][0])
    means = [sum(both[0, c, i] for both in (first, second) for i in range(7)) / 14 for c in range(3)]
    away = sum(mean * math.log(mean / size) for mean, size in zip(means, sizes[0], strict=True))
    expected = literal("mutual_information", first[0].T, second[0].T) + SIZES_WEIGHT * away
    assert found == pytest.approx(expected, abs=1e-7)


def test_temi_equals_literal_loops() -> None:
    student = softmax(drawn(4))
    s, s_other, t, t_other = (rows[0].T for rows in student)
    prior = np.array([0.2, 0.3, 0.5])
    total = 0.0
    for i in range(7):
        weight = sum(t[i, c] * t_other[i, c] for c in range(3))
        for one, other in ((s, t_other), (s_other, t)):
            total -= weight / 2 * math.log(sum((one[i, c] * other[i, c]) ** SHARPNESS / prior[c] for c in range(3)))
    assert float(objectives.temi(*student, prior[None])[0][0]) == pytest.approx(total / 7, abs=1e-7)


def test_turtle_equals_literal_loops() -> None:
    labelling, probe = softmax(drawn())
    told, guessed = labelling[0].T, probe[0].T
    cross = -sum(told[i, c] * math.log(guessed[i, c]) for i in range(7) for c in range(3)) / 7
    mean = [sum(told[i, c] for i in range(7)) / 7 for c in range(3)]
    expected = cross + BALANCE_WEIGHT * sum(m * math.log(m) for m in mean)
    assert float(objectives.turtle(labelling, probe)[0][0]) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "with_prior"),
    [
        ("mutual_information", False),
        ("mutual_information", True),
        ("scan", False),
        ("icon", False),
        ("temi", True),
        ("turtle", False),
    ],
)
def test_gradients_equal_differences(name: str, with_prior: bool) -> None:
    drawn_logits = drawn(4 if name == "temi" else 2, heads=2)
    prior = (np.array([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]),) if with_prior else ()

    def loss(logits: npt.NDArray[np.float64]) -> float:
        return float(getattr(objectives, name)(*softmax(logits), *prior)[0].sum())

    probabilities = softmax(drawn_logits)
    _, *gradients = getattr(objectives, name)(*probabilities, *prior)
    assert len(gradients) == (1 if name == "turtle" else 2)  # what teaches gets none
    for which, by in enumerate(gradients):
        found = objectives.by_logits(probabilities[which], by)
        for place in np.ndindex(found.shape):
            step = np.zeros_like(drawn_logits)
            step[(which, *place)] = 1e-5
            difference = (loss(drawn_logits + step) - loss(drawn_logits - step)) / 2e-5
            assert float(found[place]) == pytest.approx(difference, abs=1e-6)


def test_the_gradient_of_heads_equals_differences() -> None:
    random = np.random.default_rng(0)
    rows, towards = random.standard_normal((7, 4)), random.standard_normal((2, 3, 7))
    heads = LinearHeads(random.standard_normal((6, 4)), random.standard_normal(6), 2)
    gradient = heads.gradient(rows, objectives.by_logits(heads.probabilities(rows), towards))
    for parameter, found in zip(heads.parameters, gradient, strict=True):
        for place in np.ndindex(parameter.shape):
            kept, values = parameter[place], []
            for step in (1e-5, -1e-5):
                parameter[place] = kept + step
                values.append(float((heads.probabilities(rows) * towards).sum()))
            parameter[place] = kept
            assert float(found[place]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["mutual_information", "scan", "icon"])
def test_agreeing_on_clusters_of_one_size_is_best(name: str) -> None:
    sharp = np.tile(np.eye(3), 4)[None]  # [1, 3, 12]
    one = np.tile(np.eye(3)[:, :1], 12)[None]
    even = np.full((1, 3, 12), 1 / 3)

    def loss(*both: npt.NDArray[np.float64]) -> float:
        return float(getattr(objectives, name)(*both)[0][0])

    best = loss(sharp, sharp)
    for other in ((one, one), (even, even), (sharp, np.roll(sharp, 1, axis=2))):
        assert best < loss(*other)


def test_the_teacher_follows_the_student_slowly() -> None:
    heads = LinearHeads(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), 1)
    temi = objectives.Temi(heads)
    heads.weights += 1
    temi.gradient(np.ones((8, 2), np.float32))
    assert float(temi._teacher.weights[0, 0]) == pytest.approx(1 - objectives.TEACHER_MOMENTUM, rel=1e-4)


def test_turtles_probe_learns_the_labelling() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((400, 5)).astype(np.float32)
    heads = LinearHeads(random.standard_normal((3, 5)).astype(np.float32), np.zeros(3, np.float32), 1)
    turtle = objectives.Turtle(heads)
    heads.weights[:] = heads.weights[::-1] * 3  # the probe knew another labelling
    errors = []
    for _ in range(60):
        turtle.gradient(rows)
        errors.append(float(turtle.losses(rows).sum()))
    assert errors[-1] < errors[0] - 0.05


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - learning.UNWHITENED))
def test_every_objective_keeps_what_its_heads_began_with_where_it_is_right(name: str) -> None:
    points, truth = kinds(3, 150, noise=0.3)
    white = principal(points, 8)[0]
    neighbours, _ = exact_neighbours(normalise_rows(white.copy()), 10)
    starts = [truth.astype(np.int32), ((truth + 1) % 3).astype(np.int32)]
    heads = train_heads(white, neighbours, starts, 3, seed=0, objective=name)
    for head in range(2):
        assert adjusted_rand_score(truth, heads.logits(white)[:, head].argmax(axis=1)) > 0.8
    assert np.isfinite(heads.losses).all()


# -- parts -----------------------------------------------------------------------------------------------------------


def test_smoothing_equals_the_dense_walk() -> None:
    points = normalise_rows(np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32))
    neighbours, _ = exact_neighbours(points, 15)
    links = np.zeros((40, 40))
    np.put_along_axis(links, neighbours, 1, axis=1)
    walk = (links + links.T) / (links + links.T).sum(axis=1, keepdims=True)
    expected = points.astype(np.float64)
    for _ in range(4):
        expected = expected / 2 + walk @ expected / 2
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(smoothed(points, neighbours), expected, atol=1e-5)


def test_whitened_coordinates_have_variance_1_and_no_correlation() -> None:
    points, _ = kinds(3, 50)
    white = principal(points, 8)[0]
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(8), atol=1e-3)


def test_heads_find_what_their_beginnings_missed() -> None:
    points, truth = kinds(4, 150, noise=0.3)
    white = principal(points, 8)[0]
    neighbours, _ = exact_neighbours(normalise_rows(white.copy()), 10)
    begin = np.where(np.random.default_rng(0).random(600) < 0.3, np.random.default_rng(1).integers(0, 4, 600), truth)
    heads = train_heads(white, neighbours, [begin.astype(np.int32)], 4, seed=0)
    before = adjusted_rand_score(truth, begin)
    after = adjusted_rand_score(truth, heads.logits(white)[:, 0].argmax(axis=1))
    assert after > max(before + 0.2, 0.8)
    consensus = consensus_of(heads, white)
    rows = consensus.transform(white)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(consensus.transform(white[5:9]), rows[5:9], atol=1e-5)


def test_information_equals_scikit_learns() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 50).astype(np.int32)
    neighbours = random.integers(0, 50, (50, 4)).astype(np.int32)
    aside = held_out(50)
    first, second = np.repeat(labels[aside], 4), labels[neighbours[aside]].ravel()
    both = mutual_info_score(np.concatenate([first, second]), np.concatenate([second, first]))
    assert information(labels, neighbours, 3) == pytest.approx(both, abs=1e-9)


def test_few_kinds_far_apart_are_found_however_many_directions_are_noise() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 250)
    points = 2 * random.standard_normal((4, 96))[truth] + 0.6 * random.standard_normal((1000, 96))
    for seed in range(3):
        found = LearnedClustering(4, random_state=seed).fit(points)
        assert adjusted_rand_score(truth, found.labels_) > 0.99


def test_heads_that_tell_far_less_than_the_best_are_left_out() -> None:
    points, truth = kinds(3, 100, noise=0.3)
    space = fit_space(ArrayRows(points), np.arange(300), "cosine", np.random.default_rng(0))
    neighbours, _ = exact_neighbours(normalise_rows(points.copy()), 10)
    ground = Ground(space, points, neighbours, points, np.ones(24, np.float32))
    own = np.stack([points[truth == kind].mean(axis=0) for kind in range(3)], axis=1).astype(np.float32)
    weights = np.stack(
        [own, np.random.default_rng(0).standard_normal(own.shape).astype(np.float32), own[:, [1, 2, 0]]], 1
    )
    bias = np.stack([-(row**2).sum(axis=0) / 2 for row in weights.transpose(1, 0, 2)]).astype(np.float32)
    kept = learning.sound(Heads(weights, bias, np.array([1.0, 2.0, 3.0])), ground, per_entropy=False)
    np.testing.assert_array_equal(kept.losses, [1, 3])


def test_sizes_are_kept_where_that_is_asked() -> None:
    """Mutual information makes clusters of one size of those of a long tail, unless it is told their sizes."""
    points, truth = tail((700, 300, 120, 50, 25, 12))
    ids = np.arange(len(points))
    ground = prepare(ArrayRows(points), ids, ids, 0)
    moved = {}
    for keep in (False, True):
        heads = train_heads(ground.white, ground.neighbours, [truth.astype(np.int32)], 6, seed=0, keep_sizes=keep)
        sizes = np.bincount(heads.logits(ground.white)[:, 0].argmax(axis=1), minlength=6)
        moved[keep] = int(np.abs(sizes - np.bincount(truth)).sum())
    assert moved[True] < moved[False] / 2


def test_the_worst_cluster_is_that_whose_neighbours_lie_elsewhere() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2], np.int32)
    neighbours = np.array([[1, 2], [0, 1], [3, 2], [2, 3], [0, 1], [4, 0]], np.int32)
    np.testing.assert_allclose(own_shares(labels, neighbours), [0.5, 1, 1, 1, 0, 0.5])
    assert worst_cluster(labels, neighbours, 3) == pytest.approx(0.25)
    assert worst_cluster(labels, neighbours, 4) == 0
    assert entropy(labels) == pytest.approx(math.log(3))


def test_average_linkage_equals_scipys() -> None:
    from scipy.cluster.hierarchy import fcluster, linkage

    random = np.random.default_rng(0)
    points = random.standard_normal((40, 5))
    alike = points @ points.T
    mine = average(alike, np.ones(40, np.int64), 6, least=1)
    apart = alike.max() - alike[np.triu_indices(40, 1)]
    assert adjusted_rand_score(fcluster(linkage(apart, "average"), 6, "maxclust"), mine) == 1


def test_small_groups_are_no_clusters_of_their_own() -> None:
    places = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2, 9.0, 9.1, 40.0])  # the last one lies far off, and is one image
    alike = -np.abs(places[:, None] - places)
    sizes = np.array([10, 10, 10, 10, 10, 10, 10, 10, 1])
    found = average(alike, sizes, 3, least=2)
    assert len(np.unique(found)) == 3
    assert found[8] == found[7]


def test_votes_of_unlike_sizes_are_joined_as_they_are() -> None:
    truth = np.repeat([0, 1, 2], [380, 60, 32])
    random = np.random.default_rng(0)
    said = np.where(random.random((472, 6)) < 0.1, random.integers(0, 3, (472, 6)), truth[:, None])
    votes = np.eye(3, dtype=np.float32)[said]  # [n, heads, clusters]
    rows = normalise_rows(votes.reshape(472, -1).copy())
    found = joined(rows, votes, 3, np.random.default_rng(0))
    assert adjusted_rand_score(truth, found) > 0.95


def test_a_last_head_learns_a_clustering_and_leaves_no_cluster_empty() -> None:
    points, truth = kinds(4, 120, noise=0.3)
    white = principal(points, 8)[0]
    neighbours, _ = exact_neighbours(normalise_rows(white.copy()), 10)
    labels = truth.astype(np.int32)
    labels[:2] = 4  # two images of another kind, as alike to theirs as any
    head = distil(white, labels, neighbours, 5, seed=0)
    assert head is not None
    rows = head.transform(white)
    said = (rows @ head.directions.T).argmax(axis=1)
    assert len(np.unique(said)) == 5
    assert adjusted_rand_score(truth, said) > 0.75  # some go to the other kind, which they are as alike to
    np.testing.assert_array_equal(said, head.probabilities(white).argmax(axis=1))
    white[2] = white[3]  # two of one point cannot be two clusters
    labels[2:4] = 5, 6
    assert distil(white, labels, neighbours, 7, seed=0) is None


@pytest.mark.parametrize(
    ("each", "differ"), [((200, 200, 200, 200, 200, 200), False), ((700, 300, 120, 50, 25, 12), True)]
)
def test_sizes_are_told_by_evidence(each: tuple[int, ...], differ: bool) -> None:
    found = sizes_of(*tail(each))
    assert found.differ is differ
    assert found.sentence.startswith("sizes differ" if differ else "sizes are about equal")


def test_sizes_differ_where_one_cluster_holds_what_no_two_even_ones_would() -> None:
    assert Sizes(gain=0.01, largest=2.9).differ
    assert not Sizes(gain=0.15, largest=2.7).differ
    assert not Sizes(gain=-0.01, largest=4.0).differ
    assert Sizes(gain=0.25, largest=1.6).differ  # two clusters hold at most two mean ones


def tail(each: tuple[int, ...], dims: int = 24, seed: int = 0) -> tuple[Points, npt.NDArray[np.int64]]:
    """Kinds of so many images each, the features of which are not negative."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(each)), each)
    points = 1.6 * random.standard_normal((len(each), dims))[truth] + random.standard_normal((len(truth), dims))
    return np.maximum(points + 1, 0).astype(np.float32), truth


def sizes_of(points: Points, truth: npt.NDArray[np.int64], seed: int = 0) -> Sizes:
    k, ids = int(truth.max()) + 1, np.arange(len(truth))
    return learning.learn(ArrayRows(points), ids, k, seed, heads=16).sizes


@pytest.mark.parametrize("images", [100, 20_000, 20_001, 60_000])
def test_no_more_heads_are_trained_than_asked_for_and_some_of_each_sort(images: int) -> None:
    for heads in range(2, 200):
        of_one_size, of_their_own = learning.head_counts(heads, images)
        assert of_one_size + of_their_own == heads
        assert of_one_size >= of_their_own >= 1


@pytest.mark.parametrize(
    ("k", "images", "expected"),
    [
        (2, 20_000, (24, 24)),
        (2, 20_001, (48, 10)),
        (30, 20_000, (16, 16)),
        (50, 20_000, (10, 10)),
        (50, 20_001, (19, 10)),
        (256, 60_000, (4, 2)),
    ],
)
def test_many_clusters_and_many_images_have_fewer_heads(k: int, images: int, expected: tuple[int, int]) -> None:
    assert learning.head_counts(learning.usual_heads(k, images), images) == expected


def test_communities_are_the_same_however_many_are_asked_for() -> None:
    points, truth = tail((100, 60, 30))
    ids = np.arange(len(truth))
    ground = prepare(ArrayRows(points), ids, ids, 0)
    more = by_communities(ground, 3, 8, seed=0)
    assert len(more) == 8
    np.testing.assert_array_equal(more[:3], by_communities(ground, 3, 3, seed=0))


def test_a_long_tail_is_found_where_k_means_cuts_the_largest_kind() -> None:
    points, truth = tail((900, 350, 130, 50, 25, 15))
    plain = SphericalKMeans(6, random_state=0).fit(points)
    for seed in range(2):
        found = LearnedClustering(6, random_state=seed).fit(points)
        score = adjusted_rand_score(truth, found.labels_)
        assert score > 0.9
        assert score > adjusted_rand_score(truth, plain.labels_) + 0.2


def test_an_answer_with_a_cluster_of_what_fits_nowhere_is_left_out() -> None:
    """Most heads part one kind in two and join two others; a few are right, and only they leave no odd cluster."""
    points, truth = kinds(4, 150, noise=0.3)
    white = principal(points, 8)[0]
    neighbours, _ = exact_neighbours(normalise_rows(white.copy()), 10)
    space = fit_space(ArrayRows(points), np.arange(600), "cosine", np.random.default_rng(0))
    ground = Ground(space, white, neighbours, white, np.ones(8, np.float32))
    right = truth.astype(np.int32)
    odd = np.where(truth == 3, 2, truth).astype(np.int32)
    odd[np.random.default_rng(0).choice(600, 100, replace=False)] = 3
    heads = train_heads(white, neighbours, [right] * 6 + [odd] * 2, 4, seed=0)
    found = agreed(heads, ground, 4, seed=0, keep_sizes=False)
    assert adjusted_rand_score(truth, found) > 0.9


# -- the whole -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, npt.NDArray[np.int64]]:
    points, truth = bands()
    return write_small_run(tmp_path_factory.mktemp("learned"), points), truth


def test_auto_learns_where_there_are_images_enough_and_says_why(run: tuple[RunDir, npt.NDArray[np.int64]]) -> None:
    folder, truth = run
    facts = cluster(folder, "auto").facts
    assert facts["method"] == "learned"
    assert "learned clusters tell more" in facts["why_method"]
    table = folder.read_clusters()
    learned_score = adjusted_rand_score(truth, table["cluster"].to_numpy())
    model = ClusterModel.load(folder.model)
    store = EmbeddingStore.open(folder.embeddings)
    again = model.assign(store.read(np.arange(1200)))
    np.testing.assert_array_equal(again.cluster, table["cluster"].to_numpy())
    np.testing.assert_allclose(again.confidence, table["confidence"].to_numpy(), atol=1e-5)
    assert again.unknown.mean() < 0.05
    assert model.space.plain.consensus is None
    assert model.space.plain.transform(store.read(np.arange(3))).shape == (3, 32)
    assert cluster(folder, "kmeans").facts["method"] == "kmeans"
    assert learned_score > 0.2 + adjusted_rand_score(truth, folder.read_clusters()["cluster"].to_numpy())


def test_the_same_seed_learns_the_same_bytes(run: tuple[RunDir, npt.NDArray[np.int64]]) -> None:
    folder, _ = run
    written = []
    for _ in range(2):
        cluster(folder, "learned", seed=3)
        written.append(
            [path.read_bytes() for path in (folder.clusters, folder.levels, *sorted((folder.root / "model").iterdir()))]
        )
    assert written[0] == written[1]


def test_starts_leave_what_they_are_made_from(tmp_path: Path) -> None:
    points, _ = kinds(3, 100)  # of fewer dimensions than a start looks at, which then takes all of them
    store = EmbeddingStore.open(write_small_run(tmp_path, points).embeddings)
    ground = prepare(store, np.arange(300), np.arange(300), seed=0)
    before = ground.smooth.copy()
    first, again = (by_k_means(ground, 3, 6, seed=0) for _ in range(2))
    np.testing.assert_array_equal(ground.smooth, before)
    np.testing.assert_array_equal(first, again)


def test_few_images_are_left_to_k_means(tmp_path: Path) -> None:
    """Asked for, learned clusters of them are made all the same, and taken where they tell more of neighbours."""
    few = write_small_run(tmp_path, bands(60)[0])
    facts = cluster(few, "auto").facts
    assert (facts["method"], facts["why_method"]) == ("kmeans", "")
    facts = cluster(few, "learned").facts
    assert facts["method"] == "learned"
    assert "learned clusters tell more" in facts["why_method"]


def test_learned_clusters_that_tell_less_are_not_taken_even_where_they_were_asked_for(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, ring(300))
    facts = cluster(run, "learned", "12").facts
    assert facts["method"] == "kmeans"
    assert "learned clusters tell less" in facts["why_method"]
    found = run.read_clusters()
    assert cluster(run, "kmeans", "12").facts["method"] == "kmeans"
    assert found.equals(run.read_clusters())


def test_clusters_that_tell_nothing_of_neighbours_are_not_taken(tmp_path: Path) -> None:
    points, truth = kinds(3, 100)
    store = EmbeddingStore.open(write_small_run(tmp_path, points).embeddings)
    fitted = learning.learn(store, np.arange(300), 3, seed=0, heads=4)
    chance = np.random.default_rng(0).integers(0, 3, 300).astype(np.int32)
    assert judging.judge(fitted, chance, 3).taken
    assert "tell less" in judging.judge(relabelled(fitted, chance), truth.astype(np.int32), 3).sentence
    same = judging.judge(fitted, fitted.placed.found.labels, 3)
    assert same.taken
    assert "nearly as much" in same.sentence
    one = np.zeros(300, np.int32)
    one[:2] = 1, 2
    five = np.arange(300, dtype=np.int32) % 5
    assert "collapsed" in judging.judge(relabelled(fitted, one), five, 5).sentence
    assert "do not agree" in judging.judge(replace(fitted, agreement=0.1), chance, 3).sentence


def test_kinds_that_come_in_turns_are_found(tmp_path: Path) -> None:
    """As pictures of two cameras do: what is put aside must not be all of one kind."""
    points, truth = kinds(2, 500)
    turns = np.argsort(np.tile(np.arange(500), 2), kind="stable")
    run = write_small_run(tmp_path, points[turns])
    assert (truth[turns][::10] == truth[turns][0]).all()
    cluster(run, "learned", "2")
    found = run.read_clusters(["cluster"])["cluster"].to_numpy()
    assert clustering_accuracy(truth[turns], found) > 0.97


@pytest.mark.parametrize("images", [2, 10, 11, 95, 1000])
def test_one_image_in_ten_is_put_aside_and_not_every_tenth(images: int) -> None:
    aside = held_out(images)
    assert len(aside) == -(-images // 10)
    assert (np.diff(aside) > 0).all()
    if images == 1000:
        for period in range(2, 13):
            assert len(np.unique(aside % period)) == period


def relabelled(fitted: learning.Learned, labels: npt.NDArray[np.int32]) -> learning.Learned:
    return replace(fitted, placed=replace(fitted.placed, found=replace(fitted.placed.found, labels=labels)))
