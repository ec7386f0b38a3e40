"""Nearest neighbours of very many images: only blocks of rows that lie near one another are compared.

Rows are put in the order of a tree of planes and cut into blocks. How many of the nearest blocks each is compared
with follows from a sample of rows whose true neighbours are found by looking everywhere; a second sample then tells
what share of true neighbours was found. Rows are read from disk as they are needed, so memory grows with n k, not n d.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.disk import require_free
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.neighbours.candidates import NeighbourIds, RowNumbers
from shoal.neighbours.partition import PlaneTree
from shoal.neighbours.search import Pair, even_slices, search
from shoal.progress import Progress

BLOCK_ROWS = 1024  # smaller ones follow the data more closely, but cost more reading and smaller products
SAMPLE_SHARE = 32  # the tree is grown on one row in so many
SAMPLED_QUERIES = 400  # rows whose true neighbours choose the near blocks; as many others measure the recall
WANTED_RECALL = 0.98
MOST_NEAR = 128  # blocks; beyond it structureless data would cost as much as an exact search
TIE = 1e-6  # a neighbour as similar as the true k-th to rounding is as good


def approximate_neighbours(
    store: EmbeddingStore, ids: Ids, k: int, scratch: Path, random: np.random.Generator, progress: Progress
) -> tuple[NeighbourIds, Float32, float]:
    """Nearly all of the k images most similar to each of `ids` [n].

    Args:
        k: from 1 to n - 1, and far below 1,024.
        scratch: a folder for a sorted copy of the embeddings, removed at the end.

    Returns:
        positions in `ids` [n, k] int32, similarity [n, k] float32 as `exact_neighbours` gives them, and the recall:
        the share of the true neighbours of a few hundred sampled images that was found.

    Raises:
        DiskSpaceError: the sorted copy would not fit.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    require_free(scratch, len(ids) * store.dim * np.dtype(store.dtype).itemsize, "the sorted copy of the embeddings")
    order = _similar_order(store, ids, random)
    # Windows deletes no file that is mapped: the rows must be gone before the folder goes, hence no name for them here.
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
        found, similarity, recall = _search_sorted(
            SortedRows.write(Path(folder) / "rows", store, ids, order), k, random, progress
        )
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    found, similarity = order.astype(np.int32)[found][back], similarity[back]
    by_id = np.lexsort((found, -similarity))  # ties were by place in the sorted copy
    return np.take_along_axis(found, by_id, 1), np.take_along_axis(similarity, by_id, 1), recall


@dataclass(frozen=True, slots=True)
class SortedRows:
    """A copy of embeddings on disk, read as rows of unit length."""

    mapped: npt.NDArray[Any]  # [n, d] raw features, memory-mapped

    @classmethod
    def write(cls, file: Path, store: EmbeddingStore, ids: Ids, order: RowNumbers) -> SortedRows:
        """Copy the embeddings of ids[order], in that order."""
        mapped = np.memmap(file, dtype=store.dtype, mode="w+", shape=(len(ids), store.dim))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        for where, rows in store.blocks(ids):
            mapped[place[where]] = rows
        return cls(mapped)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mapped.shape

    def __getitem__(self, rows: slice | NeighbourIds | RowNumbers, /) -> Float32:
        return normalise_rows(np.array(self.mapped[rows], dtype=np.float32))


def _similar_order(store: EmbeddingStore, ids: Ids, random: np.random.Generator) -> RowNumbers:
    """Positions in `ids`, similar ones near one another."""
    sampled = np.sort(random.choice(len(ids), -(-len(ids) // SAMPLE_SHARE), replace=False))
    tree = PlaneTree.grow(normalise_rows(store.read(ids[sampled])), BLOCK_ROWS // SAMPLE_SHARE, random)
    leaves = np.concatenate([tree.leaves(normalise_rows(rows)) for _, rows in store.blocks(ids)])
    return np.argsort(leaves, kind="stable")


def _search_sorted(
    x: SortedRows, k: int, random: np.random.Generator, progress: Progress
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


def _farness(x: SortedRows, blocks: Sequence[slice]) -> npt.NDArray[np.intp]:
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


def _look_everywhere(x: SortedRows, queries: RowNumbers, k: int, blocks: Sequence[slice]) -> tuple[RowNumbers, Float32]:
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
