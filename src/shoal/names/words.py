"""What a query means among the kinds that a classifier knows: `penguin ice-cream -"polar bear"`.

Words stand for all that they are words for, in the singular or the plural, and for all kinds of it: bird finds every
bird. What is not known is told with the nearest words that are.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from shoal.names.kinds import LISTS, QUIET, Vocabulary, vocabulary

NEAR: Final = 5  # words that are told for one that is not known
ALIKE: Final = 0.8  # difflib's ratio, of words that may have been meant
RARE: Final = 10  # a meaning so many times rarer than another of the word is not meant
LONGEST: Final = 6  # words of a phrase
TOKEN: Final = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')
IRREGULAR: Final = {
    "mice": "mouse", "geese": "goose", "oxen": "ox", "people": "person", "children": "child", "feet": "foot",
    "teeth": "tooth", "lice": "louse", "fungi": "fungus", "cacti": "cactus", "octopi": "octopus", "dice": "die",
    "scarves": "scarf", "buses": "bus", "busses": "bus", "buffaloes": "buffalo", "mosquitoes": "mosquito",
}  # fmt: skip
ENDINGS: Final = (  # of plurals, WordNet's own rules
    ("men", "man"), ("ves", "f"), ("ves", "fe"), ("ies", "y"), ("ies", "ie"), ("ses", "s"), ("xes", "x"),
    ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("oes", "o"), ("s", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Term:
    """One word or phrase of a query, and the kinds that it may mean: places in the vocabulary."""

    text: str
    kinds: tuple[int, ...]
    is_minus: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A word that no kind has, and the nearest ones that some have, the nearest first."""

    text: str
    near: tuple[str, ...]

    @property
    def told(self) -> str:
        """A sentence for the person."""
        near = f"; near it: {', '.join(self.near)}" if self.near else ""
        return f"{self.text!r} is no word that is known here{near}"


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked, in words that are known, and what is not known."""

    terms: tuple[Term, ...]
    unknown: tuple[Unknown, ...]

    def told(self, words: Vocabulary) -> list[str]:
        """A line for each word that means several things, or is said otherwise here."""
        lines = []
        for term in self.terms:
            said = [words.said[kind] for kind in term.kinds]
            if len(said) > 1:
                lines.append(f"{term.text!r} means {', '.join(said)}: all of them")
            elif _key(said[0]) not in _singulars(_key(term.text)):
                lines.append(f"{term.text!r} is taken as {said[0]}")
        return lines


def parse(query: str, known: Vocabulary) -> Query:
    """What a query means: words and phrases, the longest first; "in quotes" as one; -minus what must not be shown."""
    index = _index(known)
    terms: list[Term] = []
    unknown: list[Unknown] = []
    for is_minus, tokens, is_whole in _groups(query):
        left = tokens
        while left:
            sizes = [len(left)] if is_whole else range(min(LONGEST, len(left)), 0, -1)
            size = next((size for size in sizes if _find(left[:size], index)), None)
            taken = size or (len(left) if is_whole else 1)
            text = " ".join(left[:taken])
            if size is None:
                unknown.append(Unknown(text, _nearest(text, known)))
            else:
                terms.append(Term(text, _meant(_find(left[:size], index), known), is_minus and left is tokens))
            left = left[taken:]
    return Query(tuple(dict.fromkeys(terms)), tuple(dict.fromkeys(unknown)))


def _groups(query: str) -> Iterator[tuple[bool, list[str], bool]]:
    """Runs of words: whether they begin with a minus, the words, whether quotes hold them together."""
    run: list[str] = []
    is_minus = False
    for minus, quoted, plain in TOKEN.findall(query.replace(",", " ")):
        if minus or quoted:
            if run:
                yield is_minus, run, False
            run, is_minus = [], bool(minus)
        if quoted:
            yield bool(minus), quoted.split(), True
            is_minus = False
        elif plain and _key(plain):
            run.append(plain)
    if run:
        yield is_minus, run, False


Found = tuple[tuple[int, int], ...]  # kinds of a word: place, count of the meaning


@cache
def _index(known: Vocabulary) -> dict[str, Found]:
    found: dict[str, dict[int, int]] = {}
    for place, kind in enumerate(known.kinds):
        for word, count in zip(kind.words, kind.counts, strict=True):
            places = found.setdefault(_key(word), {})
            places[place] = max(places.get(place, 0), count)
    for place, said in enumerate(known.said):
        if said:  # whatever else the word means, what is said so here is meant too
            places = found.setdefault(_key(said), {})
            places[place] = max(places.values(), default=0)
    return {key: tuple(places.items()) for key, places in found.items()}


def _find(words: Sequence[str], index: dict[str, Found]) -> Found:
    """The kinds of a phrase as it is, or of the singular of its last word."""
    *first, last = (_key(word) for word in words)
    for form in _singulars(last):
        if found := index.get("".join([*first, form])):
            return found
    return ()


def _singulars(word: str) -> Iterator[str]:
    yield word
    if word in IRREGULAR:
        yield IRREGULAR[word]
    for plural, singular in ENDINGS:
        if word.endswith(plural) and len(word) > len(plural) + 1:
            yield word.removesuffix(plural) + singular


def _key(word: str) -> str:
    """Letters and digits alone, small, without accents: hot-dog, hot dog and hotdog are one."""
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def _meant(found: Found, known: Vocabulary) -> tuple[int, ...]:
    """The meanings that are not rare beside another, without those that are kinds of one of them."""
    most = max(count for _, count in found)
    usual = [place for place, count in found if count * RARE >= most]
    above = {place: set(known.ancestors(place)[1:]) for place in usual}
    return tuple(place for place in usual if not above[place] & set(usual))


def _nearest(text: str, known: Vocabulary) -> tuple[str, ...]:
    """Known words near one that is not: what it is a kind of, phrases with it in them, words that are written alike."""
    words = {word: place for place, kind in enumerate(known.kinds) for word in kind.words}
    forms = set(_singulars(_key(text)))
    holding = sorted((word for word in words if forms & set(map(_key, re.split(r"[ -]", word)))), key=len)
    alike = difflib.get_close_matches(text.casefold(), list(words), NEAR, ALIKE)
    near = {words[word]: word for word in reversed([*_broader(text, known), *holding, *alike])}
    return tuple(reversed(near.values()))[:NEAR]


def _broader(text: str, known: Vocabulary) -> Iterator[str]:
    """The nearest known kinds of what is a word in the largest vocabulary: bird, of sparrow."""
    every = vocabulary(max(LISTS))
    assert every is not None
    found = _find(text.split(), _index(every))
    for place in _meant(found, every) if found else ():
        for above in every.ancestors(place):
            here = known.place(every.kinds[above].wnid)
            if here is not None and known.kinds[here].words and QUIET not in known.kinds[here].marks:
                yield known.kinds[here].words[0]
                break
