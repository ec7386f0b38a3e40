"""Clusterings of the same features by other people's packages, for standing beside.

All get the raw features scaled to unit length. None of them but k-means says where new images belong, and the density
methods leave noise: both take the cluster of the nearest clustered image by cosine, and the share of noise is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import numpy as np

from shoal.cluster.arrays import Labels
from shoal.cluster.density import nearest_cluster
from shoal.embeddings import Float32

STARTS: Final = 10
HDBSCAN_DIMS: Final = 50  # its documentation advises against more than about 50 to 100 dimensions
HDBSCAN_SHARE: Final = 0.005  # of the images, that a cluster has at the least
HDBSCAN_SAMPLES: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Clusters of the images fitted on, int32 [n], −1 for noise, and a way to place rows of unit length."""

    labels: Labels
    place: Callable[[Float32], Labels]


@dataclass(frozen=True, slots=True)
class Reference:
    """A method of another package.

    Attributes:
        package: what has to be importable, by the name that pip installs it by.
        fit: from rows of unit length float32 [n, d], number of clusters (None: it finds one), seed.
        with_count, without_count: whether it can be told how many clusters, and can do without.
        is_random: whether the seed changes anything.
        setting: what was set otherwise than by default, for people.
    """

    package: str
    fit: Callable[[Float32, int | None, int], Fitted]
    with_count: bool
    without_count: bool
    is_random: bool
    setting: str

    @property
    def is_installed(self) -> bool:
        return find_spec(self.package) is not None


def _sklearn_kmeans(rows: Float32, count: int | None, seed: int) -> Fitted:
    from sklearn.cluster import KMeans  # noqa: PLC0415

    found = KMeans(n_clusters=count or 0, n_init=STARTS, random_state=seed).fit(rows)
    return Fitted(found.labels_.astype(np.int32), lambda new: found.predict(new).astype(np.int32))


def _evoc(rows: Float32, count: int | None, seed: int) -> Fitted:
    from evoc import EVoC  # noqa: PLC0415

    labels = EVoC(approx_n_clusters=count, random_state=seed).fit_predict(rows).astype(np.int32)
    return Fitted(labels, lambda new: nearest_cluster(rows, labels, new))


def _hdbscan(rows: Float32, count: int | None, seed: int) -> Fitted:
    from hdbscan import HDBSCAN  # noqa: PLC0415
    from sklearn.decomposition import PCA  # noqa: PLC0415

    dims = min(HDBSCAN_DIMS, *rows.shape)
    reduced = PCA(dims, random_state=0).fit_transform(rows)
    least = max(HDBSCAN_SAMPLES, round(HDBSCAN_SHARE * len(rows)))
    found = HDBSCAN(min_cluster_size=least, min_samples=HDBSCAN_SAMPLES).fit(reduced)
    labels = found.labels_.astype(np.int32)
    return Fitted(labels, lambda new: nearest_cluster(rows, labels, new))


REFERENCES: Final = {
    "sklearn-kmeans": Reference("sklearn", _sklearn_kmeans, True, False, True, f"{STARTS} starts"),
    "evoc": Reference("evoc", _evoc, True, True, True, "approx_n_clusters where a number is asked for"),
    "hdbscan": Reference(
        "hdbscan",
        _hdbscan,
        False,
        True,
        False,
        f"{HDBSCAN_DIMS} principal components, min_cluster_size {HDBSCAN_SHARE:.1%} of the images, "
        f"min_samples {HDBSCAN_SAMPLES}",
    ),
}
