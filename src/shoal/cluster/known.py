"""How close an image must lie to a cluster to count as known: as nearly all do that the cluster was made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans
from shoal.cluster.arrays import Float64
from shoal.cluster.kmeans import COSINE, Clustering
from shoal.embeddings import Float32

KNOWN_SHARE = 0.995  # share of the images that clusters were made of which each of two tests counts as known
NO_LIMIT = float(np.finfo(np.float32).max)
MARGIN = np.float32(1e-4)
ROWS = 8192  # points worked on at once


def least_closeness(
    closeness: Float32, labels: npt.NDArray[np.integer], k: int, margin: np.float32 = MARGIN
) -> Float32:
    """How close an image must lie to the centroid of each cluster to count as known, float32 [k].

    Of a cluster of few images that is what would do for all images.

    Args:
        closeness: [n], of images to the centroid of their label [n], as `closeness_of` gives it.
        margin: for rounding, so much less will do.
    """
    least = np.full(k, np.quantile(closeness, 1 - KNOWN_SHARE), np.float32)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=k))[:-1])
    for cluster, own in enumerate(members):
        if len(own) >= 2 / (1 - KNOWN_SHARE):  # enough images for a quantile of their own
            least[cluster] = np.quantile(closeness[own], 1 - KNOWN_SHARE)
    return least - margin


def closeness_of(points: Float32, scores: Float32, lengths: Float32, metric: str) -> Float32:
    """How close images lie to their centroid, [n]; greater is closer.

    Args:
        points, lengths: [n, dims] and [n, 2] as `ClusterSpace.project` gives them.
        scores: [n], of each point to its centroid.
    """
    inside, outside = lengths[:, 0], lengths[:, 1]
    if metric == COSINE:
        whole = np.hypot(inside, outside)
        return scores * np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    squares = np.einsum("nd,nd->n", points, points) + outside**2
    closeness: Float32 = -np.sqrt(np.maximum(squares - 2 * scores, 0))  # ‖x − c‖² = ‖x‖² − 2(x·c − ‖c‖²/2)
    return closeness


def as_if_new(lengths: Float32, dims: int) -> Float32:
    """Lengths [N, 2] as new images would have them: the space fits the images it was made of better than others.

    Of N images, directions fitted to them leave out a mean square smaller by (N − dims)/(N + dims) than of new ones
    (to first order, as for the residuals of a regression on `dims` variables; Akaike, Final prediction error, 1969).
    """
    freedom = max(len(lengths) - dims, 1)
    stretch = np.array([1, ((len(lengths) + dims) / freedom) ** 0.5], np.float32)
    return lengths * stretch


def scores_without_itself(points: Float32, found: Clustering, metric: str) -> Float32:
    """Score of each point [N] to its centroid as it would be without the point, which drew it near.

    What it drew is told by the mean of its cluster, with it and without; a centroid need not be that mean. A point that
    is alone in its cluster scores as its centroid's opposite would: nothing else says how far is too far.
    """
    sums, counts = kmeans.cluster_sums(points, found.labels, len(found.centroids))
    members = counts[found.labels]
    # x·S and ‖S‖² of the sum S of the cluster, and x·c and ‖c‖² of its centroid.
    squares = np.einsum("nd,nd->n", points, points, dtype=np.float64)
    products, direct = np.empty(len(points)), np.empty(len(points))
    for start in range(0, len(points), ROWS):
        rows = slice(start, start + ROWS)
        products[rows] = np.einsum("nd,nd->n", points[rows], sums[found.labels[rows]])
        direct[rows] = np.einsum("nd,nd->n", points[rows], found.centroids[found.labels[rows]])
    lengths = np.einsum("kd,kd->k", sums, sums)[found.labels]
    lengths_without = np.maximum(lengths - 2 * products + squares, 0)
    if metric == COSINE:
        drawn = _divided(products, np.sqrt(lengths)) - _divided(products - squares, np.sqrt(lengths_without))
    else:
        direct -= np.einsum("kd,kd->k", found.centroids, found.centroids)[found.labels] / 2
        others = np.maximum(members - 1, 1)
        drawn = products / members - lengths / members**2 / 2
        drawn -= (products - squares) / others - lengths_without / others**2 / 2
    scores = direct - drawn
    scores[members == 1] = -1 if metric == COSINE else scores.min(initial=0)
    single: Float32 = scores.astype(np.float32)
    return single


def _divided(values: Float64, by: Float64) -> Float64:
    """The quotient, and 0 where `by` is 0."""
    return np.divide(values, by, out=np.zeros(len(values)), where=by > 0)
