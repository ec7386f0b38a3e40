"""What `assign` needs besides the encoder: the space, centroids, how far to trust them, how far is too far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from shoal import atomic, foreign
from shoal.cluster import kmeans
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.confidence import Landmarks, Values, calibrate, trusted
from shoal.cluster.consensus import Consensus
from shoal.cluster.kmeans import COSINE, Clustering
from shoal.cluster.space import ClusterSpace
from shoal.config import METRICS, MOST_NUMBERS
from shoal.embeddings import Float32
from shoal.errors import RunError
from shoal.foreign import INTEGERS, Tensors
from shoal.runfiles import Folder
from shoal.typed import Between, OneOf

FORMAT_VERSION = 1
NAMES = "names.json"  # of clusters, as people gave them
UNSURE_BELOW = 0.5  # confidence under which an image is unsure
KNOWN_SHARE = 0.995  # share of the images that clusters were made of which each of two tests counts as known
IMAGES_PER_DIM = 4  # with fewer images than this a dimension, what lies outside of the space says nothing
ROWS = 8192  # points worked on at once
NO_OTHER = -1  # the runner-up of an only cluster
NO_LIMIT = float(np.finfo(np.float32).max)


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
        return Assignment(cluster, confidence, confidence < UNSURE_BELOW, runner_up, unknown)

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
        tensors: dict[str, Any] = {
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
        with atomic.replacing(folder / "clusters.safetensors") as temporary:
            save_file(tensors, temporary)
        atomic.write_json(
            folder / "clusters.json", self.to_json(len(self.centroids) if numbers is None else len(np.unique(numbers)))
        )
        if names:
            atomic.write_json(folder / NAMES, {str(cluster): name for cluster, name in names.items()})

    def to_json(self, clusters: int) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "metric": self.space.metric,
            "clusters": clusters,
            "concentration": self.concentration,
            "most_outside": self.most_outside,
        }

    @classmethod
    def load(cls, folder: Folder) -> ClusterModel:
        """The clusters of a model folder, without the numbers and names that people gave them.

        Raises:
            RunError: there are none, or a value or a shape that no clusters have.
        """
        return read_clusters(folder)[0]


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A model's clusters.json."""

    format_version: Annotated[int, Between(0)]
    metric: Annotated[str, OneOf(METRICS)]
    clusters: Annotated[int, Between(1, MOST_NUMBERS)]
    concentration: Annotated[float, Between(0, NO_LIMIT)]
    most_outside: Annotated[float, Between(0, NO_LIMIT)] = NO_LIMIT  # models of before 2026-11-24 have none

    @classmethod
    def read(cls, path: Path) -> ClusterFacts:
        """Raises RunError if there are none, or none that this version reads."""
        try:
            facts = foreign.read_json(path, cls)
        except FileNotFoundError as error:
            raise RunError(f"{path} is not there: this model has no clusters") from error
        if facts.format_version > FORMAT_VERSION:
            raise RunError(
                f"{path}: format_version has value {facts.format_version}; expected at most {FORMAT_VERSION}: "
                "upgrade Shoal to open it"
            )
        return facts


def read_clusters(folder: Folder) -> tuple[ClusterModel, Labels]:
    """A model folder's clusters, and the cluster [K] of each centroid. Shapes are checked before anything is read.

    Raises:
        RunError: there are none, or a value or a shape that no clusters have.
    """
    facts = ClusterFacts.read(folder / "clusters.json")
    file = Tensors.of(folder / "clusters.safetensors", "clusters")
    (d,) = file.shape("mean", (None,))
    dims = _dims(file, d, facts.metric)
    count, _ = file.shape("centroids", (None, dims))
    file.shape("least_closeness", (count,))
    landmarks, trust = Landmarks.names()
    if landmarks in file.found:
        file.shape(trust, (file.shape(landmarks, (None, dims))[0],))
    tensors = file.read("mean", "basis", "scales", "centroids", "least_closeness", landmarks, trust, *Consensus.names())
    space = ClusterSpace(
        facts.metric, tensors["mean"], tensors.get("basis"), tensors.get("scales"), Consensus.of_tensors(tensors)
    )
    model = ClusterModel(
        space,
        tensors["centroids"],
        facts.concentration,
        tensors["least_closeness"],
        facts.most_outside,
        Landmarks.of_tensors(tensors),
    )
    return model, _numbers(file, count)


def _dims(file: Tensors, d: int, metric: str) -> int:
    """Dimensions of the points that a space of `d` features makes, by the shapes of its tensors."""
    if "basis" not in file.found:
        if metric == COSINE and "scales" in file.found:
            file.shape("basis", (d, None))
        return d
    _, inner = file.shape("basis", (d, None))
    file.shape("scales", (inner,))
    weights, bias, scale, centre, directions = Consensus.names()
    if weights not in file.found:
        return inner
    _, heads, k = file.shape(weights, (inner, None, None))
    file.shape(bias, (heads, k))
    file.shape(scale, (heads * k,))
    file.shape(centre, (heads * k,))
    return file.shape(directions, (heads * k, None))[1]


def _numbers(file: Tensors, count: int) -> Labels:
    if "numbers" not in file.found:
        return np.arange(count, dtype=np.int32)
    file.shape("numbers", (count,), INTEGERS)
    numbers = file.read("numbers")["numbers"]
    if not 0 <= numbers.min() <= numbers.max() < MOST_NUMBERS:
        raise RunError(
            f"{file.path}: tensor 'numbers' goes from {numbers.min()} to {numbers.max()}; expected numbers of "
            f"clusters, from 0 to {MOST_NUMBERS - 1:,}"
        )
    return numbers.astype(np.int32)


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
    least = least_closeness(points, scores, lengths, found.labels, len(found.centroids), metric)
    spared = metric == COSINE and len(points) >= IMAGES_PER_DIM * dims
    most_outside = float(np.quantile(lengths[:, 1], KNOWN_SHARE)) if spared else NO_LIMIT
    return ClusterModel(space, found.centroids, concentration, least, most_outside, landmarks)


def least_closeness(
    points: Float32, scores: Float32, lengths: Float32, labels: npt.NDArray[np.integer], k: int, metric: str
) -> Float32:
    """How close an image must lie to the centroid of each cluster to count as known, [k].

    Args:
        points, lengths: [n, dims] and [n, 2] as `ClusterSpace.project` gives them.
        scores: [n], of each point to the centroid of its label.
    """
    closeness = closeness_of(points, scores, lengths, metric)
    least = np.full(k, np.quantile(closeness, 1 - KNOWN_SHARE), np.float32)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=k))[:-1])
    for cluster, own in enumerate(members):
        if len(own) >= 2 / (1 - KNOWN_SHARE):  # enough images for a quantile of their own
            least[cluster] = np.quantile(closeness[own], 1 - KNOWN_SHARE)
    return least - np.float32(1e-4)


def as_if_new(lengths: Float32, dims: int) -> Float32:
    """Lengths [N, 2] as new images would have them: the space fits the images it was made of better than others.

    Of N images, directions fitted to them leave out a mean square smaller by (N − dims)/(N + dims) than of new ones
    (to first order, as for the residuals of a regression on `dims` variables; Akaike, Final prediction error, 1969).
    """
    freedom = max(len(lengths) - dims, 1)
    stretch = np.array([1, ((len(lengths) + dims) / freedom) ** 0.5], np.float32)
    return lengths * stretch


def scores_without_itself(points: Float32, found: Clustering, metric: str) -> Float32:
    """Score of each point [N] to its centroid as it would be without the point, which drew it near.

    What it drew is told by the mean of its cluster, with it and without; a centroid need not be that mean. A point that
    is alone in its cluster scores as its centroid's opposite would: nothing else says how far is too far.
    """
    sums, counts = kmeans.cluster_sums(points, found.labels, len(found.centroids))
    members = counts[found.labels]
    # x·S and ‖S‖² of the sum S of the cluster, and x·c and ‖c‖² of its centroid.
    squares = np.einsum("nd,nd->n", points, points, dtype=np.float64)
    products, direct = np.empty(len(points)), np.empty(len(points))
    for start in range(0, len(points), ROWS):
        rows = slice(start, start + ROWS)
        products[rows] = np.einsum("nd,nd->n", points[rows], sums[found.labels[rows]])
        direct[rows] = np.einsum("nd,nd->n", points[rows], found.centroids[found.labels[rows]])
    lengths = np.einsum("kd,kd->k", sums, sums)[found.labels]
    lengths_without = np.maximum(lengths - 2 * products + squares, 0)
    if metric == COSINE:
        drawn = _divided(products, np.sqrt(lengths)) - _divided(products - squares, np.sqrt(lengths_without))
    else:
        direct -= np.einsum("kd,kd->k", found.centroids, found.centroids)[found.labels] / 2
        others = np.maximum(members - 1, 1)
        drawn = products / members - lengths / members**2 / 2
        drawn -= (products - squares) / others - lengths_without / others**2 / 2
    scores = direct - drawn
    scores[members == 1] = -1 if metric == COSINE else scores.min(initial=0)
    single: Float32 = scores.astype(np.float32)
    return single


def _divided(values: Float64, by: Float64) -> Float64:
    """The quotient, and 0 where `by` is 0."""
    return np.divide(values, by, out=np.zeros(len(values)), where=by > 0)


def closeness_of(points: Float32, scores: Float32, lengths: Float32, metric: str) -> Float32:
    """How close images lie to their centroid, given their score to it; greater is closer."""
    inside, outside = lengths[:, 0], lengths[:, 1]
    if metric == COSINE:
        whole = np.hypot(inside, outside)
        return scores * np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    squares = np.einsum("nd,nd->n", points, points) + outside**2
    closeness: Float32 = -np.sqrt(np.maximum(squares - 2 * scores, 0))  # ‖x − c‖² = ‖x‖² − 2(x·c − ‖c‖²/2)
    return closeness
