"""Each image's likeliest clusters by a finished model, for the accuracy within the first five."""

from __future__ import annotations

import numpy as np

from shoal.cluster import kmeans
from shoal.cluster.kmeans import Labels
from shoal.cluster.model import ClusterModel
from shoal.embeddings import Float32


def ranked_clusters(model: ClusterModel, features: Float32, count: int) -> Labels:
    """The `count` likeliest clusters (or all, if there are fewer) of raw features [n, d], int32, likeliest first."""
    points, _ = model.space.project(features)
    kept = min(count, len(model.centroids))
    ranked = np.empty((len(points), kept), np.int32)
    for where, scores in kmeans.score_blocks(points, model.centroids, metric=model.space.metric):
        ranked[where] = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
    return ranked


def led_by(own: Labels, ranked: Labels) -> Labels:
    """`ranked` [n, count] with each image's own cluster [n] moved, or put, to the front.

    What a run recorded stands before what its model says: they differ where two clusters are equally near, or where a
    person moved images.
    """
    wide = np.concatenate([own[:, None], ranked], axis=1)  # [n, 1 + count]
    repeated = wide[:, 1:] == own[:, None]
    order = np.argsort(np.concatenate([np.zeros((len(own), 1), bool), repeated], axis=1), axis=1, kind="stable")
    led: Labels = np.take_along_axis(wide, order, axis=1)[:, : ranked.shape[1]]
    return led
