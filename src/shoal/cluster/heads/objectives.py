"""What heads are trained for, on images and one neighbour of each.

The losses take probabilities [heads, k, n] and give one value a head, to make small, with its gradient by the
probabilities that may move: a head's loss does not depend on the others' but through weights that get no gradient, so
that all heads are trained side by side. An objective holds what a loss needs from one step to the next: a teacher, a
probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from shoal.cluster.heads.adam import Adam
from shoal.embeddings import Float32

TINY: Final = np.float32(1e-9)
ENTROPY_WEIGHT: Final = 5.0  # λ of SCAN
SIZES_WEIGHT: Final = 5.0
SHARPNESS: Final = np.float32(0.6)  # β of TEMI
TEACHER_MOMENTUM: Final = 0.996
PRIOR_MOMENTUM: Final = 0.9
BALANCE_WEIGHT: Final = 10.0  # γ of TURTLE
PROBE_STEPS: Final = 10
PROBE_RATE: Final = 1e-3
MIXED: Final = np.float32(0.6)  # α of I-Con

PairLoss = tuple[Float32, Float32, Float32]  # [heads], and the gradient by each argument [heads, k, n]


def mutual_information(first: Float32, second: Float32, sizes: Float32 | None = None) -> PairLoss:
    """−I(c; c′), the information that the cluster of one image gives on that of its neighbour, in nats.

    With P = Σ p(first)·p(second)ᵀ / n made symmetric: −Σ P·log(P / (P_row·P_column)) (Ji et al., Invariant Information
    Clustering, 2019, equation 3). It needs no weight for balance: clusters of one size carry the most information, but
    only where neighbours agree on them. From −log k to 0.

    I is H(c) − H(c | c′), and H(c) is greatest for equal sizes. With `sizes` Π [heads, k], shares that sum to 1, the
    loss is −I + λ·KL(mean c ‖ Π), λ = 5. (With −KL in place of H(c), as in PET-TURTLE, arXiv 2601.03237, small clusters
    among like ones vanish, since to have none of them costs little.)
    """
    n = first.shape[2]
    joint = first @ second.transpose(0, 2, 1) / n
    joint = (joint + joint.transpose(0, 2, 1)) / 2
    margins = joint.sum(axis=1)  # [heads, k]
    tells = _log(joint) - _log(margins[:, :, None] * margins[:, None, :])
    # The gradient by P is −tells, but for a constant, which probabilities that sum to one do not notice.
    by_joint = -tells / n
    loss, by_first, by_second = -(joint * tells).sum(axis=(1, 2)), by_joint @ second, by_joint @ first
    if sizes is None:
        return loss, by_first, by_second
    away = np.float32(SIZES_WEIGHT) * (_log(margins) - _log(sizes))  # [heads, k]
    by_size = away[:, :, None] / (2 * n)  # of each of the two images
    return loss + (margins * away).sum(axis=1), by_first + by_size, by_second + by_size


def scan(first: Float32, second: Float32) -> PairLoss:
    """−mean log⟨p, p′⟩ − λ·H(mean p), λ = 5 (Van Gansbeke et al., SCAN, 2020, equation 2)."""
    n = first.shape[2]
    entropy, by_mean = _entropy(first)
    agreed = np.maximum((first * second).sum(axis=1), TINY)
    by_first = -second / (n * agreed[:, None]) - np.float32(ENTROPY_WEIGHT / n) * by_mean
    return -np.log(agreed).mean(axis=1) - ENTROPY_WEIGHT * entropy, by_first, -first / (n * agreed[:, None])


def icon(first: Float32, second: Float32) -> PairLoss:
    """−mean log((1 − α)·n·q + α), q = Σ_c p_c·p′_c / size_c, α = 0.6 (Alshammari et al., I-Con, 2025, section 4.2).

    q is the chance of reaching the neighbour by a step to any image of one's own cluster; mixed with an even one, as
    the paper's debiasing does, so that pairs that are no true neighbours cost little.
    """
    n = first.shape[2]
    share = np.maximum((first + second).mean(axis=2) / 2, TINY)[:, :, None]  # size_c / n, [heads, k, 1]
    mixed = (1 - MIXED) * (first * second / share).sum(axis=1) + MIXED  # [heads, n]
    by_reached = (MIXED - 1) / (n * mixed)[:, None]
    by_share = -(by_reached * first * second).sum(axis=2, keepdims=True) / share**2 / (2 * n)
    return -np.log(mixed).mean(axis=1), by_reached * second / share + by_share, by_reached * first / share + by_share


def temi(first: Float32, second: Float32, teacher_first: Float32, teacher_second: Float32, prior: Float32) -> PairLoss:
    """−u·log Σ_c (s_c(v)·t_c(w))^β / π_c, β = 0.6, symmetrised (Adaloglou et al., TEMI, 2023, equations 6 to 8).

    s is the student and t the teacher, which gets no gradient; π [heads, k] is the teacher's mean. u weighs each pair
    by how much the teachers of all heads agree on it.
    """
    n = first.shape[2]
    weight = (teacher_first * teacher_second).sum(axis=1).mean(axis=0) / np.float32(2 * n)  # [n]
    (one, by_first), (other, by_second) = (
        _reached(student, teacher, prior) for student, teacher in ((first, teacher_second), (second, teacher_first))
    )
    return -((one + other) @ weight), -weight * by_first, -weight * by_second


def _reached(student: Float32, teacher: Float32, prior: Float32) -> tuple[Float32, Float32]:
    """log Σ_c (s_c·t_c)^β / π_c [heads, n], and its gradient by s [heads, k, n]."""
    together = np.maximum(student * teacher, TINY) ** SHARPNESS / np.maximum(prior, TINY)[:, :, None]
    total = together.sum(axis=1)
    return np.log(total), SHARPNESS * together / (np.maximum(student, TINY) * total[:, None])


def turtle(labelling: Float32, probe: Float32) -> tuple[Float32, Float32]:
    """Cross-entropy of a probe's predictions to the labelling, − γ·H(mean labelling), γ = 10.

    The outer objective of Gadetsky et al., Let go of your labels with unsupervised transfer (TURTLE), 2024, equation 6:
    the labelling to look for is one that a linear probe predicts, but not one of a single cluster. The gradient is by
    the labelling; the probe gets none.
    """
    n = labelling.shape[2]
    entropy, by_mean = _entropy(labelling)
    told = _log(probe)
    loss = -(labelling * told).sum(axis=1).mean(axis=1) - BALANCE_WEIGHT * entropy
    return loss, -told / n - np.float32(BALANCE_WEIGHT / n) * by_mean


def _entropy(probabilities: Float32) -> tuple[Float32, Float32]:
    """H of the mean [heads], and its gradient by that mean [heads, k, 1], but for a constant."""
    mean = probabilities.mean(axis=2)
    logarithm = _log(mean)
    return -(mean * logarithm).sum(axis=1), -logarithm[:, :, None]


def _log(values: Float32) -> Float32:
    logarithm: Float32 = np.log(np.maximum(values, TINY))
    return logarithm


@dataclass(slots=True, eq=False)
class LinearHeads:
    """Linear heads on rows [n, d], all in the same matrix product: weights [heads · k, d] and bias [heads · k]."""

    weights: Float32
    bias: Float32
    heads: int

    def probabilities(self, rows: Float32) -> Float32:
        """[heads, k, n]; rows of a head sum to 1 over its k clusters."""
        logits = self.weights @ rows.T
        logits += self.bias[:, None]
        found = logits.reshape(self.heads, -1, len(rows))
        found -= found.max(axis=1, keepdims=True)
        np.exp(found, out=found)
        found /= found.sum(axis=1, keepdims=True)
        return found

    def gradient(self, rows: Float32, by_logits: Float32) -> list[Float32]:
        """By weights and bias, from that by the logits [heads, k, n] of rows [n, d]."""
        flat = by_logits.reshape(-1, len(rows))
        return [flat @ rows, flat.sum(axis=1)]

    @property
    def parameters(self) -> list[Float32]:
        return [self.weights, self.bias]

    def copy(self) -> LinearHeads:
        """The same values, with a life of their own."""
        return LinearHeads(self.weights.copy(), self.bias.copy(), self.heads)


def by_logits(probabilities: Float32, by_probabilities: Float32) -> Float32:
    """The gradient by the logits of a softmax [heads, k, n], from that by the probabilities that it gave."""
    product = probabilities * by_probabilities
    product -= probabilities * product.sum(axis=1, keepdims=True)
    return product


class Objective(Protocol):
    """Made anew for a training, from the heads as they are then. Rows [2n, d] are n images and a neighbour of each."""

    def losses(self, rows: Float32) -> Float32:
        """[heads]."""
        ...

    def gradient(self, rows: Float32) -> list[Float32]:
        """Of the sum of the losses, by weights and bias; what lags behind the heads follows them first."""
        ...


class Pairwise:
    """A loss of two images' probabilities and nothing else."""

    def __init__(self, of: Callable[[Float32, Float32], PairLoss], heads: LinearHeads) -> None:
        self._of, self._heads = of, heads

    def losses(self, rows: Float32) -> Float32:
        return self._of(*_halves(self._heads.probabilities(rows)))[0]

    def gradient(self, rows: Float32) -> list[Float32]:
        found = self._heads.probabilities(rows)
        _, *by = self._of(*_halves(found))
        return self._heads.gradient(rows, by_logits(found, np.concatenate(by, axis=2)))


class MutualInformation(Pairwise):
    """`mutual_information`, of clusters of equal sizes or near `sizes` [heads, k]."""

    def __init__(self, heads: LinearHeads, sizes: Float32 | None) -> None:
        super().__init__(lambda first, second: mutual_information(first, second, sizes), heads)


class Temi:
    """`temi` with a teacher that is the moving average of the heads, and π that of the teacher's mean.

    The paper's temperature of 0.1 belongs to logits from −1 to 1 (weights and inputs of unit length). Here logits are
    as long as training makes them, beginning with those of the clusters that the heads have learned first.
    """

    def __init__(self, heads: LinearHeads) -> None:
        self._heads, self._teacher = heads, heads.copy()
        self._prior: Float32 | None = None

    def losses(self, rows: Float32) -> Float32:
        return self._loss(self._heads.probabilities(rows), self._teacher.probabilities(rows))[0]

    def gradient(self, rows: Float32) -> list[Float32]:
        for kept, new in zip(self._teacher.parameters, self._heads.parameters, strict=True):
            kept[...] += np.float32(1 - TEACHER_MOMENTUM) * (new - kept)
        found, taught = self._heads.probabilities(rows), self._teacher.probabilities(rows)
        mean = _halves(taught)[0].mean(axis=2)
        kept_prior = mean if self._prior is None else self._prior
        self._prior = kept_prior + np.float32(1 - PRIOR_MOMENTUM) * (mean - kept_prior)
        _, *by = self._loss(found, taught)
        return self._heads.gradient(rows, by_logits(found, np.concatenate(by, axis=2)))

    def _loss(self, found: Float32, taught: Float32) -> PairLoss:
        prior = _halves(taught)[0].mean(axis=2) if self._prior is None else self._prior
        return temi(*_halves(found), *_halves(taught), prior)


class Turtle:
    """`turtle` with probes that go on learning, ten steps of Adam before each of the labelling's ("warm start").

    The gradient goes through the labelling alone, not through how the probe came to be (the paper's first-order
    approximation). Neighbours are not used.
    """

    def __init__(self, heads: LinearHeads) -> None:
        self._heads, self._probe = heads, heads.copy()
        self._optimiser = Adam(self._probe.parameters, PROBE_RATE)

    def losses(self, rows: Float32) -> Float32:
        images = rows[: len(rows) // 2]
        return turtle(self._heads.probabilities(images), self._probe.probabilities(images))[0]

    def gradient(self, rows: Float32) -> list[Float32]:
        images = rows[: len(rows) // 2]
        labelling = self._heads.probabilities(images)
        for _ in range(PROBE_STEPS):
            error = (self._probe.probabilities(images) - labelling) / np.float32(len(images))
            self._optimiser.step(self._probe.gradient(images, error))
        _, by = turtle(labelling, self._probe.probabilities(images))
        return self._heads.gradient(images, by_logits(labelling, by))


def _halves(values: Float32) -> tuple[Float32, Float32]:
    """Of [heads, k, 2n], the images' and their neighbours'."""
    n = values.shape[2] // 2
    return values[:, :, :n], values[:, :, n:]


# Each is made of the heads, and of the sizes that their clusters have to begin with, where those are to be kept: what
# mutual information alone needs telling, since no other objective has an H(c) but with a weight of its own.
OBJECTIVES: Final[dict[str, Callable[[LinearHeads, Float32 | None], Objective]]] = {
    "mutual_information": MutualInformation,
    "scan": lambda heads, _: Pairwise(scan, heads),
    "icon": lambda heads, _: Pairwise(icon, heads),
    "temi": lambda heads, _: Temi(heads),
    "turtle": lambda heads, _: Turtle(heads),
}
