"""Which images show what a query says, from the likeliest classes of each: no features are read.

An image's evidence for a word is the probability of all classes that the word covers, half its own and half the mean of
its nearest neighbours': a class that is not among the few kept of an image is among its neighbours'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32
from shoal.names.kinds import Ints, Vocabulary
from shoal.names.likeliest import Likeliest
from shoal.names.words import Query

NEIGHBOURS: Final = 20
FLOOR: Final = 1e-6  # evidence that an image has at least: of two that lack one word, the other word decides
ROWS: Final = 16384  # at a time

Neighbours = npt.NDArray[np.integer[Any]]


def scores(query: Query, likeliest: Likeliest, vocabulary: Vocabulary, neighbours: Neighbours | None = None) -> Float32:
    """How well each image fits a query, [N], 0 to 1: the geometric mean of its words, times 1 − p of each minus word.

    What a minus word covers is no evidence for the others: `fruit -banana` looks for other fruit.

    Args:
        neighbours: rows of the nearest images of each, nearest first, [N, any]; −1 where there is none.

    Raises:
        ValueError: the query has no word that is known and is no minus word.
    """
    wanted = [term for term in query.terms if not term.is_minus]
    if not wanted:
        raise ValueError("the query has no known word to look for")
    unwanted = [kind for term in query.terms if term.is_minus for kind in term.kinds]
    found = np.zeros(len(likeliest), np.float32)
    for term in wanted:
        found += np.log(_smooth(shown(term.kinds, likeliest, vocabulary, unwanted), neighbours) + np.float32(FLOOR))
    found = np.exp(found / np.float32(len(wanted)))
    for term in query.terms:
        if term.is_minus:
            found *= 1 - _smooth(shown(term.kinds, likeliest, vocabulary), neighbours)
    fit: Float32 = np.clip(found, 0, 1)
    return fit


def best(found: Float32, count: int) -> Ints:
    """Rows of the best scores, the best first, equal ones by row; at most `count`."""
    count = min(count, len(found))
    if not count:
        return np.zeros(0, np.int64)
    least = np.partition(found, len(found) - count)[len(found) - count]
    rows = np.flatnonzero(found >= least)
    return rows[np.argsort(-found[rows], kind="stable")][:count].astype(np.int64)


def shown(kinds: Sequence[int], likeliest: Likeliest, vocabulary: Vocabulary, unwanted: Sequence[int] = ()) -> Float32:
    """The probability that each image shows any of some kinds but `unwanted` ones, [N], from the classes kept of it."""
    covered = np.zeros(len(vocabulary.classes), bool)
    members = vocabulary.members
    for some, are_wanted in ((kinds, True), (unwanted, False)):
        for kind in some:
            covered[members.indices[members.indptr[kind] : members.indptr[kind + 1]]] = are_wanted
    found = np.zeros(len(likeliest), np.float32)
    for start in range(0, len(found), ROWS):
        part = slice(start, start + ROWS)
        held = np.flatnonzero(covered[likeliest.classes[part]])  # few are, and half precision is slow to widen
        values = likeliest.probabilities[part].ravel()[held].astype(np.float64)
        found[part] = np.bincount(held // likeliest.classes.shape[1], values, len(found[part]))
    return found


def _smooth(own: Float32, neighbours: Neighbours | None) -> Float32:
    if neighbours is None:
        return own
    padded = np.append(own, np.float32(0))  # which −1 finds
    found = np.empty_like(own)
    for start in range(0, len(own), ROWS):
        part = slice(start, start + ROWS)
        rows = neighbours[part, :NEIGHBOURS]
        there = np.count_nonzero(rows >= 0, axis=1)
        around = padded[rows].sum(axis=1) / np.maximum(there, 1)
        found[part] = np.where(there > 0, (own[part] + around) / 2, own[part])
    return found
