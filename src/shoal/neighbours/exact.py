"""Exact k-nearest neighbours by cosine similarity, each pair of rows compared once instead of twice."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from shoal.embeddings import Float32
from shoal.neighbours.candidates import NeighbourIds
from shoal.neighbours.search import even_slices, search
from shoal.progress import Progress

BLOCK_ROWS = 2048  # a block of estimates is then 16 MB, and the product as fast as larger ones


def exact_neighbours(
    x: Float32, k: int, progress: Progress | None = None, threads: int | None = None
) -> tuple[NeighbourIds, Float32]:
    """The k rows most similar to each row; never the row itself, but rows equal to it.

    Args:
        x: [n, d] rows of unit length, or zero (of similarity 0 to all).
        k: neighbours of each row, from 0 to n - 1.
        progress: shown a bar of blocks.
        threads: by default one for each core, up to 8. Changes the time only.

    Returns:
        ids [n, k] int32 and similarity [n, k] float32, by falling similarity; ties by the smaller id.

    Raises:
        ValueError: k is not from 0 to n - 1, or a row is not finite.
    """
    n = len(x)
    if not 0 <= k < max(n, 1):
        raise ValueError(f"The 'k' parameter of exact_neighbours must be from 0 to n - 1 = {n - 1}. Got {k} instead.")
    if k == 0:
        return np.empty((n, 0), dtype=np.int32), np.empty((n, 0), dtype=np.float32)
    blocks = even_slices(n, BLOCK_ROWS)
    pairs = list(combinations(range(len(blocks)), 2))
    return search(np.ascontiguousarray(x, dtype=np.float32), k, blocks, pairs, progress or Progress(), threads)
