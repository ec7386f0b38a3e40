"""Whether a name is a label's word, or one for more or less than it."""

from __future__ import annotations

from functools import lru_cache

from shoal.names.guesses import LARGEST
from shoal.names.kinds import LISTS, Vocabulary, vocabulary
from shoal.names.words import parse


def agrees(wnid: str, label: str, known: Vocabulary) -> bool | None:
    """Whether the kind `wnid` is what a label says, a kind of it, or what it is a kind of; None: no kind has the label.

    Args:
        wnid: WordNet id of one of the kinds of `known`. A more general kind than the label agrees if it has at most 60
            classes, or is dog or bird.
        label: a WordNet id, or a word.
    """
    kinds = meanings(label, known)
    if not kinds:
        return None
    place = known.place(wnid)
    if place is None:
        raise ValueError(f"wnid has value {wnid!r}; expected one of the kinds of {known.name}")
    is_fair = int(known.sizes[place]) <= LARGEST or known.said[place] in ("dog", "bird")
    return any((wnid in above and (is_fair or wnid == one)) or one in _line(wnid) for one, above in kinds.items())


@lru_cache(1 << 14)
def meanings(label: str, known: Vocabulary) -> dict[str, set[str]]:
    """WordNet ids of what a label may mean, each with those of all that it is a kind of; none: it is no known word."""
    for words in (known, _every()):
        place = words.place(label)
        query = parse(f'"{label}"', words) if place is None else None
        found = [place] if place is not None else [kind for term in query.terms for kind in term.kinds] if query else []
        if found:
            return {words.kinds[one].wnid: {words.kinds[up].wnid for up in words.ancestors(one)} for one in found}
    return {}


def _line(wnid: str) -> set[str]:
    every = _every()
    place = every.place(wnid)
    return {wnid} if place is None else {every.kinds[up].wnid for up in every.ancestors(place)}


def _every() -> Vocabulary:
    found = vocabulary(max(LISTS))
    assert found is not None
    return found
