"""Queries in words, and the images they find, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.names import finding, likeliest
from shoal.names.kinds import Vocabulary, vocabulary
from shoal.names.words import Term, parse


def known() -> Vocabulary:
    found = vocabulary()
    assert found is not None
    return found


def meant(query: str) -> list[str]:
    """The terms of a query, each the words for its kinds, after a minus if it has one."""
    words = known()
    return ["-" * term.is_minus + "/".join(words.said[one] for one in term.kinds) for term in parse(query, words).terms]


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("penguin", ["penguin"]),
        ("Penguins", ["penguin"]),
        ("polar bears", ["polar bear"]),
        ("polar-bear", ["polar bear"]),
        ("icecream hotdog", ["ice cream", "hot dog"]),
        ("mice geese wolves people", ["computer mouse", "goose", "wolf", "person"]),
        ("buses churches strawberries", ["bus", "church", "strawberry"]),
        ("crane", ["crane (bird)/crane (machine)"]),
        ("crane (machine)", ["crane (machine)"]),
        ("cats, dogs", ["cat", "dog"]),
        ("cat -dog", ["cat", "-dog"]),
        ("-dog cat", ["-dog", "cat"]),
        ('bear -"polar bear"', ["bear", "-polar bear"]),
        ("bear -polar bear", ["bear", "-polar bear"]),
        ('"great white" shark', ["shark"]),
        ("plane", ["airplane"]),
        ("automobile beach couch", ["car", "seashore", "sofa"]),
        ("consomme consommé", ["consommé", "consommé"]),
        ("", []),
        ('- -- "" \'', []),
    ],
)
def test_words_mean_their_kinds(query: str, terms: list[str]) -> None:
    assert meant(query) == terms


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("ice", "ice cream"),
        ("snow", "snow leopard"),
        ("sparrow", "bird"),  # what it is a kind of
        ("sunflower", "flower"),
        ("pengiun", "penguin"),
        ("monach", "monarch"),
    ],
)
def test_what_is_not_known_is_told_with_what_is_near(word: str, near: str) -> None:
    query = parse(word, known())
    assert not query.terms
    (unknown,) = query.unknown
    assert unknown.text == word
    assert near in unknown.near
    assert [one.told for one in query.unknown] == [
        f"{word!r} is no word that is known here; near it: {', '.join(unknown.near)}"
    ]


def test_what_is_near_nothing_is_told_without() -> None:
    assert [one.told for one in parse("qzxv", known()).unknown] == ["'qzxv' is no word that is known here"]


def test_several_meanings_and_other_words_are_told() -> None:
    assert parse("crane", known()).told(known()) == ["'crane' means crane (bird), crane (machine): all of them"]
    assert parse("mice", known()).told(known()) == ["'mice' is taken as computer mouse"]
    assert parse("dogs", known()).told(known()) == []


def test_every_word_that_is_said_is_found_by_itself() -> None:
    words = known()
    for place, said in enumerate(words.said):
        found = {kind for term in parse(f'"{said}"', words).terms for kind in term.kinds}
        assert found & set(words.ancestors(place)), said  # itself, or what it is a kind of and shares the word with


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_query(text: str) -> None:
    query = parse(text, known())
    assert all(term.kinds for term in query.terms)
    assert all("\n" not in line for line in (*query.told(known()), *(one.told for one in query.unknown)))


def some(count: int, seed: int = 0) -> likeliest.Likeliest:
    random = np.random.default_rng(seed)
    return likeliest.of_probabilities([random.dirichlet(np.full(1000, 0.02), count).astype(np.float32)])


@pytest.mark.parametrize(
    "query", ["bird", "dog -terrier", "crane", "boat bird -duck -goose", "animal", "fruit -banana"]
)
def test_scores_are_those_of_plain_loops(query: str) -> None:
    words, table, count = known(), some(40), 40
    random = np.random.default_rng(1)
    near = random.integers(-1, count, (count, 30), dtype=np.int32)
    near[0] = -1
    found = finding.scores(parse(query, words), table, words, near)
    lines = [set(words.ancestors(place)) for place in words.classes.tolist()]

    terms = parse(query, words).terms
    unwanted = {kind for term in terms if term.is_minus for kind in term.kinds}

    def evidence(image: int, term: Term) -> float:
        pairs = zip(table.classes[image].tolist(), table.probabilities[image].tolist(), strict=True)
        there = [(p, lines[one]) for one, p in pairs if lines[one] & set(term.kinds)]
        return sum(p for p, line in there if term.is_minus or not line & unwanted)

    for image in range(count):
        around = [one for one in near[image, : finding.NEIGHBOURS].tolist() if one >= 0]
        logs, kept = [], 1.0
        for term in terms:
            own = evidence(image, term)
            mean = sum(evidence(one, term) for one in around) / len(around) if around else own
            if term.is_minus:
                kept *= 1 - (own + mean) / 2
            else:
                logs.append(math.log((own + mean) / 2 + finding.FLOOR))
        assert found[image] == pytest.approx(math.exp(sum(logs) / len(logs)) * kept, rel=1e-3, abs=1e-7)


def test_bird_finds_every_bird_and_minus_takes_away() -> None:
    words = known()
    said = [words.said[place] for place in words.classes.tolist()]
    shown = ["goose", "flamingo", "teapot", "kite (bird)", "banana"]
    probabilities = np.full((5, 1000), 1e-4, np.float32)
    probabilities[np.arange(5), [said.index(one) for one in shown]] = 0.9
    table = likeliest.of_probabilities([probabilities])
    birds = finding.best(finding.scores(parse("birds", words), table, words), 3)
    assert {shown[row] for row in birds.tolist()} == {"goose", "flamingo", "kite (bird)"}
    fewer = finding.best(finding.scores(parse("birds -flamingo", words), table, words), 2)
    assert {shown[row] for row in fewer.tolist()} == {"goose", "kite (bird)"}
    other_fruit = finding.scores(parse("fruit -banana", words), table, words)
    assert other_fruit[shown.index("banana")] < 0.01


def test_an_image_is_found_by_its_neighbours_classes_too() -> None:
    words = known()
    table = some(6)
    near = np.array([[1], [0], [3], [2], [5], [4]], np.int32)
    alone = finding.scores(parse("dog", words), table, words)
    both = finding.scores(parse("dog", words), table, words, near)
    np.testing.assert_allclose(both, (alone + alone[near[:, 0]]) / 2, rtol=1e-4, atol=2 * finding.FLOOR)


def test_there_has_to_be_something_to_look_for() -> None:
    with pytest.raises(ValueError, match="no known word"):
        finding.scores(parse("-dog", known()), some(3), known())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30), st.integers(0, 40))
def test_the_best_come_first_and_equal_ones_by_row(values: list[float], count: int) -> None:
    found = finding.best(np.array(values, np.float32), count).tolist()
    assert found == sorted(range(len(values)), key=lambda row: (-values[row], row))[:count]
