"""Parts of a labelled run for comparing defaults: some of its kinds, or all of them thinned to a long tail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.bench.embedded import label_places, usable_ids
from shoal.embeddings import Ids
from shoal.rundir import RunDir

Truth = npt.NDArray[np.int64]


class LabelledRun:
    """The usable, labelled images of a run: `ids` [n], and `truth` [n], kinds from 0."""

    def __init__(self, folder: str) -> None:
        self.run = RunDir(Path(folder))
        names, places = label_places(self.run, None, {})
        self.ids: Ids = usable_ids(self.run)[places]
        self.truth: Truth = np.unique(names, return_inverse=True)[1].astype(np.int64)

    @property
    def kinds(self) -> int:
        return int(self.truth.max()) + 1

    def part(self, sizes: npt.NDArray[np.int64], draw: int) -> tuple[Ids, Truth]:
        """As many images of kinds in random order as `sizes` says (or all there are): ids, rising, and kinds from 0."""
        random = np.random.default_rng([99, draw, len(sizes), int(sizes[-1])])
        chosen = []
        for kind, size in zip(random.permutation(self.kinds)[: len(sizes)], sizes, strict=True):
            chosen.append(random.permutation(np.flatnonzero(self.truth == kind))[:size])
        places = np.sort(np.concatenate(chosen))
        return self.ids[places], np.unique(self.truth[places], return_inverse=True)[1].astype(np.int64)


def even(kinds: int, images: int) -> npt.NDArray[np.int64]:
    """Sizes of `kinds` kinds with `images` images together."""
    return np.full(kinds, images // kinds)


def long_tail(kinds: int, largest: int, smallest: int) -> npt.NDArray[np.int64]:
    """Sizes that fall by the same factor from each kind to the next."""
    return np.maximum(1, np.round(largest * (smallest / largest) ** (np.arange(kinds) / max(kinds - 1, 1)))).astype(int)
