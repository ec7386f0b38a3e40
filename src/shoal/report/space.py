"""The vectors that clusters were made of, read back from a run."""

from __future__ import annotations

import numpy as np

from shoal import blas
from shoal.cluster import threads
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import cluster_points
from shoal.embeddings import EmbeddingStore, Float32, Ids
from shoal.rundir import RunDir


def clustering_space(run_dir: RunDir, ids: Ids) -> Float32:
    """Rows of `ids` in the space the clusters were made in, [len(ids), d].

    Raises:
        RunError: the run has no finished embeddings or no model.
    """
    space = ClusterModel.load(run_dir.model).space.plain
    store = EmbeddingStore.open(run_dir.embeddings)
    return cluster_points(space, store, ids)[0]


def principal_components(points: Float32, count: int = 2) -> Float32:
    """The points along the `count` directions in which they spread most, float32 [N, count]; signs are fixed."""
    centre = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    if len(points) < points.shape[1]:
        with blas.single():
            left, lengths, _ = np.linalg.svd(points - centre, full_matrices=False)
        found = left * lengths
    else:
        covariance = (points.T @ points) / np.float32(len(points)) - np.outer(centre, centre)
        _, directions = threads.eigh(covariance.astype(np.float64))
        found = (points - centre) @ directions[:, : -count - 1 : -1].astype(np.float32)
    components = np.zeros((len(points), count), np.float32)
    width = min(count, found.shape[1])
    components[:, :width] = found[:, :width]
    # Of the two directions along a line, the one in which the farthest point is positive.
    farthest = np.abs(components).argmax(axis=0)
    signs = np.where(np.take_along_axis(components, farthest[None], axis=0) < 0, -1, 1).astype(np.float32)
    return components * signs
