"""Learned clusters of an array as a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from shoal.cluster.estimators.placed import PlacedEstimator
from shoal.cluster.heads.objectives import OBJECTIVES
from shoal.cluster.learned.learning import FEWEST_HEADS, learn
from shoal.cluster.space import ArrayRows

if TYPE_CHECKING:
    from typing import Self


class LearnedClustering(PlacedEstimator):
    """Cluster features by linear heads trained so that neighbours agree, and what the heads together say.

    Args:
        n_clusters: how many clusters; from 1 to the number of rows.
        objective: what the heads are trained for: `mutual_information` (Ji et al., 2019), `scan` (Van Gansbeke et al.,
            2020), `temi` (Adaloglou et al., 2023), `icon` (Alshammari et al., 2025) or `turtle` (Gadetsky et al.,
            2024). `shoal.cluster.heads.objectives` has the formulas.
        n_heads: how many heads are trained, from 2 up: half of them for clusters of one size, half for sizes of their
            own (of more than 20,000 rows a third, 10 at the most). None takes 48, or 58 of more than 20,000 rows (48
            and 10), and fewer for more than 20 clusters.
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
        self._check_clusters(len(rows))
        if self.n_heads is not None:
            self._check_least("n_heads", FEWEST_HEADS)
        seed = int(check_random_state(self.random_state).randint(2**31))
        store, ids = ArrayRows(rows), np.arange(len(rows))
        learned = learn(store, ids, int(self.n_clusters), seed, objective=self.objective, heads=self.n_heads)
        self._take(learned.placed, store, seed)
        self.agreement_ = learned.agreement
        self.loss_ = learned.loss
        return self
