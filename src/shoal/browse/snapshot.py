"""The clusters at one moment, grouped and ordered for being looked at. Never changes; an edit makes a new one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.browse.images import Images
from shoal.corrections.base import Float32, Int32, Int64
from shoal.corrections.corrected import Corrected
from shoal.corrections.edit import Edit
from shoal.embeddings import EmbeddingStore
from shoal.rundir import RunDir

CHOSEN: Final = "chosen"
COARSE: Final = "coarse"
FINE: Final = "fine"
LEVELS: Final = (COARSE, CHOSEN, FINE)

Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Level:
    """One granularity: the cluster of every row, and the rows of every cluster, surest first.

    Attributes:
        cluster, confidence: of every row; order: [n] rows by rising cluster, surest first, equal ones by rising row.
        keys: [n] uint64 that rise with `order`.
        numbers: [K] rising, of the clusters; starts: [K + 1] where each begins in `order`, and the end.
    """

    cluster: Int32
    confidence: Float32
    order: Rows
    keys: Keys
    numbers: Int64
    starts: Int64

    @classmethod
    def of(cls, cluster: Int32, confidence: Float32, near: Level | None = None) -> Level:
        """`near`: another one of the same rows; only rows that differ from its are put in order anew."""
        if near is None:
            order, keys = _ordered(np.arange(len(cluster)), cluster, confidence)
        else:
            differs = (cluster != near.cluster) | (confidence != near.confidence)
            stays = ~differs[near.order]
            kept = near.order[stays], near.keys[stays]
            order, keys = _merged(kept, _ordered(np.flatnonzero(differs), cluster, confidence))
        counts = np.bincount(cluster)
        numbers = np.flatnonzero(counts)
        return cls(cluster, confidence, order, keys, numbers, np.r_[0, np.cumsum(counts[numbers])])

    def rows(self, number: int) -> Rows:
        """Rows of a cluster, surest first; none if there is no such cluster."""
        place = int(np.searchsorted(self.numbers, number))
        if place == len(self.numbers) or self.numbers[place] != number:
            return np.empty(0, np.int64)
        return self.order[self.starts[place] : self.starts[place + 1]]


def _ordered(rows: Rows, cluster: Int32, confidence: Float32) -> tuple[Rows, Keys]:
    """Rising rows by cluster, then surest first, then by rising row; and their keys."""
    sure = np.nan_to_num(confidence[rows], nan=0.0).clip(0, 1).astype(np.float32) + np.float32(0)  # of -0.0 it makes 0
    # As bits, floats from 0 to 1 are in their order: one sort of whole numbers takes a third of the time of lexsort's.
    keys = (cluster[rows].astype(np.uint64) << np.uint64(32)) | (np.uint32(0xFFFFFFFF) - sure.view(np.uint32))
    order = np.argsort(keys, kind="stable")
    return rows[order], keys[order]


def _merged(some: tuple[Rows, Keys], few: tuple[Rows, Keys]) -> tuple[Rows, Keys]:
    """Two sets of rows in order, as one."""
    (rows, keys), (new, new_keys) = some, few
    first, last = np.searchsorted(keys, new_keys), np.searchsorted(keys, new_keys, side="right")
    for place in np.flatnonzero(first < last).tolist():  # as sure as others of its cluster: among those by row
        first[place] += np.searchsorted(rows[first[place] : last[place]], new[place])
    return np.insert(rows, first, new), np.insert(keys, first, new_keys)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The corrected clusters of one generation of the run, the log they came from, and the levels around them.

    Attributes:
        run_dir: that generation; what an answer says is read from there.
        images: its images.
        coarse, fine: [n] clusters of the levels as the run has them, before edits; None if it has none.
        near: the corrected clusters at another moment, from which most of these are known to be in order.
    """

    run_dir: RunDir
    images: Images
    corrected: Corrected
    log: list[Edit]
    coarse: Int32 | None
    fine: Int32 | None
    near: Level | None = None

    @property
    def levels(self) -> list[str]:
        return [name for name in LEVELS if name == CHOSEN or (self.coarse is not None and self.fine is not None)]

    def level(self, name: str) -> Level:
        """Raises KeyError if there is no such level."""
        if name not in self.levels:
            raise KeyError(name)
        return self._coarse if name == COARSE else self._fine if name == FINE else self.chosen

    @cached_property
    def store(self) -> EmbeddingStore:
        """The features. Of a million images it takes some time to read where they are."""
        return EmbeddingStore.open(self.run_dir.embeddings)

    @cached_property
    def chosen(self) -> Level:
        return Level.of(self.corrected.cluster, self.corrected.confidence, self.near)

    @property
    def is_ordered(self) -> bool:
        """True if `chosen` is known by now."""
        return "chosen" in self.__dict__

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
