"""The mined neighbours of one image, read from disk row by row."""

from __future__ import annotations

import numpy as np

from shoal.rundir import RunDir


class NeighbourReader:
    """Reads rows of neighbours/; the files are mapped only while a row is read, for a run may be made anew."""

    def __init__(self, run_dir: RunDir) -> None:
        self._folder = run_dir.neighbours

    def of(self, image: int, count: int) -> list[tuple[int, float]]:
        """Up to `count` pairs (id, cosine similarity), nearest first; none where none were mined."""
        try:
            ids = np.load(self._folder / "ids.npy", mmap_mode="r")
            similarity = np.load(self._folder / "similarity.npy", mmap_mode="r")
        except FileNotFoundError:
            return []
        if image >= min(len(ids), len(similarity)):
            return []
        pairs = zip(ids[image, :count].tolist(), similarity[image, :count].tolist(), strict=True)
        return [(other, score) for other, score in pairs if other >= 0]
