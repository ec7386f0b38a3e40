"""The mined neighbours of one image, read from disk row by row."""

from __future__ import annotations

from shoal.neighbours.mined import check_among, read_mined
from shoal.rundir import RunDir


def mined_neighbours(run_dir: RunDir, image: int, count: int) -> list[tuple[int, float]]:
    """Up to `count` pairs (id, cosine similarity), nearest first; none where none were mined."""
    mined = read_mined(run_dir)
    if mined is None or image >= len(mined[0]):
        return []
    ids, similarity = mined
    check_among(ids[image], len(ids), run_dir)
    pairs = zip(ids[image, :count].tolist(), similarity[image, :count].tolist(), strict=True)
    return [(other, score) for other, score in pairs if other >= 0]
