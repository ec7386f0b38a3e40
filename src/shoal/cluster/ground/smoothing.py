"""Points drawn towards their neighbours, which takes out what sets single images apart and leaves what kinds share."""

from __future__ import annotations

import numpy as np

from shoal.cluster import threads
from shoal.cluster.arrays import Neighbours
from shoal.embeddings import Float32, normalise_rows

NEIGHBOURS = 15
ROUNDS = 4
OWN_SHARE = np.float32(0.5)
TINY = 1e-12


def smoothed(points: Float32, neighbours: Neighbours) -> Float32:
    """Lazy random walks of unit points [n, d] over their neighbour graph, unit again: new float32 [n, d].

    Each round moves a point half the way to the mean of its neighbours, in the graph that joins two images if either
    is among the nearest 15 of the other (the low-pass filter of Wu et al., Simplifying Graph Convolutional Networks,
    2019, equation 8, with half of each point kept).
    """
    from scipy import sparse  # noqa: PLC0415  (a tenth of a second that k-means need not wait for)

    n, m = len(points), min(NEIGHBOURS, neighbours.shape[1])
    links = sparse.csr_array(
        (np.ones(n * m, np.float32), neighbours[:, :m].ravel(), np.arange(0, n * m + 1, m)), shape=(n, n)
    )
    graph = links + links.T
    graph = sparse.diags_array(np.float32(1) / graph.sum(axis=1)) @ graph
    moved: Float32 = points
    for _ in range(ROUNDS):
        moved = normalise_rows(OWN_SHARE * moved + (1 - OWN_SHARE) * (graph @ moved).astype(np.float32))
    return moved


def principal(points: Float32, dims: int) -> tuple[Float32, Float32]:
    """The `dims` leading principal coordinates of points [n, d], each of variance 1: float32 [n, ≤ dims].

    And the standard deviations that they had, falling, [≤ dims].
    """
    mean = points.mean(axis=0, dtype=np.float64)
    covariance = (points.T @ points).astype(np.float64) / len(points) - np.outer(mean, mean)
    variances, directions = threads.eigh(covariance)
    order = np.argsort(-variances)[:dims]
    order = order[: max(1, int(np.sum(variances[order] > 1e-7 * variances[order[0]])))]  # equal points have one of 0
    deviations = np.sqrt(np.maximum(variances[order], TINY))
    basis = (directions[:, order] / deviations).astype(np.float32)
    return (points - mean.astype(np.float32)) @ basis, deviations.astype(np.float32)
