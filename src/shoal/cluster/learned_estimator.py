"""Learned clusters of an array as a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from shoal.cluster.estimators import single_precision
from shoal.cluster.learned import learn
from shoal.cluster.model import fit_model
from shoal.cluster.objectives import OBJECTIVES
from shoal.cluster.space import ArrayRows, points_of
from shoal.embeddings import Float32

if TYPE_CHECKING:
    from typing import Self


class LearnedClustering(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Cluster features by linear heads trained so that neighbours agree, and what the heads together say.

    Args:
        n_clusters: how many clusters; from 1 to the number of rows.
        objective: what the heads are trained for: `mutual_information` (Ji et al., 2019), `scan` (Van Gansbeke et al.,
            2020), `temi` (Adaloglou et al., 2023), `icon` (Alshammari et al., 2025) or `turtle` (Gadetsky et al.,
            2024). `shoal.cluster.objectives` has the formulas.
        n_heads: how many heads are trained, side by side; None takes 32, fewer for many clusters.
        random_state: seed, numpy RandomState or None.

    Attributes:
        labels_: int32 [n], cluster of each row.
        agreement_: mean adjusted Rand index of the sound heads with `labels_`, at most 1.
        loss_: mean loss of those heads on pairs of which the first row trained no head.

    Example:
        >>> import numpy as np
        >>> from shoal.cluster import LearnedClustering
        >>> rows = np.random.default_rng(0).normal(np.repeat([[4.0, 0, 1], [0, 4.0, 1]], 50, axis=0))
        >>> clusters = LearnedClustering(n_clusters=2, n_heads=4, random_state=0).fit(rows)
        >>> clusters.predict_proba(rows).shape
        (100, 2)
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        objective: str = "mutual_information",
        n_heads: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.objective = objective
        self.n_heads = n_heads
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: None = None) -> Self:
        """Cluster the rows of X [n, d] by direction. Raises ValueError on parameters out of range."""
        rows = self._rows(X, reset=True)
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"The 'objective' parameter of LearnedClustering must be one of {', '.join(OBJECTIVES)}. "
                f"Got {self.objective!r} instead."
            )
        for name, least in (("n_clusters", 1), ("n_heads", 1)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and value >= least) and (name, value) != ("n_heads", None):
                raise ValueError(
                    f"The {name!r} parameter of LearnedClustering must be a whole number from {least} up. "
                    f"Got {value!r} instead."
                )
        if self.n_clusters > len(rows):
            raise ValueError(f"n_samples={len(rows)} should be >= n_clusters={self.n_clusters}.")
        seed = int(check_random_state(self.random_state).randint(2**31))
        store, ids = ArrayRows(rows), np.arange(len(rows))
        learned = learn(store, ids, int(self.n_clusters), seed, objective=self.objective, heads=self.n_heads)
        plain, _ = points_of(learned.space.plain, store, ids)
        self._model = fit_model(learned.space, learned.found, learned.points, learned.lengths, seed, plain)
        self.labels_ = learned.found.labels
        self.agreement_ = learned.agreement
        self.loss_ = learned.loss
        return self

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

    def _rows(self, X: npt.ArrayLike, *, reset: bool) -> Float32:
        checked: Any = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=2 * reset or 1
        )
        return single_precision(checked)
