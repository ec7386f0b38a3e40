"""Clusters from embeddings: the space, k-means, their number, levels, and the model that assigns new images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.cluster.estimators import SphericalKMeans
    from shoal.cluster.learned_estimator import LearnedClustering

__all__ = ["LearnedClustering", "SphericalKMeans"]


def __getattr__(name: str) -> object:
    # Loaded on use: the estimators need scikit-learn, which takes longer to import than most runs take to cluster.
    if name == "SphericalKMeans":
        from shoal.cluster.estimators import SphericalKMeans  # noqa: PLC0415

        return SphericalKMeans
    if name == "LearnedClustering":
        from shoal.cluster.learned_estimator import LearnedClustering  # noqa: PLC0415

        return LearnedClustering
    raise AttributeError(f"module 'shoal.cluster' has no attribute {name!r}")
