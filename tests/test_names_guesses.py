"""Names of clusters: the formula against plain loops, and what is promised of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.encoder.classifier import Layer
from shoal.errors import RunError
from shoal.names import guesses, guesses_file, likeliest
from shoal.names.agreement import agrees
from shoal.names.kinds import MUTE, Vocabulary, vocabulary
from shoal.runfiles import GUESSES

Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def known() -> Vocabulary:
    found = vocabulary()
    assert found is not None
    return found


def classes(*words: str) -> list[int]:
    """Numbers of the classes that are said so."""
    said = [known().said[place] for place in known().classes.tolist()]
    return [said.index(word) for word in words]


def images(shown: list[int], each: int, sure: float = 0.8, seed: int = 0) -> tuple[Float32, Ints]:
    """Probabilities of images that show one class each, `each` images a class, and the clusters they make."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(shown)), each)
    rest = random.random((len(labels), 1000)).astype(np.float32) ** 4
    rest *= (1 - sure) / rest.sum(axis=1, keepdims=True)
    rest[np.arange(len(labels)), np.array(shown)[labels]] += sure
    return rest, labels


def named(probabilities: Float32, labels: Ints, confidence: Float32 | None = None) -> list[guesses.ClusterGuess]:
    weights = np.ones(len(labels), np.float32) if confidence is None else confidence
    return guesses.guess(likeliest.of_probabilities([probabilities]), labels, weights, known())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_strengths_are_those_of_plain_loops(seed: int, clusters: int) -> None:
    random = np.random.default_rng(seed)
    words, count = known(), 3 * clusters
    labels = random.permutation(np.repeat(np.arange(clusters), 3))
    confidence = random.random(count).astype(np.float32)
    table = likeliest.of_probabilities([random.dirichlet(np.full(1000, 0.01), count).astype(np.float32)])
    told = guesses.guess(table, labels, confidence, words)
    mute = {one for one, place in enumerate(words.classes.tolist()) if MUTE in words.kinds[place].marks}
    lines = [set(words.ancestors(place)) for place in words.classes.tolist()]

    def probability(image: int, kind: int) -> float:
        pairs = zip(table.classes[image].tolist(), table.probabilities[image].tolist(), strict=True)
        return sum(p for one, p in pairs if one not in mute and kind in lines[one])

    for one in told:
        own = [image for image in range(count) if labels[image] == one.cluster]
        other = [image for image in range(count) if labels[image] != one.cluster]
        for guess in one.others:
            kind = words.place(guess.wnid)
            assert kind is not None
            weights = [max(float(confidence[image]), 1e-6) for image in own]
            p = sum(w * probability(i, kind) for w, i in zip(weights, own, strict=True)) / sum(weights)
            part = len([number for number, line in enumerate(lines) if kind in line]) / 1000
            mean = sum(probability(image, kind) for image in other) / len(other) if other else 0.0
            q = (1 - guesses.PRIOR) * mean + guesses.PRIOR * part if other else part
            assert guess.strength == pytest.approx(p * math.log(p / q), rel=1e-3, abs=2e-4)


def test_clusters_have_the_words_for_what_they_show() -> None:
    shown = classes("lion", "hourglass", "go-kart", "pineapple", "airliner", "sorrel horse")
    told = named(*images(shown, 20))
    assert [one.name for one in told] == ["lion", "hourglass", "go-kart", "pineapple", "airplane", "horse"]
    assert all(one.strength > guesses.LEAST_STRENGTH for one in told)


def test_a_cluster_of_many_breeds_is_of_dogs() -> None:
    breeds = classes("beagle", "pug", "whippet", "vizsla", "borzoi", "basenji", "briard", "komondor")
    probabilities, _ = images([*breeds, *classes("pizza", "teapot")], 12)
    told = named(probabilities, np.repeat([0, 1, 2], [96, 12, 12]))
    assert [one.name for one in told] == ["dog", "pizza", "teapot"]


def test_a_mixture_is_not_called_by_one_of_its_parts() -> None:
    probabilities, _ = images(classes("pizza", "lion", "teapot", "iPod", "volcano", "banjo"), 12)
    told = named(probabilities, np.repeat([0, 1], [60, 12]))
    assert [one.name for one in told] == [None, "banjo"]


def test_two_clusters_never_have_one_name() -> None:
    boats = classes("lifeboat", "speedboat", "lifeboat", "lion", "lion")
    told = named(*images(boats, 15))
    names = [one.name for one in told]
    assert len(set(names)) == len(names)
    assert names[3:] in (["lion", "lion (2)"], ["lion (2)", "lion"])
    mixed, _ = images(classes("canoe", "lifeboat", "speedboat", "gondola", "yawl", "catamaran"), 10, sure=0.9)
    labels = np.repeat([0, 1, 2, 3], [10, 10, 10, 30])
    mixed[:30] = mixed[:30] * 0.5
    mixed[:30, classes("fireboat", "trimaran", "schooner")] += 0.5 / 3
    names = [one.name for one in named(mixed, labels)]
    assert len({name for name in names if name}) == len([name for name in names if name])


def test_what_tells_clusters_of_one_word_apart_is_said() -> None:
    breeds = classes("beagle", "pug", "whippet", "vizsla", "borzoi", "basenji")
    dogs, _ = images([*breeds, *breeds], 10, sure=0.9)
    for part, one in enumerate(classes("Chihuahua", "komondor")):
        dogs[part * 60 : part * 60 + 60] *= 0.85
        dogs[part * 60 : part * 60 + 60, one] += 0.15
    others, labels = images(classes("pizza", "lion", "teapot", "iPod", "volcano", "banjo"), 60)
    told = named(np.concatenate([dogs, others]), np.concatenate([np.repeat([0, 1], 60), labels + 2]))
    assert [one.name for one in told[:3]] == ["dog: Chihuahua", "dog: komondor", "pizza"]


def test_where_the_classifier_is_sure_of_nothing_there_is_no_name() -> None:
    random = np.random.default_rng(0)
    flat = random.dirichlet(np.ones(1000), 40).astype(np.float32)
    flat[:20, classes("kite (bird)")] += 0.1  # the same little thing in all, as of noise
    told = named(flat / flat.sum(axis=1, keepdims=True), np.repeat([0, 1], 20))
    assert [one.name for one in told] == [None, None]


def test_pages_of_text_have_no_name_but_are_found_by_words() -> None:
    told = named(*images(classes("website", "menu", "pizza"), 12))
    assert [one.name for one in told] == [None, None, "pizza"]


def test_an_only_cluster_may_have_a_name() -> None:
    (told,) = named(*images(classes("banjo"), 5))
    assert told.name == "banjo"


def test_doubtful_images_weigh_less() -> None:
    probabilities, _ = images(classes("pizza", "lion", "teapot"), 12)
    labels = np.repeat([0, 1], [24, 12])
    sure = np.repeat([1, 0.01, 1], 12).astype(np.float32)
    assert named(probabilities, labels, sure)[0].others[0].word in ("pizza", "dish (food)", "food")


def test_names_do_not_hang_on_the_order_of_the_images() -> None:
    probabilities, labels = images(classes("lion", "hourglass", "go-kart"), 10)
    order = np.random.default_rng(1).permutation(len(labels))
    mixed = named(probabilities[order], labels[order])
    for one, other in zip(named(probabilities, labels), mixed, strict=True):
        assert (one.name, one.wnid) == (other.name, other.wnid)
        assert one.strength == pytest.approx(other.strength, abs=2e-4)


def test_likeliest_classes_are_those_of_a_sort() -> None:
    random = np.random.default_rng(0)
    head = Layer(random.normal(size=(50, 8)).astype(np.float32), random.normal(size=50).astype(np.float32))
    rows = random.normal(size=(5000, 8)).astype(np.float32)
    found = likeliest.of_features([rows[:3000], rows[3000:]], head)
    logits = rows.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.classes.shape == (5000, likeliest.KEPT)
    ranked = -np.sort(-softmax, axis=1)[:, : likeliest.KEPT]
    np.testing.assert_allclose(found.probabilities, ranked, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(softmax, found.classes.astype(int), 1), ranked, rtol=1e-4)


def test_equal_classes_come_in_the_classifiers_order() -> None:
    found = likeliest.of_probabilities([np.full((2, 20), 0.05, np.float32)])
    assert found.classes.tolist() == [list(range(20))] * 2


def test_no_images_have_no_classes() -> None:
    assert len(likeliest.of_probabilities([])) == 0


def test_guesses_are_read_as_they_were_written(tmp_path: Path) -> None:
    told = tuple(named(*images(classes("lion", "pizza"), 8)))
    written = guesses_file.Guesses("ImageNet-1k", medium=told)
    path = tmp_path / GUESSES
    path.write_text(json.dumps(written.to_json()))
    assert guesses_file.read(path) == written
    assert guesses_file.read(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format_version": 2}, "format_version has value 2; expected at most 1"),
        ({"vocabulary": 3}, "vocabulary has value 3"),
        ({"medium": [{"cluster": 1, "name": None, "strength": 0.0, "wnid": None, "others": []}]}, "has clusters"),
        (
            {"medium": [{"cluster": 0, "name": "\x1b[2J", "strength": 1.0, "wnid": None, "others": []}]},
            "medium[0].name",
        ),
    ],
)
def test_guesses_from_elsewhere_are_looked_at(change: dict[str, object], told: str, tmp_path: Path) -> None:
    path = tmp_path / GUESSES
    path.write_text(json.dumps(guesses_file.Guesses("ImageNet-1k").to_json() | change))
    with pytest.raises(RunError) as caught:
        guesses_file.read(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "label", "fits"),
    [
        ("dog", "n02085620", True),
        ("Chihuahua", "dog", True),
        ("antelope", "n02423022", True),
        ("vehicle", "truck", False),  # of over 60 classes
        ("truck", "automobile", False),
        ("car", "automobile", True),
        ("hourglass", "dog", False),
        ("antelope", "deer", False),  # a word, though no class is a deer
        ("dog", "class 7", None),
    ],
)
def test_a_name_agrees_with_a_label_that_is_more_or_less_of_it(word: str, label: str, fits: bool | None) -> None:
    assert agrees(known().kinds[known().said.index(word)].wnid, label, known()) is fits
