"""Clusters from embeddings: the space, k-means, their number, levels, and the model that assigns new images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.cluster.estimators.graph_clustering import GraphClustering
    from shoal.cluster.estimators.learned_clustering import LearnedClustering
    from shoal.cluster.estimators.spherical_kmeans import SphericalKMeans

__all__ = ["GraphClustering", "LearnedClustering", "SphericalKMeans"]


def __getattr__(name: str) -> object:
    # Loaded on use: the estimators need scikit-learn, which takes longer to import than most runs take to cluster.
    if name == "SphericalKMeans":
        from shoal.cluster.estimators.spherical_kmeans import SphericalKMeans  # noqa: PLC0415

        return SphericalKMeans
    if name == "GraphClustering":
        from shoal.cluster.estimators.graph_clustering import GraphClustering  # noqa: PLC0415

        return GraphClustering
    if name == "LearnedClustering":
        from shoal.cluster.estimators.learned_clustering import LearnedClustering  # noqa: PLC0415

        return LearnedClustering
    raise AttributeError(f"module 'shoal.cluster' has no attribute {name!r}")
