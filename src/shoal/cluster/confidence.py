"""How far to trust a cluster: a calibration without labels, saved with the model, the same for new images.

The posterior of the clusters says how far an image lies from the borders, p. It does not say whether the borders are
right. So confidence is w·p + (1 − w)/K, with w the trust in the place where the image lies:

- the trust near a landmark, the mean of a small group of images, is the share of their nearest neighbours that are in
  their clusters (as in Jia et al., Towards calibrated deep clustering network, CDC, 2025, section 3.2, where it is the
  mean softmax);
- the posterior's concentration is fitted to those shares image by image, given the trust;
- all of it is scaled until the mean confidence is the share of images on which another way of clustering agrees:
  average linkage, or one that whoever made the clusters has at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from shoal import blas
from shoal.cluster import kmeans, threads
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.contingency import contingency, matched
from shoal.cluster.linkage import MOST_LEAVES, linked, nearest, small_groups
from shoal.embeddings import Float32

SAMPLE: Final = 6_000  # images that are asked, at most ...
PAIR_VALUES: Final = SAMPLE**2 * 64  # ... or so many that their pairs times the dimensions are no more
NEIGHBOURS: Final = 20
LANDMARKS: Final = 400
IMAGES_PER_LANDMARK: Final = 5
LEAST_GROUP: Final = 3  # images of a landmark: a model that is handed on holds no features of single ones
NEAREST: Final = 3  # landmarks whose trust is averaged
LINKAGES: Final = 4  # clusterings of another kind whose agreement is averaged
LEAST_IMAGES_PER_CLUSTER: Final = 2  # with fewer there is nothing to ask
TEMPERATURES: Final = np.geomspace(0.25, 256.0, 61)  # concentrations looked at, in spreads of the scores ...
DEFAULT_CONCENTRATION: Final = 8.0  # ... and what is taken where there is nothing to look at
HALVINGS: Final = 40
POINTS: Final = "landmarks"  # the tensors of a saved model
TRUST: Final = "landmarks.trust"

Values = TypeVar("Values", Float32, Float64)


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """Places in the clusters' space and the trust in clusters there.

    Attributes:
        points: float32 [m, dims], means of small groups of images.
        trust: float32 [m], at least 0; more than 1 counts as 1.
    """

    points: Float32
    trust: Float32

    def tensors(self) -> dict[str, Float32]:
        """What `of_tensors` makes them again from."""
        return {POINTS: self.points, TRUST: self.trust}

    @staticmethod
    def names() -> tuple[str, str]:
        """Of those tensors."""
        return POINTS, TRUST

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Float32]) -> Landmarks | None:
        """The landmarks saved among `tensors`, or None if there are none."""
        return cls(tensors[POINTS], tensors[TRUST]) if POINTS in tensors else None

    def trust_at(self, points: Float32, metric: str) -> Float32:
        """Mean trust of the nearest landmarks of each of `points` [n, dims], float32 [n] from 0 to 1."""
        return np.minimum(self.unbounded_trust_at(points, metric), np.float32(1))

    def unbounded_trust_at(self, points: Float32, metric: str) -> Float32:
        found = np.empty(len(points), np.float32)
        count = min(NEAREST, len(self.points))
        for where, scores in kmeans.score_blocks(points, self.points, metric=metric):
            near = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            found[where] = self.trust[near].mean(axis=1)
        return found


def trusted(posterior: Values, trust: Float32, k: int) -> Values:
    """Probabilities under `trust` [n]: of the image's own cluster [n], or of all of k clusters [n, k].

    What is not trusted is spread evenly over the k clusters, so that rows still sum to 1.
    """
    weight = trust if posterior.ndim == 1 else trust[:, None]
    found: Values = weight * posterior + (1 - weight) * posterior.dtype.type(1 / k)
    return found


def calibrate(
    points: Float32,
    centroids: Float32,
    rng: np.random.Generator,
    metric: str,
    plain: Float32 | None = None,
    level: float | None = None,
) -> tuple[float, Landmarks | None]:
    """Concentration of the posterior, and landmarks; None where there are too few images to ask.

    Args:
        points: [N, dims] in the space of the `centroids` [K, dims].
        plain: [N, d], the same images where neighbours and other clusters are looked for, if that is another space: in
            one that was learned to part these clusters all would agree.
        level: share of the images on which another way of clustering agrees, as which all are sure on average; None
            asks average linkage.
    """
    with blas.single():  # thousands of small matrix products
        return _calibrated(points, centroids, rng, metric, points if plain is None else plain, level)


def _calibrated(
    points: Float32,
    centroids: Float32,
    rng: np.random.Generator,
    metric: str,
    plain: Float32,
    level: float | None,
) -> tuple[float, Landmarks | None]:
    asked = min(SAMPLE, int((PAIR_VALUES / plain.shape[1]) ** 0.5))
    sample = np.sort(rng.permutation(len(points))[:asked])
    points, plain, k = points[sample], plain[sample], len(centroids)
    scores = np.concatenate([block for _, block in kmeans.score_blocks(points, centroids, metric=metric)])
    if k < 2 or len(sample) < LEAST_IMAGES_PER_CLUSTER * k:
        return DEFAULT_CONCENTRATION / (float(scores.std()) or 1.0), None
    labels = scores.argmax(axis=1).astype(np.int32)
    votes = _votes(plain, labels, k, metric)
    landmarks = _landmarks(points, votes, rng, metric)
    concentration = fit_concentration(scores, votes, landmarks.trust_at(points, metric))
    gaps = concentration * (scores - scores.max(axis=1, keepdims=True))
    posterior: Float32 = (1 / np.exp(gaps).sum(axis=1)).astype(np.float32)
    if level is None and 2 * k > MOST_LEAVES:
        return concentration, landmarks
    if level is None:
        level = _linkage_agreement(plain, labels, k, rng, metric)
    return concentration, _levelled(landmarks, points, posterior, level, k, metric)


def fit_concentration(scores: Float32, agreed: Float64, trust: Float32 | None = None) -> float:
    """How sharply membership falls off with scores [n, k], so that confidence says how often others agree.

    The concentration is the one under which the confidence best predicts, in log-likelihood, the share [n] of others
    (clusterings of the image, or neighbours of it) that agree on its cluster. `trust` [n] is how far the place of each
    is trusted; None: wholly.
    """
    k, weight = scores.shape[1], np.ones(len(scores), np.float32) if trust is None else trust
    spread = float(scores.std()) or 1.0
    gaps = (scores - scores.max(axis=1, keepdims=True)) / spread
    edge = 1 / (len(scores) + 1)  # n images cannot tell more certainty than that
    best, best_likelihood = TEMPERATURES[0], -np.inf
    for temperature in TEMPERATURES:
        posterior: Float32 = (1 / np.exp(temperature * gaps).sum(axis=1)).astype(np.float32)
        confidence = np.clip(trusted(posterior, weight, k).astype(np.float64), edge, 1 - edge)
        likelihood = float((agreed * np.log(confidence) + (1 - agreed) * np.log1p(-confidence)).mean())
        if likelihood > best_likelihood:
            best, best_likelihood = temperature, likelihood
    return float(best) / spread


def _votes(points: Float32, labels: Labels, k: int, metric: str) -> Float64:
    """Share of each point's neighbours that have its label, [n]; fewer neighbours where clusters are small."""
    count = int(np.clip(len(points) // (2 * k), 1, NEIGHBOURS))
    share: Float64 = (labels[nearest(points, count, metric)] == labels[:, None]).mean(axis=1)
    return share


def _landmarks(points: Float32, votes: Float64, rng: np.random.Generator, metric: str) -> Landmarks:
    count = max(1, min(LANDMARKS, len(points) // IMAGES_PER_LANDMARK))
    groups, member = small_groups(points, count, rng, metric)
    sizes = np.bincount(member, minlength=len(groups))
    shares = np.bincount(member, votes, minlength=len(groups)) / np.maximum(sizes, 1)
    kept = sizes >= min(LEAST_GROUP, int(sizes.max()))
    return Landmarks(groups[kept], shares[kept].astype(np.float32))


def _linkage_agreement(points: Float32, labels: Labels, k: int, rng: np.random.Generator, metric: str) -> float:
    """Share of the points that average linkage puts into the cluster that is matched, one to one, with their own."""
    seeds = [int(seed) for seed in rng.integers(2**31, size=LINKAGES)]

    def share(seed: int) -> float:
        other = linked(points, k, np.random.default_rng(seed), metric)
        return matched(contingency(labels, other, k))

    return float(np.mean(list(threads.each(share, seeds))))


def _levelled(
    landmarks: Landmarks, points: Float32, posterior: Float32, level: float, k: int, metric: str
) -> Landmarks:
    """The landmarks with all trust scaled by one factor, so that the mean confidence is nearest to `level`."""
    trust = landmarks.unbounded_trust_at(points, metric)
    low, high = 0.0, 1 / max(float(trust.min()), 1e-3)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        mean = trusted(posterior, np.minimum(trust * np.float32(middle), np.float32(1)), k).mean(dtype=np.float64)
        low, high = (middle, high) if mean < level else (low, middle)
    return Landmarks(landmarks.points, landmarks.trust * np.float32(low))
