"""The weighted k-NN classifier by which self-supervised features are watched (Wu et al., 2018). Monitoring only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

K = 100
TEMPERATURE = 0.1


def knn_accuracy(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], queries: int, k: int = K) -> float:
    """Share of the first `queries` rows whose label the nearest others vote for, each with weight exp(cosine / 0.1).

    Args:
        features: [n, d]; labels: [n]. A query is compared with all rows but itself.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    queries = min(queries, len(unit))
    similarity = unit[:queries] @ unit.T
    similarity[np.arange(queries), np.arange(queries)] = -np.inf
    k = min(k, len(unit) - 1)
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / TEMPERATURE)
    votes = np.zeros((queries, int(labels.max()) + 1))
    np.add.at(votes, (np.arange(queries)[:, None], labels[nearest]), weights)
    return float((votes.argmax(axis=1) == labels[:queries]).mean())
