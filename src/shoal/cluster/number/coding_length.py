"""How long the points are to tell, cluster by cluster: few clusters waste bits on spread, many on naming them."""

from __future__ import annotations

import numpy as np

from shoal.cluster.arrays import Labels
from shoal.embeddings import Float32

PRECISION = 0.1  # ε, how far a told point may lie from the true one, squared, as in CPP
BITS = 1 / np.log(2)


def coding_length(points: Float32, labels: Labels, k: int) -> float:
    """Bits a point to tell `points` [N, d], unit rows, given in which of k clusters each is; shorter is better.

    Σ_j (m_j + d)/2 · log det(I + d/(ε·m_j)·Z_jᵀZ_j) − m_j·log(m_j/N) over clusters Z_j of m_j points, ε = 0.1 (Ma et
    al., Segmentation of multivariate mixed data, 2007, equation 7; to choose K: Chu et al., Image clustering via the
    principle of rate reduction in the age of pretrained models, CPP, 2024, section 4.2).
    """
    n, d = points.shape
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=k))
    total = 0.0
    for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        members = points[order[start:end]]
        m = len(members)
        if m:
            scatter = (members.T @ members).astype(np.float64)
            total += (m + d) / 2 * float(np.linalg.slogdet(np.eye(d) + d / (PRECISION * m) * scatter)[1])
            total -= m * float(np.log(m / n))
    return float(total / n * BITS)
