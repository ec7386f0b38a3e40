"""The clusters at one moment, grouped and ordered for being looked at. Never changes; an edit makes a new one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.browse.images import Images
from shoal.corrections.base import Int32, Int64
from shoal.corrections.corrected import Corrected
from shoal.corrections.edit import Edit
from shoal.rundir import RunDir

CHOSEN: Final = "chosen"
COARSE: Final = "coarse"
FINE: Final = "fine"
LEVELS: Final = (COARSE, CHOSEN, FINE)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """One granularity: the cluster of every row, and the rows of every cluster, surest first."""

    cluster: Int32
    order: Rows
    numbers: Int64
    starts: Int64

    @classmethod
    def of(cls, cluster: Int32, confidence: npt.NDArray[np.float32]) -> Level:
        order = np.lexsort((np.arange(len(cluster)), -confidence, cluster))
        numbers, starts = np.unique(cluster[order], return_index=True)
        return cls(cluster, order, numbers.astype(np.int64), np.r_[starts, len(cluster)].astype(np.int64))

    def rows(self, number: int) -> Rows:
        """Rows of a cluster, surest first; none if there is no such cluster."""
        place = int(np.searchsorted(self.numbers, number))
        if place == len(self.numbers) or self.numbers[place] != number:
            return np.empty(0, np.int64)
        return self.order[self.starts[place] : self.starts[place + 1]]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The corrected clusters of one generation of the run, the log they came from, and the levels around them.

    Attributes:
        run_dir: that generation; what an answer says is read from there.
        images: its images.
        coarse, fine: [n] clusters of the levels as the run has them, before edits; None if it has none.
    """

    run_dir: RunDir
    images: Images
    corrected: Corrected
    log: list[Edit]
    coarse: Int32 | None
    fine: Int32 | None

    @property
    def levels(self) -> list[str]:
        return [name for name in LEVELS if name == CHOSEN or (self.coarse is not None and self.fine is not None)]

    def level(self, name: str) -> Level:
        """Raises KeyError if there is no such level."""
        if name not in self.levels:
            raise KeyError(name)
        return self._coarse if name == COARSE else self._fine if name == FINE else self.chosen

    @cached_property
    def chosen(self) -> Level:
        return Level.of(self.corrected.cluster, self.corrected.confidence)

    @cached_property
    def _coarse(self) -> Level:
        """Every cluster goes whole to the group that most of its images are in, so that levels nest after edits too."""
        assert self.coarse is not None
        groups = np.empty_like(self.corrected.cluster)
        for number in self.corrected.numbers:
            rows = self.chosen.rows(number)
            groups[rows] = np.bincount(self.coarse[rows]).argmax()
        return Level.of(groups, self.corrected.confidence)

    @cached_property
    def _fine(self) -> Level:
        assert self.fine is not None
        pairs = self.corrected.cluster.astype(np.int64) * (int(self.fine.max(initial=0)) + 1) + self.fine
        numbers = np.unique(pairs, return_inverse=True)[1].astype(np.int32)
        return Level.of(numbers, self.corrected.confidence)
