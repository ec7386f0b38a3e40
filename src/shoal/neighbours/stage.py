"""The neighbours stage: each image's nearest others by cosine similarity, whatever metric the clusters use."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

import numpy as np

from shoal import atomic, records
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.executor import HERE, Executor
from shoal.neighbours.approximate import Search
from shoal.neighbours.exact import exact_neighbours
from shoal.neighbours.finding import PieceOfNeighbours
from shoal.neighbours.work import search_by, usable
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file, digest_of

FORMAT_VERSION = 1
NEIGHBOURS = 50  # SCAN mines 20, and 50 for ImageNet; the map's t-SNE wants 50 too

EXACT_UP_TO = 100_000  # images: half a gigabyte of embeddings in memory, and about a minute on two cores


def key(config: ClusterConfig) -> dict[str, Any]:
    """What makes the neighbours stale besides the embeddings: nothing that can be asked for."""
    return {"k": NEIGHBOURS, "metric": "cosine"}


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress, executor: Executor = HERE) -> StageResult:
    """Write neighbours/: ids.npy, similarity.npy and manifest.json, by falling similarity; row i belongs to image id i.

    Each row holds K = min(50, ok images - 1) image ids; rows of images that are not ok hold -1 and similarity 0.

    Args:
        executor: of the pieces of an approximate search.
    """
    ok, rows = usable(run_dir), records.count_rows(run_dir.images)
    k = min(NEIGHBOURS, max(len(ok) - 1, 0))
    store = EmbeddingStore.open(run_dir.embeddings)
    scratch = run_dir.cache / "neighbours"
    if len(ok) <= EXACT_UP_TO:
        method, recall = "exact", 1.0
        pieces: Iterable[PieceOfNeighbours] = [
            PieceOfNeighbours(np.arange(len(ok)), *exact_neighbours(_unit_rows(store, ok), k, progress))
        ]
    else:
        search = Search.within(scratch, store, ok, k)
        search_by(executor, search, run_dir.root, progress)
        method, recall, pieces = "approximate", search.recall(), search.found()
    mean = _write(run_dir, (rows, k), ok, pieces)
    manifest = {"format_version": FORMAT_VERSION, "k": k, "metric": "cosine", "method": method, "recall": recall}
    folder = run_dir.new_in("neighbours")
    atomic.write_json(folder / "manifest.json", manifest)
    digest = digest_of(*(digest_file(folder / name) for name in ("ids.npy", "similarity.npy", "manifest.json")))
    shutil.rmtree(scratch, ignore_errors=True)
    facts = {name: manifest[name] for name in ("k", "method", "recall")} | {"mean_similarity": mean}
    return StageResult(digest, facts)


def _unit_rows(store: EmbeddingStore, ids: Ids) -> Float32:
    rows = np.empty((len(ids), store.dim), dtype=np.float32)
    for where, block in store.blocks(ids):
        rows[where] = normalise_rows(block)
    return rows


def _write(run_dir: RunDir, shape: tuple[int, int], ok: Ids, pieces: Iterable[PieceOfNeighbours]) -> float | None:
    """Spread positions among the ok images over all rows as image ids; return the mean similarity."""
    folder = run_dir.new_in("neighbours")
    total = 0.0
    with (
        atomic.filling_array(folder / "similarity.npy", shape, np.float32) as fill_similarity,
        atomic.filling_array(folder / "ids.npy", shape, np.int32, -1) as fill_ids,
    ):
        for piece in pieces:
            rows = ok[piece.rows]
            fill_ids(rows, np.where(piece.neighbours >= 0, ok[piece.neighbours], -1))
            fill_similarity(rows, piece.similarity)
            total += float(piece.similarity.sum(dtype=np.float64))
    return round(total / (len(ok) * shape[1]), 6) if len(ok) * shape[1] else None
