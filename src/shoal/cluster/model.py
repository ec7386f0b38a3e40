"""What `assign` needs besides the encoder: the space, centroids, how peaked clusters are, how far is too far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shoal import atomic
from shoal.cluster import kmeans
from shoal.cluster.kmeans import COSINE, Clustering, Labels
from shoal.cluster.space import ClusterSpace
from shoal.embeddings import Float32
from shoal.errors import RunError

FORMAT_VERSION = 1
UNSURE_BELOW = 0.5  # confidence under which an image is unsure
KNOWN_SHARE = 0.995  # share of the images that clusters were made of which count as known
TEMPERATURES = np.geomspace(0.25, 256.0, 61)  # concentrations looked at


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Rows for n images: cluster int32, confidence float32 from 0 to 1, unsure bool, runner_up int32, unknown bool."""

    cluster: Labels
    confidence: Float32
    unsure: npt.NDArray[np.bool_]
    runner_up: Labels
    unknown: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ClusterModel:
    """Clusters as centroids [K, dims] in a space; `concentration` and `least_closeness` are fitted without labels.

    Confidence is the posterior of a mixture of K equal components around the centroids, softmax(concentration · score),
    with the score of k-means. Closeness is the cosine between an image's centred feature in the full space and its
    centroid (Euclidean: minus the distance); below `least_closeness` of its cluster an image is unknown.
    """

    space: ClusterSpace
    centroids: Float32
    concentration: float
    least_closeness: Float32  # [K]

    def assign(self, features: Float32) -> Assignment:
        """Assign raw features float32 [n, d]."""
        return self.assign_points(*self.space.project(features))

    def assign_points(self, points: Float32, inside: Float32) -> Assignment:
        """Assign points [n, dims] of the space; `inside` [n] as `ClusterSpace.project` gives it."""
        cluster, runner_up = np.empty(len(points), np.int32), np.empty(len(points), np.int32)
        confidence, score = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
        for where, scores in kmeans.score_blocks(points, self.centroids, metric=self.space.metric):
            order = np.argsort(-scores, axis=1, kind="stable")[:, :2]
            cluster[where], runner_up[where] = order[:, 0], order[:, -1]
            best = np.take_along_axis(scores, order[:, :1], axis=1)
            score[where] = best[:, 0]
            confidence[where] = 1 / np.exp(self.concentration * (scores - best)).sum(axis=1)
        closeness = closeness_of(points, score, inside, self.space.metric)
        return Assignment(
            cluster, confidence, confidence < UNSURE_BELOW, runner_up, closeness < self.least_closeness[cluster]
        )

    def save(self, folder: Path, numbers: Labels | None = None) -> None:
        """Write clusters.safetensors and clusters.json into `folder`.

        `numbers` [K] are the clusters of the centroids, where several belong to one; None: each is one.
        """
        tensors: dict[str, Any] = {
            "mean": self.space.mean,
            "centroids": self.centroids,
            "least_closeness": self.least_closeness,
        }
        if numbers is not None:
            tensors["numbers"] = numbers
        if self.space.basis is not None and self.space.scales is not None:
            tensors |= {"basis": np.ascontiguousarray(self.space.basis), "scales": self.space.scales}
        with atomic.replacing(folder / "clusters.safetensors") as temporary:
            save_file(tensors, temporary)
        atomic.write_json(
            folder / "clusters.json", self.to_json(len(self.centroids) if numbers is None else len(np.unique(numbers)))
        )

    def to_json(self, clusters: int) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "metric": self.space.metric,
            "clusters": clusters,
            "concentration": self.concentration,
        }

    @classmethod
    def load(cls, folder: Path) -> ClusterModel:
        """Raises RunError if the folder holds no readable clusters."""
        try:
            facts = json.loads((folder / "clusters.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "clusters.safetensors")
            space = ClusterSpace(facts["metric"], tensors["mean"], tensors.get("basis"), tensors.get("scales"))
            return cls(space, tensors["centroids"], facts["concentration"], tensors["least_closeness"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise RunError(f"{folder} holds no readable clusters: {error}") from error


def fit_model(space: ClusterSpace, found: Clustering, points: Float32, inside: Float32, seed: int) -> ClusterModel:
    """Calibrate a clustering of `points` [N, dims] so that it can assign others."""
    metric = space.metric
    concentration = _concentration(points, len(found.centroids), metric, np.random.default_rng([seed, 1]))
    least = least_closeness(points, inside, found.labels, found.centroids, metric)
    return ClusterModel(space, found.centroids, concentration, least)


def least_closeness(
    points: Float32, inside: Float32, labels: npt.NDArray[np.integer], centroids: Float32, metric: str
) -> Float32:
    """How close an image must lie to the centroid of each cluster to count as known, [K]."""
    scores = np.einsum("nd,nd->n", points, centroids[labels])
    if metric != COSINE:
        scores -= np.float32(0.5) * np.einsum("kd,kd->k", centroids, centroids)[labels]
    closeness = closeness_of(points, scores, inside, metric)
    overall = np.quantile(closeness, 1 - KNOWN_SHARE)
    least = np.full(len(centroids), overall, np.float32)
    for cluster in range(len(centroids)):
        members = closeness[labels == cluster]
        if len(members) >= 2 / (1 - KNOWN_SHARE):  # enough images for a quantile of their own
            least[cluster] = np.quantile(members, 1 - KNOWN_SHARE)
    return least - np.float32(1e-4)


def closeness_of(points: Float32, scores: Float32, inside: Float32, metric: str) -> Float32:
    """How close images lie to their centroid, given their score to it; greater is closer."""
    if metric == COSINE:
        return scores * inside
    lengths = np.einsum("nd,nd->n", points, points)
    closeness: Float32 = -np.sqrt(np.maximum(lengths - 2 * scores, 0))  # ‖x − c‖² = ‖x‖² − 2(x·c − ‖c‖²/2)
    return closeness


def _concentration(points: Float32, k: int, metric: str, rng: np.random.Generator) -> float:
    """How sharply membership falls off, so that confidence says how often two halves of the images agree.

    Two halves are clustered apart; images of each half are placed by both. The concentration is the one under which
    the confidence of the first placement best predicts (in log-likelihood) whether the second half's clusters,
    matched by overlap, put the image in the same place.
    """
    order = rng.permutation(len(points))[:20_000]
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    if len(halves[0]) <= k or k < 2:
        return float(TEMPERATURES[len(TEMPERATURES) // 2])
    sample = points[order]
    fits = [kmeans.fit(points[half], k, rng, metric=metric, starts=2) for half in halves]
    scores = np.concatenate([block for _, block in kmeans.score_blocks(sample, fits[0].centroids, metric=metric)])
    first = scores.argmax(axis=1)
    second, _ = kmeans.assign(sample, fits[1].centroids, metric=metric)
    table = np.zeros((k, k))
    np.add.at(table, (second, first), 1)
    agrees = table.argmax(axis=1)[second] == first
    spread = float(scores.std()) or 1.0
    gaps = (scores - scores.max(axis=1, keepdims=True)) / spread
    best, best_likelihood = TEMPERATURES[0], -np.inf
    for temperature in TEMPERATURES:
        confidence = np.clip(1 / np.exp(temperature * gaps).sum(axis=1), 1e-6, 1 - 1e-6)
        likelihood = float(np.where(agrees, np.log(confidence), np.log1p(-confidence)).mean())
        if likelihood > best_likelihood:
            best, best_likelihood = temperature, likelihood
    return float(best) / spread
