"""The plan of an approximate search: few dimensions, coarse cells in them, and images by which recall is told.

All of it is fitted on a sample, in a fixed order of summation: the same embeddings give the same plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from shoal import atomic
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows

Cells = npt.NDArray[np.int32]

DIMENSIONS = 160  # of 1,280: by products of these 98 % of the true 50 are among the best 140 to 380
ROWS_A_CELL = 24  # sampled
ROUNDS = 5  # of k-means: cells need only be good, not best
ASKED = 256  # images whose true neighbours choose how many cells are near enough; as many others measure the recall
BLOCK = 4096  # rows compared with all centroids at a time


@dataclass(frozen=True, slots=True)
class Plan:
    """What every piece of the search must know."""

    projection: Float32  # [d, r], orthonormal columns
    centroids: Float32  # [C, r]
    asked: Ids  # [2 ASKED] positions of sampled images, or fewer
    asked_rows: Float32  # [2 ASKED, d], of unit length

    @classmethod
    def fit(cls, store: EmbeddingStore, ids: Ids) -> Plan:
        """A plan for the images `ids` [n]: 2 sqrt(n) cells in 160 dimensions, or in half as many as they have."""
        random = np.random.default_rng(0)  # not the run's seed: neighbours are facts of the embeddings, not draws
        n = len(ids)
        cells = min(n, 2 * math.isqrt(n))
        sample = ids[np.sort(random.choice(n, min(n, ROWS_A_CELL * cells), replace=False))]
        projection = main_directions(store, sample, min(DIMENSIONS, max(1, store.dim // 2)))
        reduced = np.concatenate([normalise_rows(rows) @ projection for _, rows in store.blocks(sample)])
        asked = random.choice(n, min(n, 2 * ASKED), replace=False)
        return cls(projection, _means(reduced, cells, random), asked, normalise_rows(store.read(ids[asked])))

    def save(self, file: Path) -> None:
        save_arrays(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Plan:
        return cls(**load_arrays(file))


def save_arrays(file: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write arrays by name, as safetensors; what exists is whole."""
    with atomic.replacing(file) as written:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, written)


def load_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """What `save_arrays` wrote."""
    found: dict[str, npt.NDArray[Any]] = load_file(file)
    return found


def load_array(file: Path, name: str) -> npt.NDArray[Any]:
    """One of them."""
    with safe_open(file, "numpy") as arrays:
        found: npt.NDArray[Any] = arrays.get_tensor(name)
        return found


def nearness(reduced: Float32, centroids: Float32) -> Float32:
    """[m, C]: how near rows [m, r] are to centroids [C, r]; half of a squared distance, less what a row's share."""
    near: Float32 = reduced @ centroids.T
    near -= np.einsum("cr,cr->c", centroids, centroids) / 2
    return near


def nearest_cell(reduced: Float32, centroids: Float32) -> Cells:
    """The cell of each of `reduced` [m, r]."""
    cell = np.empty(len(reduced), dtype=np.int32)
    for start in range(0, len(reduced), BLOCK):
        cell[start : start + BLOCK] = nearness(reduced[start : start + BLOCK], centroids).argmax(axis=1)
    return cell


def main_directions(store: EmbeddingStore, sample: Ids, dimensions: int) -> Float32:
    """The directions [d, r] in which unit rows have most of their length: products are kept best by them."""
    moment = np.zeros((store.dim, store.dim))
    for _, rows in store.blocks(sample):
        normalise_rows(rows)
        moment += rows.T @ rows
    _, directions = np.linalg.eigh(moment)
    return np.ascontiguousarray(directions[:, : -dimensions - 1 : -1], dtype=np.float32)


def _means(rows: Float32, count: int, random: np.random.Generator) -> Float32:
    """Centroids [count, r] by k-means of `rows` [m, r]."""
    centroids = rows[np.sort(random.choice(len(rows), count, replace=False))]
    for _ in range(ROUNDS):
        cell = nearest_cell(rows, centroids)
        order = np.argsort(cell, kind="stable")
        present, starts, sizes = np.unique(cell[order], return_index=True, return_counts=True)
        centroids[present] = np.add.reduceat(rows[order], starts, axis=0) / sizes[:, None].astype(np.float32)
    return centroids
