"""The neighbours stage: each image's nearest others by cosine similarity, whatever metric the clusters use."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal import atomic, records
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.neighbours.approximate import approximate_neighbours
from shoal.neighbours.candidates import NeighbourIds
from shoal.neighbours.exact import exact_neighbours
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file, digest_of

FORMAT_VERSION = 1
NEIGHBOURS = 50  # SCAN mines 20, and 50 for ImageNet; the map's t-SNE wants 50 too

EXACT_UP_TO = 100_000  # images: half a gigabyte of embeddings in memory, and about a minute on two cores


def key(config: ClusterConfig) -> dict[str, Any]:
    """What makes the neighbours stale besides the embeddings: nothing that can be asked for."""
    return {"k": NEIGHBOURS, "metric": "cosine"}


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write neighbours/: ids.npy, similarity.npy and manifest.json, by falling similarity; row i belongs to image id i.

    Each row holds K = min(50, ok images - 1) image ids; rows of images that are not ok hold -1 and similarity 0.
    """
    images = run_dir.read_images(["id", "status"])
    ok = np.flatnonzero(images["status"].to_numpy(zero_copy_only=False) == records.OK).astype(np.int64)
    k = min(NEIGHBOURS, max(len(ok) - 1, 0))
    store = EmbeddingStore.open(run_dir.embeddings)
    if len(ok) <= EXACT_UP_TO:
        method, recall = "exact", 1.0
        positions, similarity = exact_neighbours(_unit_rows(store, ok), k, progress)
    else:
        method = "approximate"
        random = np.random.default_rng(0)  # not the run's seed: neighbours are facts of the embeddings, not draws
        positions, similarity, recall = approximate_neighbours(store, ok, k, run_dir.cache, random, progress)
    manifest = {"format_version": FORMAT_VERSION, "k": k, "metric": "cosine", "method": method, "recall": recall}
    digest = _write(run_dir, images.num_rows, ok, positions, similarity, manifest)
    mean = round(float(similarity.mean(dtype=np.float64)), 6) if similarity.size else None
    facts = {name: manifest[name] for name in ("k", "method", "recall")} | {"mean_similarity": mean}
    return StageResult(digest, facts)


def _unit_rows(store: EmbeddingStore, ids: Ids) -> Float32:
    rows = np.empty((len(ids), store.dim), dtype=np.float32)
    for where, block in store.blocks(ids):
        rows[where] = normalise_rows(block)
    return rows


def _write(
    run_dir: RunDir, rows: int, ok: Ids, positions: NeighbourIds, similarity: Float32, manifest: dict[str, Any]
) -> str:
    """Spread positions among the ok images over all rows as image ids, write everything, and return its digest."""
    k = positions.shape[1]
    all_ids, all_similarity = np.full((rows, k), -1, dtype=np.int32), np.zeros((rows, k), dtype=np.float32)
    all_ids[ok] = ok[positions]
    all_similarity[ok] = similarity
    folder = run_dir.new_in("neighbours")
    for name, array in (("similarity.npy", all_similarity), ("ids.npy", all_ids)):
        atomic.write_array(folder / name, array)
    atomic.write_json(folder / "manifest.json", manifest)
    return digest_of(*(digest_file(folder / name) for name in ("ids.npy", "similarity.npy", "manifest.json")))
