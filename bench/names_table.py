"""Make the table of kinds that `shoal.names` reads: words and hypernyms of ImageNet's classes, from WordNet 3.0.

WordNet's database lies where Debian's package `wordnet-base` puts it, lists of classes where timm has them; run:

    python bench/names_table.py /usr/share/wordnet

What WordNet cannot tell stands in names_table.txt: which words people say, and which say nothing.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

HERE = Path(__file__).parent
CHOSEN = HERE / "names_table.txt"
TARGET = HERE.parent / "src" / "shoal" / "data" / "kinds.tsv.gz"

# The letters by which a kind's row tells whose class it is; the order of the classes is that of the ids.
CLASSES = {
    "a": "imagenet_synsets.txt",
    "b": "imagenet12k_synsets.txt",
    "c": "imagenet22k_synsets.txt",
    "d": "imagenet21k_goog_synsets.txt",
    "e": "imagenet21k_miil_synsets.txt",
    "f": "imagenet21k_miil_w21_synsets.txt",
}
PERSON = "n00007846"


@dataclass(slots=True)
class Synset:
    """A noun of WordNet: its lemmas in WordNet's order, and the ids of its hypernyms."""

    lemmas: list[str]
    parents: list[str]


@dataclass(slots=True)
class Chosen:
    """What names_table.txt says, by id."""

    words: dict[str, str] = field(default_factory=dict)  # to say
    also: dict[str, list[str]] = field(default_factory=dict)  # more words to find it by
    marks: dict[str, set[str]] = field(default_factory=dict)  # plain, quiet, mute: the first letter


def main(folder: Path) -> None:
    nouns = read_nouns(folder / "data.noun")
    senses = read_senses(folder / "index.noun")
    counts = read_counts(folder / "cntlist.rev")
    chosen = read_chosen(nouns)
    listed = {letter: set(synsets(file)) for letter, file in CLASSES.items()}
    check(list(map(synsets, CLASSES.values())))
    first = closed(listed["a"], nouns)
    kinds = sorted(first) + sorted(closed(set().union(*listed.values()), nouns) - first)
    place = {wnid: row for row, wnid in enumerate(kinds)}
    nameless = {wnid for wnid in kinds if PERSON in closed({wnid}, nouns) and wnid != PERSON} - first
    lines = []
    for wnid in kinds:
        letters = {letter for letter, ids in listed.items() if wnid in ids}
        marks = "".join(sorted(letters | chosen.marks.get(wnid, set())))
        words = [] if wnid in nameless else words_of(wnid, nouns, senses, chosen)
        told = (f"{word}:{count}" if (count := counted(word, wnid, senses, counts)) else word for word in words)
        parents = " ".join(str(place[parent]) for parent in nouns[wnid].parents)
        lines.append("\t".join((wnid, marks, parents, "|".join(told))))
    text = "\n\n".join("\n".join(part) for part in (lines[: len(first)], lines[len(first) :]))
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{TARGET}: {len(kinds):,} kinds, {len(first):,} of ImageNet-1k, {TARGET.stat().st_size:,} bytes")


def read_nouns(path: Path) -> dict[str, Synset]:
    """data.noun: offset, file, type, count of words (hex), words with a number each, count of pointers, pointers."""
    found = {}
    for line in entries(path):
        fields = line.partition(" | ")[0].split()
        words = 2 * int(fields[3], 16)
        pointers = fields[5 + words :]
        steps = zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False)
        parents = ["n" + offset for symbol, offset, kind in steps if symbol in ("@", "@i") and kind == "n"]
        found["n" + fields[0]] = Synset([word.replace("_", " ") for word in fields[4 : 4 + words : 2]], parents)
    return found


def read_senses(path: Path) -> dict[tuple[str, str], int]:
    """index.noun: which meaning of a word (lower case) an id is, from 1, the commonest first."""
    found = {}
    for line in entries(path):
        fields = line.split()
        for number, offset in enumerate(fields[-int(fields[2]) :], 1):
            found[fields[0].replace("_", " "), "n" + offset] = number
    return found


def read_counts(path: Path) -> dict[tuple[str, int], int]:
    """cntlist.rev: how often a word had each of its meanings in texts that people have read for it."""
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        sense, number, count = line.split()
        lemma, _, rest = sense.partition("%")
        if rest.startswith("1:"):
            found[lemma.replace("_", " "), int(number)] = int(count)
    return found


def read_chosen(nouns: dict[str, Synset]) -> Chosen:
    """Lines of names_table.txt: `quiet ID WORD`, `plain …`, `mute …`, `say ID WORDS`, `also ID WORDS, WORDS`."""
    chosen = Chosen()
    for line in CHOSEN.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        what, wnid, words = line.split(maxsplit=2)
        if wnid not in nouns:
            raise SystemExit(f"{CHOSEN}: {line!r} names no noun of WordNet 3.0")
        match what:
            case "quiet" | "plain" | "mute":
                if words not in nouns[wnid].lemmas:
                    raise SystemExit(f"{CHOSEN}: {line!r} has another word than WordNet's {nouns[wnid].lemmas}")
                chosen.marks.setdefault(wnid, set()).add(what[0])
            case "say":
                chosen.words[wnid] = words
            case "also":
                chosen.also[wnid] = words.split(", ")
            case _:
                raise SystemExit(f"{CHOSEN}: {line!r} is none of quiet, plain, mute, say, also")
    return chosen


def entries(path: Path) -> Iterator[str]:
    """Lines without the licence at the head of the file."""
    return (line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith("  "))


def synsets(file: str) -> list[str]:
    return resources.files("timm.data").joinpath("_info", file).read_text(encoding="ascii").split()


def check(lists: Iterable[list[str]]) -> None:
    """Classes are told by a letter alone because every list is in the order of its ids."""
    for ids in lists:
        if ids != sorted(set(ids)):
            raise SystemExit("a list of classes is not in the order of its ids")
    first, _, most = [set(ids) for ids in lists][:3]
    later = synsets("imagenet22k_ms_synsets.txt")
    if later != sorted(first) + sorted(most - first):
        raise SystemExit("Microsoft's list is not ImageNet-1k's classes and then the others")


def closed(wnids: set[str], nouns: dict[str, Synset]) -> set[str]:
    """With all their ancestors."""
    found, left = set(wnids), list(wnids)
    while left:
        for parent in nouns[left.pop()].parents:
            if parent not in found:
                found.add(parent)
                left.append(parent)
    return found


def words_of(wnid: str, nouns: dict[str, Synset], senses: dict[tuple[str, str], int], chosen: Chosen) -> list[str]:
    """The word to say, then the others to find it by."""
    lemmas = nouns[wnid].lemmas
    said = chosen.words.get(wnid) or spoken(lemmas, wnid, senses)
    return list(dict.fromkeys([said, *lemmas, *chosen.also.get(wnid, [])]))


def spoken(lemmas: list[str], wnid: str, senses: dict[tuple[str, str], int]) -> str:
    """The first lemma; where that means something else first, one that has it in it: monarch, *monarch butterfly*."""
    first = lemmas[0]
    if senses.get((first.lower(), wnid)) == 1:
        return first
    longer = (word for word in lemmas[1:] if first in word.split() and senses.get((word.lower(), wnid)) == 1)
    return next(longer, first)


def counted(word: str, wnid: str, senses: dict[tuple[str, str], int], counts: dict[tuple[str, int], int]) -> int:
    return counts.get((word.lower(), senses.get((word.lower(), wnid), 0)), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
