"""Nearest neighbours of very many images: only blocks of rows that lie near one another are compared.

Rows are put in the order of a tree of planes and cut into blocks. How many of the nearest blocks each is compared
with follows from a sample of rows whose true neighbours are found by looking everywhere; a second sample then tells
what share of true neighbours was found. The rows are memory-mapped: what must stay in memory grows with n k, not n d.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shoal.disk import require_free
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.neighbours.candidates import NeighbourIds, RowNumbers
from shoal.neighbours.partition import PlaneTree
from shoal.neighbours.search import Pair, even_slices, search
from shoal.progress import Progress

BLOCK_ROWS = 512  # smaller ones follow the data more closely, but products of smaller blocks are slower
SAMPLE_SHARE = 32  # the tree is grown on one row in so many
SAMPLED_QUERIES = 400  # rows whose true neighbours choose the near blocks; as many others measure the recall
WANTED_RECALL = 0.98
MOST_NEAR = 256  # blocks; beyond it structureless data would cost as much as an exact search
TIE = 1e-6  # a neighbour as similar as the true k-th to rounding is as good


def approximate_neighbours(
    store: EmbeddingStore, ids: Ids, k: int, scratch: Path, random: np.random.Generator, progress: Progress
) -> tuple[NeighbourIds, Float32, float]:
    """Nearly all of the k images most similar to each of `ids` [n].

    Args:
        k: from 1 to n - 1, and far below 512.
        scratch: a folder in which a sorted copy of the embeddings lies meanwhile.

    Returns:
        positions in `ids` [n, k] int32, similarity [n, k] float32 as `exact_neighbours` gives them, and the recall:
        the share of the true neighbours of a few hundred sampled images that was found.

    Raises:
        DiskSpaceError: the sorted copy would not fit.
    """
    folder = scratch / "neighbours"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir(parents=True)
    require_free(folder, 4 * len(ids) * store.dim, "the sorted copy of the embeddings")
    order = _similar_order(store, ids, random)
    try:
        # Windows deletes no file that is mapped: when the folder goes no name may be left for the rows.
        found, similarity, recall = _search_sorted(
            _sorted_copy(folder / "rows", store, ids, order), k, random, progress
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    back = _inverse(order)
    found, similarity = order.astype(np.int32)[found][back], similarity[back]
    by_id = np.lexsort((found, -similarity))  # ties were by place in the sorted copy
    return np.take_along_axis(found, by_id, 1), np.take_along_axis(similarity, by_id, 1), recall


def _sorted_copy(file: Path, store: EmbeddingStore, ids: Ids, order: RowNumbers) -> Float32:
    """The embeddings of ids[order] as rows of unit length, memory-mapped: blocks of them need no reading or casting."""
    mapped = np.memmap(file, dtype=np.float32, mode="w+", shape=(len(ids), store.dim))
    place = _inverse(order)
    for where, rows in store.blocks(ids):
        mapped[place[where]] = normalise_rows(rows)
    return np.asarray(mapped)


def _inverse(order: RowNumbers) -> RowNumbers:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse


def _similar_order(store: EmbeddingStore, ids: Ids, random: np.random.Generator) -> RowNumbers:
    """Positions in `ids`, similar ones near one another."""
    sampled = np.sort(random.choice(len(ids), -(-len(ids) // SAMPLE_SHARE), replace=False))
    tree = PlaneTree.grow(normalise_rows(store.read(ids[sampled])), BLOCK_ROWS // SAMPLE_SHARE, random)
    leaves = np.concatenate([tree.leaves(normalise_rows(rows)) for _, rows in store.blocks(ids)])
    return np.argsort(leaves, kind="stable")


def _search_sorted(
    x: Float32, k: int, random: np.random.Generator, progress: Progress
) -> tuple[NeighbourIds, Float32, float]:
    blocks = even_slices(x.shape[0], BLOCK_ROWS)
    queries = random.choice(x.shape[0], 2 * SAMPLED_QUERIES, replace=False)
    true_ids, true_similarity = _look_everywhere(x, queries, k, blocks)
    farness = _farness(x, blocks)
    near = _near_enough(farness, blocks, queries[:SAMPLED_QUERIES], true_ids[:SAMPLED_QUERIES])
    pairs: list[Pair] = [(int(a), int(b)) for a, b in np.argwhere(np.triu(farness <= near, 1))]
    found, similarity = search(x, k, blocks, pairs, progress)
    reached = similarity[queries[SAMPLED_QUERIES:]] >= true_similarity[SAMPLED_QUERIES:, -1:] - TIE
    return found, similarity, round(float(reached.mean()), 6)


def _farness(x: Float32, blocks: Sequence[slice]) -> npt.NDArray[np.intp]:
    """Rank of block b among those near block a, or of a among those near b if that is less; 0 for itself. [B, B]"""
    centres = np.stack([x[rows].mean(axis=0) for rows in blocks])
    distance = np.square(centres).sum(axis=1) - 2 * centres @ centres.T  # squared, less what all of a row share
    np.fill_diagonal(distance, -np.inf)
    rank = distance.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    farness: npt.NDArray[np.intp] = np.minimum(rank, rank.T)
    return farness


def _near_enough(
    farness: npt.NDArray[np.intp], blocks: Sequence[slice], queries: RowNumbers, true_ids: RowNumbers
) -> int:
    """How far to look so that the wanted share of the queries' true neighbours is met."""
    starts = [rows.start for rows in blocks]
    block_of_query = np.searchsorted(starts, queries, side="right") - 1
    block_of_found = np.searchsorted(starts, true_ids, side="right") - 1
    met_at = farness[block_of_query[:, None], block_of_found]
    return min(int(np.quantile(met_at, WANTED_RECALL, method="higher")), MOST_NEAR)


def _look_everywhere(x: Float32, queries: RowNumbers, k: int, blocks: Sequence[slice]) -> tuple[RowNumbers, Float32]:
    """The k nearest of all rows to each of a few, themselves excluded, by falling similarity: [q, k] both."""
    asked = x[queries]
    best_ids = np.empty((len(queries), 0), dtype=np.intp)
    best = np.empty((len(queries), 0), dtype=np.float32)
    for rows in blocks:
        similarity = asked @ x[rows].T
        inside = np.flatnonzero((queries >= rows.start) & (queries < rows.stop))
        similarity[inside, queries[inside] - rows.start] = -np.inf
        best = np.concatenate([best, similarity], axis=1)
        columns = np.broadcast_to(np.arange(rows.start, rows.stop), similarity.shape)
        best_ids = np.concatenate([best_ids, columns], axis=1)
        first = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, best_ids = np.take_along_axis(best, first, 1), np.take_along_axis(best_ids, first, 1)
    return best_ids, best
