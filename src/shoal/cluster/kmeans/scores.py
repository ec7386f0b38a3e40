"""How near points are to centroids, in blocks, and which is the nearest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from shoal.cluster import threads
from shoal.cluster.arrays import Labels
from shoal.embeddings import Float32, products
from shoal.neighbours.search import likely_error

COSINE: Final = "cosine"
EUCLIDEAN: Final = "euclidean"

BLOCK_SCORES = 1 << 18  # scores held at once; a block of them (1 MB) stays in a core's cache
PASS_SCORES = 1 << 26  # of a pass over the points that one core takes on

Scoring = Callable[[Float32, Float32, str], Iterator[tuple[slice, Float32]]]  # points, centroids, metric


def assign(points: Float32, centroids: Float32, *, metric: str = COSINE) -> tuple[Labels, Float32]:
    """The best centroid of each point, int32 [N], and its score, float32 [N]. Ties go to the lower number."""
    return nearest(points, centroids, metric, score_blocks)


def score_blocks(points: Float32, centroids: Float32, metric: str = COSINE) -> Iterator[tuple[slice, Float32]]:
    """Yield (slice of points, scores float32 [points of the slice, K]); greater is nearer.

    Where the last bit would choose among the nearest centroids, it is that of a sum in a fixed order: a matrix product
    rounds by place, and would set apart equal points, or equal centroids.
    """
    gap = np.float32(2 * likely_error(points.shape[1]) * _largest_score(points, centroids, metric))
    offset = _offset(centroids, metric)
    for where, scores in estimates(points, centroids, metric):
        close = scores >= scores.max(axis=1, keepdims=True) - gap
        rows = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)
        columns = np.flatnonzero(close[rows].any(axis=0))
        again = products(points[where][rows], centroids[columns]) - offset[columns]
        tied = np.ix_(rows, columns)
        scores[tied] = np.where(close[tied], again, scores[tied])
        yield where, scores


def nearest(points: Float32, centroids: Float32, metric: str, scoring: Scoring) -> tuple[Labels, Float32]:
    """What `assign` gives, by the scores of `scoring`: `score_blocks`, or `estimates`, which are sooner there."""
    labels = np.empty(len(points), np.int32)
    scores = np.empty(len(points), np.float32)

    def look(start: int) -> None:
        part = slice(start, start + rows)
        for where, block in scoring(points[part], centroids, metric):
            labels[part][where] = block.argmax(axis=1)
            scores[part][where] = block[np.arange(len(block)), labels[part][where]]

    rows = max(1, PASS_SCORES // len(centroids))
    if len(points) <= rows:
        look(0)
    else:
        list(threads.each(look, range(0, len(points), rows)))
    return labels, scores


def estimates(points: Float32, centroids: Float32, metric: str) -> Iterator[tuple[slice, Float32]]:
    """Yield (slice of points, scores [points of the slice, K]) as a matrix product rounds them."""
    transposed = np.ascontiguousarray(centroids.T)
    offset = _offset(centroids, metric)
    rows = max(1, BLOCK_SCORES // len(centroids))
    for start in range(0, len(points), rows):
        where = slice(start, min(start + rows, len(points)))
        scores = points[where] @ transposed  # [rows, K]
        if metric == EUCLIDEAN:
            scores -= offset
        yield where, scores


def _offset(centroids: Float32, metric: str) -> Float32:
    """What is taken from the products with each centroid, [K]."""
    if metric == COSINE:
        return np.zeros(len(centroids), np.float32)
    offset: Float32 = np.float32(0.5) * np.einsum("kd,kd->k", centroids, centroids)
    return offset


def _largest_score(points: Float32, centroids: Float32, metric: str) -> float:
    """A bound on the size of the scores."""
    if metric == COSINE:
        return 1.0
    point, centroid = (math.sqrt(np.einsum("nd,nd->n", rows, rows).max(initial=0)) for rows in (points, centroids))
    return point * centroid + centroid**2 / 2
