"""The stored images nearest to new ones."""

from __future__ import annotations

import numpy as np

from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows, products


def nearest(store: EmbeddingStore, ids: Ids, query: Float32, k: int) -> tuple[Ids, Float32]:
    """The k images among `ids` most similar to each query by cosine, compared with every one of them.

    The embeddings are read block by block, so memory does not grow with their number.

    Args:
        ids: ids [n] of the images to look among.
        query: raw features [m, d] of the same backbone.
        k: how many to give; all n if there are fewer.

    Returns:
        ids [m, k] int64 and similarity [m, k] float32, by falling similarity; ties by the smaller id.
    """
    unit = normalise_rows(np.array(query, dtype=np.float32))
    best_ids = np.empty((len(unit), 0), dtype=np.int64)
    best = np.empty((len(unit), 0), dtype=np.float32)
    for where, rows in store.blocks(ids):
        normalise_rows(rows)
        similarity = np.concatenate([best, products(unit, rows)], axis=1)
        candidates = np.concatenate([best_ids, np.broadcast_to(ids[where], (len(unit), len(rows)))], axis=1)
        order = np.lexsort((candidates, -similarity))[:, :k]
        best, best_ids = np.take_along_axis(similarity, order, 1), np.take_along_axis(candidates, order, 1)
    return best_ids, best
