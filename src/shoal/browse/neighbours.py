"""The mined neighbours of one image, read from disk row by row."""

from __future__ import annotations

import numpy as np

from shoal.rundir import RunDir


def mined_neighbours(run_dir: RunDir, image: int, count: int) -> list[tuple[int, float]]:
    """Up to `count` pairs (id, cosine similarity), nearest first; none where none were mined."""
    try:
        ids = np.load(run_dir.neighbours / "ids.npy", mmap_mode="r")
        similarity = np.load(run_dir.neighbours / "similarity.npy", mmap_mode="r")
    except FileNotFoundError:
        return []
    if image >= min(len(ids), len(similarity)):
        return []
    pairs = zip(ids[image, :count].tolist(), similarity[image, :count].tolist(), strict=True)
    return [(other, score) for other, score in pairs if other >= 0]
