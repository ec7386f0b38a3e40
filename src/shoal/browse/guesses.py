"""What clusters may show, for the page: told at once where it is known or quickly found, else after the clusters."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoal.browse import answers
from shoal.browse.snapshot import CHOSEN, Snapshot
from shoal.corrections.base import Base, Float32, Int32
from shoal.corrections.shown import guesses_for
from shoal.names import guesses_file
from shoal.names.guesses import ClusterGuess
from shoal.runfiles import GUESSES

QUICK: Final = 200_000  # images whose clusters' guesses take a tenth of a second
IMAGES_A_CLUSTER: Final = 500  # that take as long as what is done for each cluster

Guessed = dict[int, answers.Guess]


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """Guesses for clusters, and the clusters and the weights that they were made of, [n]."""

    source: Base
    cluster: Int32
    confidence: Float32
    guesses: Guessed

    def is_of(self, snapshot: Snapshot, cluster: Int32) -> bool:
        """True if they would come out the same."""
        corrected = snapshot.corrected
        is_same = self.source is corrected.source and np.array_equal(self.cluster, cluster)
        return is_same and np.array_equal(self.confidence, corrected.confidence)

    def as_far_as(self, cluster: Int32) -> Guessed:
        """Those for clusters that have the same images now."""
        moved = self.cluster != cluster
        other = set(np.unique(np.r_[self.cluster[moved], cluster[moved]]).tolist())
        return {number: guess for number, guess in self.guesses.items() if number not in other}


class GuessReader:
    """Reads and makes guesses when they are asked for; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._known: dict[str, _Known] = {}  # by level

    def known(self, snapshot: Snapshot, level: str) -> tuple[Guessed, bool]:
        """By cluster of a level, and whether that is all: if not, `found` has the others."""
        cluster = snapshot.level(level).cluster
        with self._lock:
            known = self._known.get(level)
            if level == CHOSEN and (known is None or known.source is not snapshot.corrected.source):
                known = self._known[level] = _of_run(snapshot)
            if known is not None and known.is_of(snapshot, cluster):
                return known.guesses, True
        if len(cluster) + IMAGES_A_CLUSTER * len(snapshot.level(level).numbers) <= QUICK:
            return self.found(snapshot, level), True
        is_near = known is not None and known.source is snapshot.corrected.source
        return (known.as_far_as(cluster) if known is not None and is_near else {}), False

    def found(self, snapshot: Snapshot, level: str) -> Guessed:
        """By cluster of a level. One is made at a time."""
        cluster = snapshot.level(level).cluster
        with self._making:
            with self._lock:
                known = self._known.get(level)
            if known is None or not known.is_of(snapshot, cluster):
                known = _made(snapshot, level, cluster)
                with self._lock:
                    self._known[level] = known
            return known.guesses


def guess_of(found: ClusterGuess) -> answers.Guess | None:
    """A guess as the page takes it; None where nothing can be said."""
    if found.name is None:
        return None
    others = [answers.OtherGuess(name=other.word, strength=other.strength) for other in found.others]
    return answers.Guess(name=found.name, strength=found.strength, others=others)


def _of_run(snapshot: Snapshot) -> _Known:
    """Those of the clusters before any edits, as the run has them."""
    source = snapshot.corrected.source
    read = guesses_file.read(source.model / GUESSES)
    return _Known(source, source.cluster, source.confidence, told(() if read is None else read.medium))


def _made(snapshot: Snapshot, level: str, cluster: Int32) -> _Known:
    corrected = snapshot.corrected
    found = told(guesses_for(snapshot.run_dir, corrected, cluster))
    if level == CHOSEN and corrected.noise is not None:
        found.pop(corrected.noise, None)
    return _Known(corrected.source, cluster, corrected.confidence, found)


def told(found: Iterable[ClusterGuess]) -> Guessed:
    """By cluster, of those that anything can be said of."""
    return {one.cluster: guess for one in found if (guess := guess_of(one)) is not None}
