"""`guesses.json` of a model: the names that were guessed for its clusters, and those of the levels around them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from shoal import foreign
from shoal.errors import RunError
from shoal.names.guesses import ClusterGuess
from shoal.typed import Between, Most

FORMAT: Final = 1
LEVELS: Final = ("coarse", "medium", "fine")


@dataclass(frozen=True, slots=True)
class Guesses:
    """Guesses for the clusters of each level, in the order of their numbers; none for a level that there is not."""

    vocabulary: Annotated[str, Most(100)]  # the words came from
    coarse: tuple[ClusterGuess, ...] = ()
    medium: tuple[ClusterGuess, ...] = ()  # the clusters themselves
    fine: tuple[ClusterGuess, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT, **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class _Version:
    format_version: Annotated[int, Between(1)]


def read(path: Path) -> Guesses | None:
    """What `guesses.json` says; None if there is none.

    Raises:
        RunError: it is not readable, of a newer format, or its clusters are not numbered from 0.
    """
    try:
        version = foreign.read_json(path, _Version).format_version
        if version > FORMAT:
            raise RunError(
                f"{path}: format_version has value {version}; expected at most {FORMAT}: a newer Shoal made it"
            )
        found = foreign.read_json(path, Guesses)
    except FileNotFoundError:
        return None
    for level in LEVELS:
        numbers = [one.cluster for one in getattr(found, level)]
        if numbers != list(range(len(numbers))):
            raise RunError(f"{path}: {level} has clusters {str(numbers)[:60]}; expected 0, 1, 2 and so on")
    return found
