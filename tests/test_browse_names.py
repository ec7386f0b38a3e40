"""What the page's server says of names that were guessed, and of images found by words."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from named_run import EACH, KINDS, named_run
from page_client import clusters, edit, members, open_page
from shoal.browse import guesses as page_guesses
from shoal.find import find
from shoal.names import guesses_file
from shoal.rundir import RunDir
from shoal.runfiles import GUESSES

DOGS = ("Chihuahua", "komondor", "pug")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody changes it."""
    return named_run(tmp_path_factory.mktemp("named") / "run.shoal").root


@pytest.fixture
def client(kept: Path, tmp_path: Path) -> TestClient:
    return open_page(Path(shutil.copytree(kept, tmp_path / "run.shoal")))


def guesses(client: TestClient, level: str = "chosen") -> dict[int, str]:
    return {number: card["guess"]["name"] for number, card in clusters(client, level).items() if card["guess"]}


def numbers_of(client: TestClient, kinds: Sequence[str]) -> list[int]:
    places = {name: number for number, name in guesses(client).items()}
    return [places[kind] for kind in kinds]


def ids_of(*kinds: str) -> set[int]:
    return {KINDS.index(kind) * EACH + place for kind in kinds for place in range(EACH)}


def found(client: TestClient, words: str, **options: Any) -> dict[str, Any]:
    answer = client.get("/api/find", params={"words": words, "limit": 1000, **options})
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    return values


# -- names -------------------------------------------------------------------------------------------------------------


def test_cards_tell_what_clusters_may_show_and_how_strongly(client: TestClient) -> None:
    cards = clusters(client).values()
    assert {card["guess"]["name"] for card in cards} == set(KINDS)
    for card in cards:
        assert card["name"] is None
        assert card["guess"]["strength"] > 0
        others = [other["strength"] for other in card["guess"]["others"]]
        assert 0 < len(others) <= 5
        assert others == sorted(others, reverse=True)


def test_of_many_images_guesses_follow_the_clusters(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_guesses, "QUICK", 0)
    listed = client.get("/api/clusters").json()
    assert not listed["guesses_follow"]  # the run has them
    before = guesses(client)
    banana, pug, goldfish = numbers_of(client, ["banana", "pug", "goldfish"])
    edit(client, "move", ids=members(client, banana)[:2], cluster=pug)
    listed = client.get("/api/clusters").json()
    assert listed["guesses_follow"]
    told = {card["id"]: card["guess"] for card in listed["clusters"]}
    assert told[banana] is told[pug] is None
    assert told[goldfish]["name"] == before[goldfish]
    follow = client.get("/api/guesses").json()
    assert (follow["version"], follow["base"]) == (listed["version"], listed["base"])
    later = client.get("/api/clusters").json()
    assert not later["guesses_follow"]
    assert {one["id"]: one["guess"] for one in follow["guesses"]} == {
        card["id"]: card["guess"] for card in later["clusters"] if card["guess"]
    }
    monkeypatch.undo()
    at_once = open_page(client.app.state.site.folder)  # type: ignore[attr-defined]
    assert clusters(at_once) == {card["id"]: card for card in later["clusters"]}


def test_a_guess_that_is_accepted_is_a_name_like_any_other(client: TestClient) -> None:
    (number,) = numbers_of(client, ["banana"])
    guess = clusters(client)[number]["guess"]
    assert edit(client, "rename", cluster=number, name=guess["name"]).json()["changed"] == [number]
    card = clusters(client)[number]
    assert (card["name"], card["guess"]) == ("banana", guess)
    edit(client, "undo")
    card = clusters(client)[number]
    assert (card["name"], card["guess"]) == (None, guess)
    edit(client, "redo")
    assert clusters(client)[number]["name"] == "banana"


def test_corrections_that_move_images_rename_at_once(client: TestClient) -> None:
    before = guesses(client)
    dogs = numbers_of(client, DOGS)
    edit(client, "merge", clusters=dogs)
    assert guesses(client)[dogs[0]] == "dog"
    edit(client, "move", ids=sorted(ids_of("pug")), cluster=None)
    after = set(guesses(client).values())
    assert "pug" in after
    assert "dog" not in after
    edit(client, "undo")
    edit(client, "undo")
    assert guesses(client) == before


def test_nothing_is_guessed_of_the_noise(client: TestClient) -> None:
    edit(client, "noise", ids=sorted(ids_of("pug")))
    (noise,) = [card for card in clusters(client).values() if card["noise"]]
    assert noise["guess"] is None


def test_a_split_is_previewed_with_what_its_parts_show(client: TestClient) -> None:
    first, second = numbers_of(client, ["banana", "goldfish"])
    edit(client, "merge", clusters=[first, second])
    preview = client.post("/api/split/preview", json={"cluster": first, "parts": 2}).json()
    assert {part["guess"]["name"] for part in preview["parts"]} == {"banana", "goldfish"}
    edit(client, "split", cluster=first, token=preview["token"])
    assert set(guesses(client).values()) == set(KINDS)


def test_levels_have_the_names_that_the_run_has_for_them(client: TestClient, kept: Path) -> None:
    written = guesses_file.read(RunDir.open(kept).model / GUESSES)
    assert written is not None
    for level, stored in (("coarse", written.coarse), ("fine", written.fine)):
        told = sorted(guesses(client, level).values())
        assert told == sorted(one.name for one in stored if one.name is not None)
        assert len(set(told)) == len(told) > 0


def test_levels_follow_corrections(client: TestClient) -> None:
    dogs = numbers_of(client, DOGS)
    edit(client, "noise", ids=sorted(ids_of(*DOGS)))
    assert not set(dogs) & set(clusters(client))
    for level in ("coarse", "fine"):
        shown = [card for number, card in clusters(client, level).items() if number in guesses(client, level)]
        assert sum(card["size"] for card in clusters(client, level).values()) == len(KINDS) * EACH + 1
        assert shown


def test_a_run_without_a_classifier_has_no_names_and_says_why(tmp_path: Path) -> None:
    client = open_page(named_run(tmp_path / "run.shoal", has_classifier=False).root)
    assert guesses(client) == {}
    why = client.get("/api/run").json()["why_no_words"]
    assert "without a classifier whose words are known" in why
    answer = client.get("/api/find", params={"words": "dog"})
    assert answer.status_code == 404
    assert answer.json()["error"] == why


# -- words -------------------------------------------------------------------------------------------------------------


def test_words_find_what_the_command_finds(client: TestClient, kept: Path) -> None:
    told = found(client, "dog -Chihuahua", limit=EACH)
    expected = find(RunDir.open(kept), "dog -Chihuahua", EACH).images
    assert [(one["id"], one["cluster"]) for one in told["images"]] == [(one.id, one.cluster) for one in expected]
    assert [one["score"] for one in told["images"]] == pytest.approx([one.score for one in expected], abs=1e-4)
    assert {one["id"] for one in told["images"]} <= ids_of("komondor", "pug")
    assert told["unknown"] == told["notes"] == []


def test_what_is_found_comes_in_pages_and_holds_nothing_that_does_not_fit(client: TestClient) -> None:
    whole = found(client, "banana")
    assert {one["id"] for one in whole["images"]} >= ids_of("banana")
    assert whole["total"] == len(whole["images"]) < len(KINDS) * EACH
    starts = range(0, whole["total"] + 10, 10)
    parts = [one for start in starts for one in found(client, "banana", offset=start, limit=10)["images"]]
    assert parts == whole["images"]
    assert found(client, "submarine") == {**whole, "total": 0, "images": []}


def test_what_is_found_is_in_the_clusters_as_they_are_now(client: TestClient) -> None:
    banana, pug = numbers_of(client, ["banana", "pug"])
    moved = members(client, banana)[0]
    edit(client, "move", ids=[moved], cluster=pug)
    told = {one["id"]: one["cluster"] for one in found(client, "banana")["images"]}
    assert told[moved] == pug
    assert {cluster for image, cluster in told.items() if image in ids_of("banana") - {moved}} == {banana}


def test_words_that_are_not_known_are_answered_with_near_ones(client: TestClient) -> None:
    told = found(client, "sparrow banana qzxv")
    assert told["unknown"] == [{"text": "sparrow", "near": ["bird"]}, {"text": "qzxv", "near": []}]
    assert told["images"] == []
    assert found(client, "crane")["notes"] == ["'crane' means crane (bird), crane (machine): all of them"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [("-dog", 400, "expected a word to look for"), ("", 400, "expected a word to look for"), ("x" * 201, 422, "words")],
)
def test_what_cannot_be_looked_for_is_told(client: TestClient, words: str, status: int, told: str) -> None:
    answer = client.get("/api/find", params={"words": words})
    assert answer.status_code == status
    assert told in answer.json()["error"]
