"""Kinds of thing: ImageNet's classes with their hypernyms and words, from WordNet 3.0 (bench/names_table.py made them).

What is a kind of what is no tree: a police dog is a dog and a domestic animal.
"""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PLAIN, QUIET, MUTE = "p", "q", "m"
FIRST: Final = "a"
OWN: Final = "words of one's own"
LISTS: Final = {  # of classes, by how many there are: the letters of their kinds, the classes that come first
    1000: ("ImageNet-1k", FIRST, ""),
    11821: ("ImageNet-12k", "b", ""),
    21841: ("ImageNet-22k", "c", ""),
    21842: ("ImageNet-22k of Microsoft", "ca", "a"),
    21843: ("ImageNet-21k of Google", "d", ""),
    11221: ("ImageNet-21k-P", "e", ""),
    10450: ("ImageNet-21k-P of winter 2021", "f", ""),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A noun of WordNet, or a word of a person's own."""

    wnid: str  # empty of a person's own word
    words: tuple[str, ...]  # the first is the one to say; none for classes of people whom ImageNet judges
    counts: tuple[int, ...]  # how often each word meant this in texts that people have read for it
    parents: tuple[int, ...]  # places among `Vocabulary.kinds`
    marks: str  # of PLAIN, QUIET, MUTE


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A classifier's classes and all that they are kinds of."""

    name: str
    kinds: tuple[Kind, ...]
    classes: Ints  # [classes] the place of each class's kind

    @property
    def is_own(self) -> bool:
        """Are they words of a person's own, of which nothing is known?"""
        return self.name == OWN

    @cached_property
    def members(self) -> Any:
        """Which classes are of which kind: scipy CSR float32 of ones, [kinds, classes]; each class once a kind."""
        kinds, classes = [], []
        for number, place in enumerate(self.classes.tolist()):
            held = self.ancestors(place)
            kinds += held
            classes += [number] * len(held)
        ones = np.ones(len(kinds), np.float32)
        return sparse.csr_array((ones, (kinds, classes)), shape=(len(self.kinds), len(self.classes)))

    @cached_property
    def sizes(self) -> Ints:
        """How many classes each kind has, [kinds]."""
        found: Ints = np.diff(self.members.indptr).astype(np.int64)
        return found

    @cached_property
    def said(self) -> tuple[str, ...]:
        """The word to say for each kind, no word for two: *crane (bird)*, *crane (machine)*."""
        first = [kind.words[0] if kind.words else "" for kind in self.kinds]
        owners: dict[str, list[int]] = {}
        for place in sorted(range(len(first)), key=lambda place: QUIET in self.kinds[place].marks):
            owners.setdefault(first[place], []).append(place)
        told = list(first)
        for word, places in owners.items():
            only_one_is_said = sum(QUIET not in self.kinds[place].marks for place in places) == 1
            for place in places[only_one_is_said:] if word and len(places) > 1 else []:
                told[place] = f"{word} ({self._apart(place, word)})"
        twice = {word for word, count in Counter(told).items() if count > 1 and word}
        return tuple(f"{word}, {self.kinds[place].wnid}" if word in twice else word for place, word in enumerate(told))

    def marked(self, mark: str) -> Bools:
        """Which kinds have a mark, [kinds]."""
        return np.array([mark in kind.marks for kind in self.kinds])

    def ancestors(self, place: int) -> list[int]:
        """The places of all that a kind is a kind of, itself first, the nearest before the farther."""
        found = [place]
        for one in found:
            found += [parent for parent in self.kinds[one].parents if parent not in found]
        return found

    def place(self, wnid: str) -> int | None:
        """The place of the kind with a WordNet id such as n02084071; None: it is none of these."""
        return self._places.get(wnid)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {kind.wnid: place for place, kind in enumerate(self.kinds)}

    def _apart(self, place: int, word: str) -> str:
        """The word of the nearest ancestor that has another one and is said; else of any."""
        others = [self.kinds[one] for one in self.ancestors(place)[1:]]
        named = [kind for kind in others if kind.words and kind.words[0] != word]
        spoken = [kind for kind in named if QUIET not in kind.marks]
        return next(iter(spoken or named)).words[0] if named else self.kinds[place].wnid


@cache
def vocabulary(classes: int = 1000) -> Vocabulary | None:
    """The kinds of a classifier with so many classes, in its order; None: nothing is known of such a one."""
    if classes not in LISTS:
        return None
    name, letters, first = LISTS[classes]
    rows = _rows(with_larger_lists=letters != FIRST)
    own = [row for row, (_, marks, *_) in enumerate(rows) if any(letter in marks for letter in letters)]
    own.sort(key=lambda row: (bool(first) and first not in rows[row][1], rows[row][0]))
    parents = _parents(rows, own)
    places = {row: place for place, row in enumerate(sorted(parents))}
    kinds = tuple(_kind(rows[row], tuple(places[parent] for parent in parents[row])) for row in places)
    return Vocabulary(name, kinds, np.array([places[row] for row in own], np.int64))


@cache
def own_vocabulary(words: tuple[str, ...]) -> Vocabulary:
    """Words of a person's own as classes, none of them a kind of another."""
    return Vocabulary(OWN, tuple(Kind("", (word,), (0,), (), "") for word in words), np.arange(len(words)))


def _parents(rows: list[list[str]], own: list[int]) -> dict[int, list[int]]:
    """Rows of the hypernyms of rows, and of those in turn."""
    found: dict[int, list[int]] = {}
    left = list(own)
    while left:
        row = left.pop()
        if row not in found:
            found[row] = list(map(int, rows[row][2].split()))
            left += found[row]
    return found


def _kind(row: list[str], parents: tuple[int, ...]) -> Kind:
    wnid, marks, _, words = row
    told = [word.partition(":") for word in words.split("|")] if words else []
    counts = tuple(int(count or 0) for _, _, count in told)
    own = "".join(mark for mark in marks if mark in PLAIN + QUIET + MUTE)
    return Kind(wnid, tuple(word for word, _, _ in told), counts, parents, own)


@cache
def _rows(with_larger_lists: bool) -> list[list[str]]:
    """Lines of the table: id, letters of its lists and marks, rows of its hypernyms, words with their counts.

    Those of ImageNet-1k come first, and need none of the others.
    """
    packed = resources.files("shoal").joinpath("data", "kinds.tsv.gz").read_bytes()
    first, _, others = gzip.decompress(packed).decode().partition("\n\n")
    lines = first.split("\n") + (others.split("\n") if with_larger_lists else [])
    return [line.split("\t") for line in lines]
