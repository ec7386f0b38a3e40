"""Learned clusters: the objectives against literal loops, heads, consensus, and whether they are taken."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from shoal.cluster import LearnedClustering, learned, objectives, stage
from shoal.cluster.consensus import consensus_of
from shoal.cluster.heads import Heads, train_heads
from shoal.cluster.model import ClusterModel
from shoal.cluster.objectives import BALANCE_WEIGHT, ENTROPY_WEIGHT, MIXED, OBJECTIVES, SHARPNESS, LinearHeads
from shoal.cluster.smoothing import principal, smoothed
from shoal.cluster.space import ArrayRows, fit_space
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, normalise_rows
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


@pytest.mark.parametrize("name", ["mutual_information", "scan", "icon", "temi", "turtle"])
def test_gradients_equal_differences(name: str) -> None:
    drawn_logits = drawn(4 if name == "temi" else 2, heads=2)
    prior = (np.array([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]),) if name == "temi" else ()

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


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - learned.UNWHITENED))
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
    held_out = np.arange(0, 50, 10)
    first, second = np.repeat(labels[held_out], 4), labels[neighbours[held_out]].ravel()
    both = mutual_info_score(np.concatenate([first, second]), np.concatenate([second, first]))
    assert learned._information(labels, neighbours, 3) == pytest.approx(both, abs=1e-9)


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
    ground = learned.Ground(space, points, neighbours, points, np.ones(24, np.float32))
    own = np.stack([points[truth == kind].mean(axis=0) for kind in range(3)], axis=1).astype(np.float32)
    weights = np.stack(
        [own, np.random.default_rng(0).standard_normal(own.shape).astype(np.float32), own[:, [1, 2, 0]]], 1
    )
    bias = np.stack([-(row**2).sum(axis=0) / 2 for row in weights.transpose(1, 0, 2)]).astype(np.float32)
    kept = learned._sound(Heads(weights, bias, np.array([1.0, 2.0, 3.0])), ground)
    np.testing.assert_array_equal(kept.losses, [1, 3])


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
    ground = learned.prepare(store, np.arange(300), np.arange(300), seed=0)
    before = ground.smooth.copy()
    first, again = (learned.starts_on(ground, 3, 6, seed=0) for _ in range(2))
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
    fitted = learned.learn(store, np.arange(300), 3, seed=0, heads=4)
    chance = np.random.default_rng(0).integers(0, 3, 300).astype(np.int32)
    assert learned.judge(fitted, chance, 3).taken
    shuffled = learned.Learned(**{**fields(fitted), "found": relabelled(fitted, chance)})
    assert "tell less" in learned.judge(shuffled, truth.astype(np.int32), 3).sentence
    same = learned.judge(fitted, fitted.found.labels, 3)
    assert same.taken
    assert "nearly as much" in same.sentence
    one = np.zeros(300, np.int32)
    one[:2] = 1, 2
    collapsed = learned.Learned(**{**fields(fitted), "found": relabelled(fitted, one)})
    assert "collapsed" in learned.judge(collapsed, np.arange(300, dtype=np.int32) % 5, 5).sentence
    strangers = learned.Learned(**{**fields(fitted), "agreement": 0.1})
    assert "do not agree" in learned.judge(strangers, chance, 3).sentence


def fields(fitted: learned.Learned) -> dict[str, object]:
    return {name: getattr(fitted, name) for name in learned.Learned.__dataclass_fields__}


def relabelled(fitted: learned.Learned, labels: npt.NDArray[np.int32]) -> object:
    from dataclasses import replace

    return replace(fitted.found, labels=labels)
