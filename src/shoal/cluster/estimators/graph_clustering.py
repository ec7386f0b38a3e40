"""Communities of an array's rows as a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from shoal.cluster.estimators.placed import PlacedEstimator
from shoal.cluster.graph import find
from shoal.cluster.space import ArrayRows

if TYPE_CHECKING:
    from typing import Self


class GraphClustering(PlacedEstimator):
    """Cluster features by communities of their neighbour graph (Leiden), however large or small those are.

    Args:
        n_clusters: how many clusters; from 1 to the number of rows. The resolution that gives so many is looked for.
        random_state: seed, numpy RandomState or None.

    Attributes:
        labels_: int32 [n], cluster of each row.
        modularity_: of those clusters in the graph of shared neighbours, from −1/2 to 1.

    Example:
        >>> import numpy as np
        >>> from shoal.cluster import GraphClustering
        >>> rows = np.random.default_rng(0).normal(np.repeat([[4.0, 0, 1], [0, 4.0, 1]], [90, 10], axis=0))
        >>> np.bincount(GraphClustering(n_clusters=2, random_state=0).fit_predict(rows)).tolist()
        [90, 10]
    """

    def __init__(self, n_clusters: int = 8, *, random_state: int | np.random.RandomState | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: None = None) -> Self:
        """Cluster the rows of X [n, d] by direction. Raises ValueError on parameters out of range."""
        rows = self._rows(X, reset=True)
        self._check_clusters(len(rows))
        seed = int(check_random_state(self.random_state).randint(2**31))
        store = ArrayRows(rows)
        found = find(store, np.arange(len(rows)), int(self.n_clusters), seed)
        self._take(found.placed, store, seed)
        self.modularity_ = found.modularity
        return self
