"""The map stage: a place in the plane for every image, near to where its neighbours are."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.config import ClusterConfig
from shoal.embeddings import Float32, Ids, normalise_rows
from shoal.errors import RunError
from shoal.neighbours.exact import exact_neighbours
from shoal.neighbours.mined import IDS, check_among, read_mined
from shoal.progress import Progress
from shoal.report import tsne
from shoal.report.space import clustering_space, principal_components
from shoal.rundir import RunDir, StageResult, digest_file

FEWEST: Final = 10  # below this, neighbours say nothing that two principal components do not
LANDMARKS: Final = 20_000  # of more images, this many are embedded, and the others placed among them
LANDMARK_NEIGHBOURS: Final = 30
BLOCK: Final = 1 << 16  # images placed at a time
PLACED_BY: Final = 3  # nearest images already placed that an image is put between


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write map.parquet: x and y of every ok image; a duplicate has its original's place."""
    images = run_dir.read_images(["id", "status", "duplicate_of"])
    ids = images["id"].filter(pc.equal(images["status"], records.OK)).to_numpy()
    with progress.task("Mapping", len(ids)) as task:
        points = clustering_space(run_dir, ids)
        neighbours, similarity = known_neighbours(run_dir, ids)
        places, method = place(points, neighbours, similarity, config.seed)
        task.advance(len(ids))
    _write(run_dir, images, ids, places)
    return StageResult(digest_file(run_dir.map), {"method": method})


def place(points: Float32, neighbours: tsne.Neighbours, similarity: Float32, seed: int) -> tuple[Float32, str]:
    """Places of the points, float32 [N, 2], and how they were found.

    Args:
        points: [N, d], where clusters were made.
        neighbours: [N, k] positions of neighbours, nearest first, -1 where there is none; similarity: [N, k].
    """
    start = principal_components(points)
    if len(points) < FEWEST or not (neighbours >= 0).any():
        return start, "principal components"
    if len(points) <= LANDMARKS:
        return tsne.embed(neighbours, similarity, start), "t-SNE"
    landmarks = np.sort(np.random.default_rng(seed).choice(len(points), LANDMARKS, replace=False))
    near, likeness = exact_neighbours(normalise_rows(points[landmarks]), LANDMARK_NEIGHBOURS)
    places = np.full((len(points), 2), np.nan, np.float32)
    places[landmarks] = tsne.embed(near, likeness, start[landmarks])
    return spread(places, neighbours, similarity), f"t-SNE of {LANDMARKS:,} images, the others placed among them"


def known_neighbours(run_dir: RunDir, ids: Ids) -> tuple[tsne.Neighbours, Float32]:
    """The mined neighbours as positions within `ids`, int32 [len(ids), k] with -1 for none, and their similarity."""
    mined = read_mined(run_dir)
    if mined is None:
        return np.empty((len(ids), 0), np.int32), np.empty((len(ids), 0), np.float32)
    found, similarity = mined
    if len(ids) and ids.max() >= len(found):
        raise RunError(f"{run_dir.neighbours / IDS} has {len(found):,} rows, and image {ids.max()} none")
    wanted = found[ids]
    check_among(wanted, len(found), run_dir)
    position = np.full(len(found) + 1, -1, np.int32)  # the last one stands for id -1
    position[ids] = np.arange(len(ids), dtype=np.int32)
    for start in range(0, len(wanted), BLOCK):
        wanted[start : start + BLOCK] = position[wanted[start : start + BLOCK]]
    return wanted, np.asarray(similarity[ids], np.float32)


def spread(places: Float32, neighbours: tsne.Neighbours, similarity: Float32) -> Float32:
    """Put every point without a place (NaN) at the weighted mean of its nearest neighbours that have one.

    Points none of whose neighbours has a place wait for the next round; those that nothing leads to lie at the centre.
    """
    places = places.copy()
    waiting = np.flatnonzero(np.isnan(places[:, 0]))
    while len(waiting):
        blocks = np.array_split(waiting, -(-len(waiting) // BLOCK))
        found = np.concatenate([_between(places, neighbours[block], similarity[block]) for block in blocks])
        ready = ~np.isnan(found[:, 0])
        if not ready.any():
            break
        places[waiting[ready]] = found[ready]
        waiting = waiting[~ready]
    return np.nan_to_num(places)


def _between(places: Float32, near: tsne.Neighbours, similarity: Float32) -> Float32:
    """The weighted mean of the nearest of `near` [n, k] that have a place, float32 [n, 2]; NaN where none has."""
    usable = (near >= 0) & ~np.isnan(places[near, 0])
    usable &= np.cumsum(usable, axis=1) <= PLACED_BY
    weights = usable * np.maximum(similarity, 1e-6) ** 4  # the nearest count most
    total = weights.sum(axis=1, keepdims=True)
    weights /= np.where(total > 0, total, np.nan)
    means: Float32 = np.einsum("nk,nkd->nd", weights, np.nan_to_num(places[near])).astype(np.float32)
    return means


def _write(run_dir: RunDir, images: pa.Table, ids: Ids, places: Float32) -> None:
    numbers = images["id"].to_numpy()
    is_copy = pc.and_(pc.equal(images["status"], records.DUPLICATE), pc.is_valid(images["duplicate_of"])).to_numpy()
    all_places = np.full((int(numbers.max(initial=-1)) + 1, 2), np.nan, np.float32)
    all_places[ids] = places
    originals = images["duplicate_of"].filter(pa.array(is_copy)).to_numpy().astype(np.int64)
    all_places[numbers[is_copy]] = all_places[originals]
    mapped = numbers[~np.isnan(all_places[numbers, 0])]
    columns = {"id": mapped, "x": all_places[mapped, 0], "y": all_places[mapped, 1]}
    records.write_table(run_dir.new("map.parquet"), pa.table(columns, schema=records.MAP))
