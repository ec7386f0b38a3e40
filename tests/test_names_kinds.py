"""The table of kinds: what is committed is whole, is WordNet's, and reads as people speak."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shoal.names.guesses import LARGEST, sayable
from shoal.names.kinds import LISTS, PLAIN, QUIET, Vocabulary, vocabulary

ROOT = Path(__file__).parents[1]
WORDNET = Path("/usr/share/wordnet")
FILES = {
    1000: "imagenet_synsets",
    11821: "imagenet12k_synsets",
    21841: "imagenet22k_synsets",
    21842: "imagenet22k_ms_synsets",
    21843: "imagenet21k_goog_synsets",
    11221: "imagenet21k_miil_synsets",
    10450: "imagenet21k_miil_w21_synsets",
}


def known(classes: int = 1000) -> Vocabulary:
    found = vocabulary(classes)
    assert found is not None
    return found


def place(wnid: str, words: Vocabulary) -> int:
    found = words.place(wnid)
    assert found is not None
    return found


def test_classes_are_in_the_order_of_timms_lists() -> None:
    info = importlib.resources.files("timm.data") / "_info"
    assert set(FILES) == set(LISTS)
    for classes, file in FILES.items():
        words = known(classes)
        assert [words.kinds[one].wnid for one in words.classes] == (info / f"{file}.txt").read_text().split()


@pytest.mark.parametrize("classes", [1000, 11821, 21842])
def test_every_kind_is_above_a_class_and_ends_at_the_one_root(classes: int) -> None:
    words = known(classes)
    assert (words.sizes > 0).all()
    assert [kind.wnid for kind in words.kinds if not kind.parents] == ["n00001740"]
    assert words.sizes[place("n00001740", words)] == classes  # each class once, though there are several ways up
    for one in range(0, len(words.kinds), 97):
        assert one not in words.ancestors(one)[1:]


def test_a_police_dog_is_a_dog_and_a_domestic_animal() -> None:
    words = known()
    above = {words.kinds[one].wnid for one in words.ancestors(place("n02106662", words))}  # German shepherd
    assert {"n02084071", "n01317541", "n01861778"} <= above
    assert words.sizes[place("n02084071", words)] == 118
    assert words.sizes[place("n01503061", words)] == 59


@pytest.mark.parametrize("classes", list(LISTS))
def test_no_two_kinds_are_said_alike(classes: int) -> None:
    said = Counter(word for word in known(classes).said if word)
    assert said.most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("wnid", "word"),
    [
        ("n02279972", "monarch butterfly"),
        ("n02012849", "crane (bird)"),
        ("n03126707", "crane (machine)"),
        ("n02084071", "dog"),
        ("n02402425", "cow"),
        ("n02391049", "zebra"),
        ("n02085620", "Chihuahua"),
        ("n03584254", "iPod"),
        ("n07555863", "food"),
        ("n02814533", "station wagon"),
    ],
)
def test_words_are_those_that_people_say(wnid: str, word: str) -> None:
    assert known().said[place(wnid, known())] == word


def test_a_plain_word_stands_for_the_one_class_that_is_all_there_is_of_it() -> None:
    words, may = known(), sayable(known())
    for said, unsaid in (("horse", "sorrel horse"), ("penguin", "king penguin"), ("hourglass", "sandglass")):
        assert may[words.said.index(said)]
        assert not may[words.said.index(unsaid)]


def test_what_says_nothing_is_no_name_however_few_classes_it_has() -> None:
    words, may = known(), sayable(known())
    said = {word for word, is_one in zip(words.said, may, strict=True) if is_one}
    assert {"dog", "bird", "vehicle", "insect", "boat", "hourglass"} <= said
    assert not {"artifact", "vertebrate", "arthropod", "instrumentality", "website", "menu"} & said
    large = words.sizes > LARGEST
    assert all(PLAIN in words.kinds[one].marks for one in np.flatnonzero(may & large))
    assert not (may & words.marked(QUIET)).any()


def test_people_are_not_named_by_what_the_larger_lists_call_them() -> None:
    words = known(21841)
    person = place("n00007846", words)
    below = [one for one in words.classes.tolist() if person in words.ancestors(one)[1:]]
    assert len(below) > 2000
    first = {kind.wnid for kind in known().kinds}
    assert all(not words.kinds[one].words for one in below if words.kinds[one].wnid not in first)


def test_a_classifier_with_another_number_of_classes_has_no_kinds() -> None:
    assert vocabulary(365) is None


def test_the_licence_of_wordnet_comes_with_the_package() -> None:
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert 'license-files = ["LICENSE", "NOTICE"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.skipif(not WORDNET.is_dir(), reason="needs Debian's wordnet-base")
def test_the_table_is_what_its_script_makes(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, 'bench'); import names_table; from pathlib import Path; "
    code += "names_table.TARGET = Path(sys.argv[2]); names_table.main(Path(sys.argv[1]))"
    made = tmp_path / "kinds.tsv.gz"
    subprocess.run([sys.executable, "-c", code, str(WORDNET), str(made)], cwd=ROOT, check=True, capture_output=True)
    assert made.read_bytes() == (ROOT / "src" / "shoal" / "data" / "kinds.tsv.gz").read_bytes()
