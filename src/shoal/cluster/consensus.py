"""Many heads, one clustering: each image becomes the pattern of the clusters that the heads give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shoal.embeddings import Float32, normalise_rows

ROWS = 4096  # points worked on at once
FIELDS = ("weights", "bias", "scale", "centre", "directions")


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """A map from whitened points [n, d] to what the heads together say of them, unit rows [n, dims].

    Two images lie near if most heads put them together: the inner product of their scaled assignments is the share of
    heads that do so, weighed by how rare the shared cluster is (Strehl and Ghosh, Cluster ensembles, 2002, section
    3.2, with soft assignments).

    Attributes:
        weights, bias: float32 [d, heads, k] and [heads, k].
        scale: float32 [heads · k], one over the root of each cluster's mean assignment.
        centre: float32 [heads · k], mean of the scaled assignments.
        directions: float32 [heads · k, dims], their leading principal directions.
    """

    weights: Float32
    bias: Float32
    scale: Float32
    centre: Float32
    directions: Float32

    def transform(self, points: Float32) -> Float32:
        """Unit rows [n, dims] of whitened points [n, d]."""
        found = np.empty((len(points), self.directions.shape[1]), np.float32)
        for start in range(0, len(points), ROWS):
            rows = slice(start, start + ROWS)
            scaled = _assignments(self.weights, self.bias, points[rows]) * self.scale - self.centre
            found[rows] = scaled @ self.directions
        return normalise_rows(found)

    def probabilities(self, points: Float32) -> Float32:
        """Those of each head's clusters, [n, heads · k], of whitened points [n, d]."""
        return _assignments(self.weights, self.bias, points)

    def tensors(self) -> dict[str, Float32]:
        """What `of_tensors` makes it again from."""
        arrays = (np.ascontiguousarray(getattr(self, name)) for name in FIELDS)
        return dict(zip(self.names(), arrays, strict=True))

    @classmethod
    def of_head(cls, weights: Float32, bias: Float32) -> Consensus:
        """Of one head that has the last word, [d, k] and [k]: the direction of an image's probabilities.

        The nearest of the k unit vectors is then the likeliest cluster.
        """
        k = len(bias)
        one, none, each = np.ones(k, np.float32), np.zeros(k, np.float32), np.eye(k, dtype=np.float32)
        return cls(np.ascontiguousarray(weights[:, None]), bias[None], one, none, each)

    @staticmethod
    def names() -> tuple[str, ...]:
        """Of those tensors."""
        return tuple(f"consensus.{name}" for name in FIELDS)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Float32]) -> Consensus | None:
        """The consensus saved among `tensors`, or None if there is none."""
        if cls.names()[0] not in tensors:
            return None
        return cls(*(tensors[name] for name in cls.names()))


def _assignments(weights: Float32, bias: Float32, points: Float32) -> Float32:
    """Each head's probabilities, [n, heads · k]."""
    d = len(weights)
    logits = (points @ weights.reshape(d, -1) + bias.reshape(-1)).reshape(len(points), *bias.shape)
    logits -= logits.max(axis=2, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=2, keepdims=True)
    flat: Float32 = logits.reshape(len(points), -1)
    return flat
