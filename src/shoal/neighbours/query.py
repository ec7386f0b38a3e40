"""The stored images nearest to new ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from shoal.cores import core_count
from shoal.embeddings import EmbeddingStore, Float32, Ids, lengths_of, normalise_rows, products

ROWS: Final = 1024  # that a core looks at together


def nearest(store: EmbeddingStore, ids: Ids, query: Float32, k: int) -> tuple[Ids, Float32]:
    """The k images among `ids` most similar to each query by cosine, compared with every one of them.

    Every core reads blocks of the embeddings, so memory does not grow with their number.

    Args:
        ids: ids [n] of the images to look among.
        query: raw features [m, d] of the same backbone.
        k: how many to give; all n if there are fewer.

    Returns:
        ids [m, k] int64 and similarity [m, k] float32, by falling similarity; ties by the smaller id.
    """
    unit = normalise_rows(np.array(query, dtype=np.float32))

    def best_of(block: Ids) -> tuple[Ids, Float32]:
        rows = store.read(block)
        lengths = lengths_of(rows)
        lengths[lengths == 0] = 1
        return _first(block[None].repeat(len(unit), 0), products(unit, rows) / lengths, k)

    with ThreadPoolExecutor(core_count()) as pool:
        found = list(pool.map(best_of, (ids[start : start + ROWS] for start in range(0, len(ids), ROWS))))
    if not found:
        return np.empty((len(unit), 0), np.int64), np.empty((len(unit), 0), np.float32)
    return _first(np.concatenate([of for of, _ in found], axis=1), np.concatenate([of for _, of in found], axis=1), k)


def _first(ids: Ids, similarity: Float32, k: int) -> tuple[Ids, Float32]:
    """The k columns of each row [m, n] with the most similarity, by falling similarity, ties by the smaller id."""
    order = np.lexsort((ids, -similarity))[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(similarity, order, 1)
