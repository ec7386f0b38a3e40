"""What estimators of clusters that one head places have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from shoal.cluster.estimators.precision import single_precision
from shoal.cluster.heads.placed import Placed
from shoal.cluster.model import fit_model
from shoal.cluster.space import Rows, points_of
from shoal.embeddings import Float32


class PlacedEstimator(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Clusters whose model is taken over from a `Placed`."""

    n_clusters: int

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """The likeliest cluster of each row of X [n, d], int32 [n]."""
        check_is_fitted(self)
        return self._model.assign(self._rows(X, reset=False)).cluster

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """How likely each row of X [n, d] belongs to each cluster, [n, n_clusters]; rows sum to 1.

        Calibrated by how many of an image's neighbours are in its cluster, and by how far another kind of clustering
        agrees.
        """
        check_is_fitted(self)
        return self._model.probabilities(self._rows(X, reset=False))

    def _take(self, placed: Placed, rows: Rows, seed: int) -> None:
        plain, _ = points_of(placed.space.plain, rows, np.arange(len(placed.points)))
        self._model = fit_model(placed.space, placed.found, placed.points, placed.lengths, seed, plain, placed.level)
        self.labels_ = placed.found.labels

    def _check_clusters(self, rows: int) -> None:
        """Raise ValueError if `n_clusters` is no whole number from 1 to the number of rows."""
        self._check_least("n_clusters", 1)
        if self.n_clusters > rows:
            raise ValueError(f"n_samples={rows} should be >= n_clusters={self.n_clusters}.")

    def _check_least(self, name: str, least: int) -> None:
        """Raise ValueError if the parameter `name` is no whole number from `least` up."""
        value = getattr(self, name)
        if not (isinstance(value, (int, np.integer)) and value >= least):
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must be a whole number from {least} up. "
                f"Got {value!r} instead."
            )

    def _rows(self, X: npt.ArrayLike, *, reset: bool) -> Float32:
        checked: Any = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=2 * reset or 1
        )
        return single_precision(checked)
