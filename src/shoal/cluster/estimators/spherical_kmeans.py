"""k-means on the sphere as a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from shoal.cluster import kmeans
from shoal.cluster.estimators.precision import single_precision
from shoal.embeddings import Float32, normalise_rows

if TYPE_CHECKING:
    from typing import Self


class SphericalKMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Cluster rows by direction: k-means under the cosine distance (Dhillon and Modha, 2001).

    Args:
        n_clusters: how many clusters; from 1 to the number of rows.
        n_init: starts; the one with the least inertia is kept. With more than 10,000 rows, or 25 a cluster if that is
            more, starts are compared on a sample of so many, and the best goes on with all rows. Up to 512 clusters
            start by k-means++; more by cutting the rows into parts, each of which has a k-means++ of its own.
        max_iter: rounds of Lloyd at most; where starts run on a sample, so many there, and so many on all rows.
        tol: stop when the centres' mean squared move in a round is at most this.
        random_state: seed, numpy RandomState or None.

    Attributes:
        cluster_centers_: float32 [n_clusters, d], unit rows.
        labels_: int32 [n], cluster of each row; none of them is empty.
        inertia_: sum over rows of 1 − cosine to their centre.
        n_iter_: rounds of the start that was kept; where starts ran on a sample, the rounds on all rows after it.

    Example:
        >>> import numpy as np
        >>> from shoal.cluster import SphericalKMeans
        >>> rows = np.array([[1.0, 0.1], [2.0, 0.1], [0.1, 3.0], [0.1, 1.0]])
        >>> labels = SphericalKMeans(n_clusters=2, random_state=0).fit_predict(rows)
        >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
        True
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_init: int = 10,
        max_iter: int = 300,
        tol: float = 1e-6,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: None = None) -> Self:
        """Cluster the rows of X [n, d]; lengths do not matter. Raises ValueError on parameters out of range."""
        rows = self._unit_rows(X, reset=True)
        for name in ("n_clusters", "n_init", "max_iter"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(
                    f"The {name!r} parameter of SphericalKMeans must be a whole number from 1 up. Got {value!r}."
                )
        if self.n_clusters > len(rows):
            raise ValueError(f"n_samples={len(rows)} should be >= n_clusters={self.n_clusters}.")
        seed = check_random_state(self.random_state).randint(2**31)
        found = kmeans.fit(
            rows,
            self.n_clusters,
            np.random.default_rng(seed),
            starts=self.n_init,
            max_iterations=self.max_iter,
            tolerance=self.tol,
        )
        self.cluster_centers_ = found.centroids
        self.labels_ = found.labels
        self.inertia_ = found.inertia
        self.n_iter_ = found.iterations
        self._n_features_out = len(found.centroids)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """The nearest centre of each row of X [n, d], int32 [n]."""
        check_is_fitted(self)
        return kmeans.assign(self._unit_rows(X, reset=False), self.cluster_centers_)[0]

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Cosine distance of each row of X [n, d] to each centre, [n, n_clusters] in X's dtype, from 0 to 2."""
        check_is_fitted(self)
        distances = 1 - self._unit_rows(X, reset=False) @ self.cluster_centers_.T
        return distances.astype(np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64)

    def score(self, X: npt.ArrayLike, y: None = None) -> float:
        """Minus the inertia of the rows of X [n, d]: the sum over them of cosine − 1."""
        check_is_fitted(self)
        _, similarity = kmeans.assign(self._unit_rows(X, reset=False), self.cluster_centers_)
        return float(np.sum(similarity, dtype=np.float64) - len(similarity))

    def _unit_rows(self, X: npt.ArrayLike, *, reset: bool) -> Float32:
        checked: Any = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        return normalise_rows(single_precision(checked))
