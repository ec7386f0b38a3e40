"""What clusters are called: the names that people gave and, for the others, guesses of what they show.

Everything that tells a cluster's name asks here; a name that people gave always wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shoal.corrections.base import Int32
from shoal.corrections.corrected import Corrected
from shoal.names import guesses_file
from shoal.names.guesses import ClusterGuess
from shoal.names.guesses_file import Guesses
from shoal.names.naming import guesses_of
from shoal.rundir import RunDir
from shoal.runfiles import GUESSES


@dataclass(frozen=True, slots=True)
class ShownName:
    """A cluster's name; `strength` is that of a guess, in nats, and None where a person gave the name."""

    name: str
    strength: float | None = None

    @property
    def is_guess(self) -> bool:
        return self.strength is not None


def shown_names(names: Mapping[int, str], guesses: Guesses | None) -> dict[int, ShownName]:
    """The name of every cluster that has one."""
    found = {} if guesses is None else {one.cluster: one for one in guesses.medium}
    guessed = {number: ShownName(one.name, one.strength) for number, one in found.items() if one.name is not None}
    return guessed | {number: ShownName(name) for number, name in names.items()}


def read_guesses(run_dir: RunDir, corrected: Corrected) -> Guesses | None:
    """Guesses for a run's clusters as people corrected them, made anew if they moved images; None if there are none.

    Raises:
        RunError: they are not readable.
    """
    if np.array_equal(corrected.cluster, corrected.source.cluster):
        return guesses_file.read(corrected.source.model / GUESSES)
    return guesses_of(run_dir, corrected.ids, {"medium": corrected.cluster}, corrected.confidence)


def guesses_for(run_dir: RunDir, corrected: Corrected, numbers: Int32) -> tuple[ClusterGuess, ...]:
    """Guesses for other clusters of a run's images than the corrected ones, by number; none where there are none.

    Args:
        numbers: [n] of each image's cluster: of a level, or of what is proposed.

    Raises:
        RunError: the run's classes are not readable.
    """
    found = guesses_of(run_dir, corrected.ids, {"medium": numbers}, corrected.confidence)
    return () if found is None else found.medium


def read_shown(run_dir: RunDir, corrected: Corrected) -> dict[int, ShownName]:
    """What a run's clusters are called. Raises as `read_guesses` does."""
    return shown_names(corrected.names, read_guesses(run_dir, corrected))
