"""k-means with one Lloyd loop for two geometries: spherical (cosine, unit rows) and Euclidean.

Both assign a point x to the centroid c with the greatest *score*: x·c on the sphere, x·c − ‖c‖²/2 in Euclidean space
(minus half the squared distance, up to a term of x alone). Memory is bounded by a block of scores.

Many clusters start as parts of fewer: k-means++ looks at every point for every cluster, one after another, which is
quadratic in K where points grow with clusters.

Sources: Lloyd, Least squares quantization in PCM (1982); Arthur and Vassilvitskii, k-means++ (2007), with the greedy
trials of scikit-learn; Dhillon and Modha, Concept decompositions (2001) for the spherical form.
"""

from shoal.cluster.kmeans.fitting import START_IMAGES_PER_CLUSTER, fit, starts_for
from shoal.cluster.kmeans.rounds import Clustering, inertia, lloyd
from shoal.cluster.kmeans.scores import COSINE, EUCLIDEAN, assign, score_blocks
from shoal.cluster.kmeans.sums import cluster_sums, means_of, number_by_size

__all__ = [
    "COSINE",
    "EUCLIDEAN",
    "START_IMAGES_PER_CLUSTER",
    "Clustering",
    "assign",
    "cluster_sums",
    "fit",
    "inertia",
    "lloyd",
    "means_of",
    "number_by_size",
    "score_blocks",
    "starts_for",
]
