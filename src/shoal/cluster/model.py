"""What `assign` needs besides the encoder: the space, centroids, how far to trust them, how far is too far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans
from shoal.cluster.arrays import Labels
from shoal.cluster.confidence import Landmarks, Values, calibrate, trusted
from shoal.cluster.consensus import Consensus
from shoal.cluster.kmeans import COSINE, Clustering
from shoal.cluster.known import (
    KNOWN_SHARE,
    NO_LIMIT,
    as_if_new,
    closeness_of,
    least_closeness,
    scores_without_itself,
)
from shoal.cluster.model_file import FORMAT_VERSION, ClusterFacts, read_clusters, write_clusters
from shoal.cluster.space import ClusterSpace
from shoal.embeddings import Float32
from shoal.runfiles import Folder

UNSURE_BELOW = 0.5  # confidence under which an image is unsure
IMAGES_PER_DIM = 4  # with fewer images than this a dimension, what lies outside of the space says nothing
NO_OTHER = -1  # the runner-up of an only cluster


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Rows for n images: cluster int32, confidence float32 from 0 to 1, unsure bool, runner_up int32, unknown bool.

    `runner_up` is -1 where there is one cluster only.
    """

    cluster: Labels
    confidence: Float32
    unsure: npt.NDArray[np.bool_]
    runner_up: Labels
    unknown: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, cluster: Labels, confidence: Float32, runner_up: Labels, unknown: npt.NDArray[np.bool_]) -> Assignment:
        """Rows of which those of a confidence below 0.5 are unsure."""
        return cls(cluster, confidence, confidence < UNSURE_BELOW, runner_up, unknown)

    @classmethod
    def together(cls, blocks: Sequence[Assignment]) -> Assignment:
        """The rows of all blocks, one after another."""
        return cls(*(np.concatenate([getattr(block, item.name) for block in blocks]) for item in fields(cls)))


@dataclass(frozen=True, slots=True, eq=False)
class ClusterModel:
    """Clusters as centroids [K, dims] in a space; all else is fitted without labels.

    Confidence is the posterior of a mixture of K equal components around the centroids, softmax(concentration · score),
    with the score of k-means, as far as the landmarks trust it (`shoal.cluster.confidence`; models of before 2026-11-28
    have none, and are trusted). An image is unknown if its closeness is below `least_closeness` of its cluster: the
    cosine between its centred feature in the full space and the centroid (Euclidean: minus the distance); or if its
    feature is longer outside of the space than `most_outside`, as those of noise and empty pictures are.
    """

    space: ClusterSpace
    centroids: Float32
    concentration: float
    least_closeness: Float32  # [K]
    most_outside: float
    landmarks: Landmarks | None = None

    def assign(self, features: Float32) -> Assignment:
        """Assign raw features float32 [n, d]."""
        return self.assign_points(*self.space.project(features))

    def assign_points(self, points: Float32, lengths: Float32) -> Assignment:
        """Assign points [n, dims] of the space; `lengths` [n, 2] as `ClusterSpace.project` gives them."""
        cluster, runner_up = np.empty(len(points), np.int32), np.empty(len(points), np.int32)
        confidence, score = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
        for where, scores in kmeans.score_blocks(points, self.centroids, metric=self.space.metric):
            rows, best = np.arange(len(scores)), scores.argmax(axis=1)
            cluster[where], score[where] = best, scores[rows, best]
            confidence[where] = 1 / np.exp(self.concentration * (scores - score[where, None])).sum(axis=1)
            scores[rows, best] = -np.inf
            runner_up[where] = scores.argmax(axis=1) if len(self.centroids) > 1 else NO_OTHER
        confidence = self.trusted(confidence, points, len(self.centroids))
        closeness = closeness_of(points, score, lengths, self.space.metric)
        unknown = (closeness < self.least_closeness[cluster]) | (lengths[:, 1] > self.most_outside)
        return Assignment.of(cluster, confidence, runner_up, unknown)

    def probabilities(self, features: Float32) -> npt.NDArray[np.float64]:
        """Confidence in each cluster of raw features float32 [n, d], [n, K]; rows sum to 1."""
        points, _ = self.space.project(features)
        found = np.empty((len(points), len(self.centroids)))
        for where, scores in kmeans.score_blocks(points, self.centroids, metric=self.space.metric):
            found[where] = np.exp(self.concentration * (scores - scores.max(axis=1, keepdims=True)))
        found /= found.sum(axis=1, keepdims=True)
        return self.trusted(found, points, len(self.centroids))

    def trusted(self, posterior: Values, points: Float32, k: int) -> Values:
        """The posterior of each point's own cluster [n], or of all of k clusters [n, k], as far as it is trusted."""
        if self.landmarks is None:
            return posterior
        return trusted(posterior, self.landmarks.trust_at(points, self.space.metric), k)

    def save(self, folder: Folder, numbers: Labels | None = None, names: Mapping[int, str] | None = None) -> None:
        """Write clusters.safetensors, clusters.json and, if there are names, names.json into `folder`.

        `numbers` [K] are the clusters of the centroids, where several belong to one; None: each is one.
        """
        tensors: dict[str, npt.NDArray[Any]] = {
            "mean": self.space.mean,
            "centroids": self.centroids,
            "least_closeness": self.least_closeness,
        }
        if numbers is not None:
            tensors["numbers"] = numbers
        if self.space.basis is not None and self.space.scales is not None:
            tensors |= {"basis": np.ascontiguousarray(self.space.basis), "scales": self.space.scales}
        if self.space.consensus is not None:
            tensors |= self.space.consensus.tensors()
        if self.landmarks is not None:
            tensors |= self.landmarks.tensors()
        clusters = len(self.centroids) if numbers is None else len(np.unique(numbers))
        facts = ClusterFacts(FORMAT_VERSION, self.space.metric, clusters, self.concentration, self.most_outside)
        write_clusters(folder, facts, tensors, names or {})

    @classmethod
    def load(cls, folder: Folder) -> ClusterModel:
        """The clusters of a model folder, without the numbers and names that people gave them.

        Raises:
            RunError: there are none, or a value or a shape that no clusters have.
        """
        return cls.load_numbered(folder)[0]

    @classmethod
    def load_numbered(cls, folder: Folder) -> tuple[ClusterModel, Labels]:
        """The clusters of a model folder, and the cluster [K] of each centroid.

        Raises:
            RunError: there are none, or a value or a shape that no clusters have.
        """
        facts, tensors, numbers = read_clusters(folder)
        consensus, landmarks = Consensus.of_tensors(tensors), Landmarks.of_tensors(tensors)
        space = ClusterSpace(facts.metric, tensors["mean"], tensors.get("basis"), tensors.get("scales"), consensus)
        centroids, least = tensors["centroids"], tensors["least_closeness"]
        return cls(space, centroids, facts.concentration, least, facts.most_outside, landmarks), numbers


def fit_model(
    space: ClusterSpace,
    found: Clustering,
    points: Float32,
    lengths: Float32,
    seed: int,
    plain: Float32 | None = None,
    level: float | None = None,
) -> ClusterModel:
    """Calibrate a clustering of `points` [N, dims], with `lengths` [N, 2], so that it can assign others.

    `plain` [N, d] are the points of the same images in `space.plain`, where that is another space; `level` is as
    `calibrate` has it.
    """
    metric = space.metric
    random = np.random.default_rng([seed, 1])
    concentration, landmarks = calibrate(points, found.centroids, random, metric, plain, level)
    dims = points.shape[1] if space.basis is None else space.basis.shape[1]
    lengths = as_if_new(lengths, dims)
    scores = scores_without_itself(points, found, metric)
    closeness = closeness_of(points, scores, lengths, metric)
    least = least_closeness(closeness, found.labels, len(found.centroids))
    spared = metric == COSINE and len(points) >= IMAGES_PER_DIM * dims
    most_outside = float(np.quantile(lengths[:, 1], KNOWN_SHARE)) if spared else NO_LIMIT
    return ClusterModel(space, found.centroids, concentration, least, most_outside, landmarks)
