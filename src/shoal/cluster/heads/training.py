"""Linear heads on frozen features, trained so that neighbours fall into the same cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Labels, Neighbours
from shoal.cluster.ground.information import held_out
from shoal.cluster.heads.adam import Adam
from shoal.cluster.heads.objectives import OBJECTIVES, LinearHeads
from shoal.embeddings import Float32

LEAST_EPOCHS, LEAST_STEPS = 15, 300  # few images make few steps an epoch, so they take more epochs
WARM_UP = 0.2  # part of the training in which a head learns the clusters it begins with
SMOOTHING = 0.1  # of the labels it begins with, so that it stays ready to leave them
LEARNING_RATE = 1e-2
MOST_STEPS_OF_WALK = 2  # a neighbour of a neighbour of a neighbour, at most
LARGEST_BATCH, SMALLEST_BATCH = 2048, 256
BATCHES = 20  # at least so many steps an epoch, where batches can be small enough
HELD_OUT_PAIRS = 50_000
SEED_SCALE = 0.3

Places = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Heads of k clusters each.

    Attributes:
        weights: float32 [d, heads, k].
        bias: float32 [heads, k].
        losses: float64 [heads], of pairs whose first image trained no head.
    """

    weights: Float32
    bias: Float32
    losses: npt.NDArray[np.float64]

    def some(self, chosen: npt.NDArray[np.integer]) -> Heads:
        """The heads at places `chosen`."""
        return Heads(np.ascontiguousarray(self.weights[:, chosen]), self.bias[chosen], self.losses[chosen])

    @classmethod
    def together(cls, groups: Sequence[Heads]) -> Heads:
        """The heads of all groups."""
        return cls(
            np.concatenate([group.weights for group in groups], axis=1),
            np.concatenate([group.bias for group in groups]),
            np.concatenate([group.losses for group in groups]),
        )

    def logits(self, points: Float32) -> Float32:
        """[n, heads, k] of points [n, d]."""
        d, heads, k = self.weights.shape
        flat: Float32 = points @ self.weights.reshape(d, heads * k) + self.bias.reshape(-1)
        return flat.reshape(len(points), heads, k)

    def probabilities(self, points: Float32) -> Float32:
        """[n, heads, k] of points [n, d]; rows of a head sum to 1 over its k clusters."""
        found = self.logits(points)
        found -= found.max(axis=2, keepdims=True)
        np.exp(found, out=found)
        found /= found.sum(axis=2, keepdims=True)
        return found


def plan(images: int) -> tuple[int, int, int]:
    """Images of a batch, steps of an epoch, and epochs."""
    anchors = images - len(held_out(images))
    batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, anchors // BATCHES), anchors)
    steps = max(1, anchors // batch)
    return batch, steps, max(LEAST_EPOCHS, -(-LEAST_STEPS // steps))


def train_heads(
    points: Float32,
    neighbours: Neighbours,
    starts: Sequence[Labels],
    k: int,
    seed: int,
    *,
    objective: str = "mutual_information",
    keep_sizes: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> Heads:
    """Train one head for each clustering in `starts`, all in the same matrix products.

    Args:
        points: [n, d], whitened; not of unit length, since lengths are information too.
        neighbours: int32 [n, m], positions of each point's nearest others.
        starts: labels [n] that each head learns first, by cross-entropy, before it goes its own way.
        objective: a key of `OBJECTIVES`.
        keep_sizes: whether mutual information leaves clusters as large as they began, rather than make them equal.
        watch: called after every epoch.
    """
    random = np.random.default_rng(seed)
    (n, d), count = points.shape, len(starts)
    begin = np.stack(starts)  # [heads, n]
    weights = random.standard_normal((count * k, d), np.float32) * np.float32(SEED_SCALE / d**0.5)
    heads = LinearHeads(weights, np.zeros(count * k, np.float32), count)
    asked = held_out(n)
    anchors = np.setdiff1d(np.arange(n), asked, assume_unique=True)
    batch, steps, epochs = plan(n)
    optimiser = Adam(heads.parameters, LEARNING_RATE, epochs * steps)

    def walked(images: Places) -> Places:
        """A random neighbour of each image, or one or two random steps on from it."""
        for _ in range(random.integers(1, MOST_STEPS_OF_WALK + 1, endpoint=True)):
            images = neighbours[images, random.integers(neighbours.shape[1], size=len(images))]
        return images

    warm_up = round(WARM_UP * epochs)
    sizes = np.stack([(np.bincount(start, minlength=k) + 1) / (n + k) for start in starts]).astype(np.float32)
    for epoch in range(epochs):
        if epoch == warm_up:
            agreeing = OBJECTIVES[objective](heads, sizes if keep_sizes else None)
        order = random.permutation(anchors)
        for images in order[: steps * batch].reshape(steps, batch):
            if epoch < warm_up:
                rows = points[images]
                gradient = heads.gradient(rows, _by_labels(heads.probabilities(rows), begin[:, images]))
            else:
                gradient = agreeing.gradient(points[np.concatenate([images, walked(images)])])
            optimiser.step(gradient)
        watch()
    pairs = np.tile(asked, max(1, min(neighbours.shape[1], HELD_OUT_PAIRS // len(asked))))
    partners = neighbours[pairs, random.integers(neighbours.shape[1], size=len(pairs))]
    losses = agreeing.losses(points[np.concatenate([pairs, partners])])
    weights = heads.weights.reshape(count, k, d).transpose(2, 0, 1)
    return Heads(np.ascontiguousarray(weights), heads.bias.reshape(count, k), losses.astype(np.float64))


def _by_labels(probabilities: Float32, labels: Labels) -> Float32:
    """The gradient by the logits, of cross-entropy with smoothed labels [heads, n]; both [heads, k, n]."""
    _, k, n = probabilities.shape
    gradient = probabilities - np.float32(SMOOTHING / k)
    np.put_along_axis(
        gradient,
        labels[:, None, :],
        np.take_along_axis(gradient, labels[:, None, :], axis=1) - np.float32(1 - SMOOTHING),
        axis=1,
    )
    gradient /= np.float32(n)
    return gradient
