"""Each image's likeliest clusters by a finished model, for the accuracy within the first five."""

from __future__ import annotations

import numpy as np

from shoal.cluster import kmeans
from shoal.cluster.arrays import Labels
from shoal.corrections.corrected import NONE
from shoal.corrections.model import CorrectedModel
from shoal.embeddings import Float32


def ranked_clusters(corrected: CorrectedModel, features: Float32, count: int) -> Labels:
    """The `count` likeliest clusters (or all, if there are fewer) of raw features [n, d], int32, likeliest first.

    A cluster of several centroids is as likely as they are together. Told by logarithms: the posteriors of all but the
    nearest clusters may be too small for a number.
    """
    model = corrected.model
    points, _ = model.space.project(features)
    order = np.argsort(corrected.numbers, kind="stable")
    clusters, starts = np.unique(corrected.numbers[order], return_index=True)
    kept = min(count, len(clusters))
    ranked = np.empty((len(points), kept), np.int32)
    if not kept:  # every image is among the noise
        return ranked
    for where, scores in kmeans.score_blocks(points, model.centroids, metric=model.space.metric):
        of_centroids = model.concentration * scores[:, order].astype(np.float64)  # [b, M], up to a constant an image
        of_clusters = np.logaddexp.reduceat(of_centroids, starts, axis=1)  # [b, K]
        ranked[where] = clusters[np.argsort(-of_clusters, axis=1, kind="stable")[:, :kept]]
    return ranked


def led_by(own: Labels, ranked: Labels, count: int) -> Labels:
    """`ranked` [n, r] with each image's own cluster [n] moved, or put, to the front: int32 [n, min(count, r + 1)].

    What a run recorded stands before what its model says: they differ where two clusters are equally near, where a
    person moved images, and among the noise, which no model knows. -1 stands where there is no further cluster.
    """
    others = np.where(ranked == own[:, None], NONE, ranked)
    order = np.argsort(others == NONE, axis=1, kind="stable")
    led: Labels = np.concatenate([own[:, None], np.take_along_axis(others, order, axis=1)], axis=1)[:, :count]
    return led
