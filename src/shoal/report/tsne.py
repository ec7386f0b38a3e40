"""t-SNE in two dimensions from neighbours that are already known (van der Maaten & Hinton, 2008), with numpy alone.

The pull between neighbours is sparse. The push between all points is computed pair by pair up to `EXACT_POINTS`, and
beyond on a grid, by Fourier transforms (FIt-SNE; Linderman et al., Nature Methods 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal import blas
from shoal.embeddings import Float32

EXACT_POINTS: Final = 2000
PERPLEXITY: Final = 30.0
EXAGGERATION: Final = 12.0
ROUNDS: Final = (100, 300)  # iterations with exaggeration and without: from a PCA start they settle
BLOCK_ROWS: Final = 128  # a block of pairs stays in the processor's cache
BOX: Final = 1.5  # width of the grid's boxes; the divergence ends 2 % above that of all pairs, in half the time of 1.0
FEWEST_BOXES: Final = 12  # each way
NODES: Final = 3  # of the grid in a box, each way

Neighbours = npt.NDArray[np.int32]
Complex = npt.NDArray[np.complexfloating]
Float64 = npt.NDArray[np.float64]


def embed(neighbours: Neighbours, similarity: Float32, start: Float32) -> Float32:
    """Place points in the plane so that neighbours lie together. Nothing in it is random.

    Args:
        neighbours: [N, k] positions of each point's neighbours, nearest first; -1 where there is none.
        similarity: [N, k] their cosine similarity.
        start: [N, 2] where the points begin, such as two principal components; only its shape matters, not its scale.

    Returns:
        [N, 2], centred.
    """
    # Every product is small: a BLAS of several threads would mostly wait for itself.
    with blas.single():
        return _descend(Edges.of(neighbours, affinities(neighbours, similarity)), start)


def _descend(edges: Edges, start: Float32) -> Float32:
    """Gradient descent with momentum and gains, as in the authors' code."""
    repulsion = pairwise_repulsion if len(start) <= EXACT_POINTS else grid_repulsion
    scale = 1e-4 / max(float(start[:, 0].std()), 1e-12)
    points: Float32 = ((start - start.mean(axis=0)) * scale).astype(np.float32)
    velocity, gains = np.zeros_like(points), np.ones_like(points)
    for rounds, exaggeration, momentum in zip(ROUNDS, (EXAGGERATION, 1.0), (0.5, 0.8), strict=True):
        rate = np.float32(len(points) / exaggeration)  # Belkina et al., Nature Communications 2019
        for _ in range(rounds):
            push, total = repulsion(points)
            # Equation 5 of the paper: 4 Σ_j (p_ij − q_ij)(y_i − y_j)/(1 + |y_i − y_j|²)
            gradient = 4 * (np.float32(exaggeration) * edges.attraction(points) - push / np.float32(total))
            gains = np.where(np.signbit(gradient) == np.signbit(velocity), gains * 0.8, gains + 0.2)
            gains = np.maximum(gains, 0.01).astype(np.float32)
            velocity = np.float32(momentum) * velocity - rate * gains * gradient
            points = points + velocity
            points -= points.mean(axis=0)
    return points


def affinities(neighbours: Neighbours, similarity: Float32) -> Float64:
    """Conditional probabilities p(j|i) over each point's neighbours, [N, k]; rows sum to 1, or 0 where there is none.

    Each point's bandwidth is found by bisection so that the row's perplexity is `PERPLEXITY`, or a third of the
    number of neighbours if that is less (equation 1 of the paper, truncated to the neighbours).
    """
    known = neighbours >= 0
    squared = np.where(known, 2.0 - 2.0 * similarity.astype(np.float64), np.inf)  # squared distances of unit vectors
    nearest = squared.min(axis=1, initial=np.inf, keepdims=True)
    squared -= np.where(np.isfinite(nearest), nearest, 0.0)
    target = np.log(np.clip(known.sum(axis=1) / 3.0, 1.0, PERPLEXITY))
    finite = np.where(known, squared, 0.0)
    low, high, beta = np.zeros(len(squared)), np.full(len(squared), np.inf), np.ones(len(squared))
    for _ in range(40):
        weights = np.exp(-finite * beta[:, None]) * known
        total = np.maximum(weights.sum(axis=1), 1e-300)
        entropy = np.log(total) + beta * np.einsum("nk,nk->n", weights, finite) / total
        low, high = np.where(entropy > target, beta, low), np.where(entropy > target, high, beta)
        beta = np.where(np.isinf(high), beta * 2.0, (low + high) / 2.0)
    weights = np.exp(-finite * beta[:, None]) * known
    total = weights.sum(axis=1, keepdims=True)
    probabilities: Float64 = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return probabilities


@dataclass(frozen=True, slots=True)
class Edges:
    """Joint probabilities p(ij) = (p(j|i) + p(i|j)) / 2N: both directions of every edge, sorted by `source`."""

    source: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    weight: Float32
    count: int  # points

    @classmethod
    def of(cls, neighbours: Neighbours, weights: Float64) -> Edges:
        """From conditional probabilities [N, k]."""
        count, k = neighbours.shape
        known = neighbours >= 0
        one, other = np.repeat(np.arange(count, dtype=np.int64), k)[known.ravel()], neighbours[known].astype(np.int64)
        keys = np.concatenate([one * count + other, other * count + one])
        values = np.tile(weights[known], 2) / (2 * count)
        pairs, place = np.unique(keys, return_inverse=True)
        joint = np.bincount(place, values, minlength=len(pairs)).astype(np.float32)
        return cls((pairs // count).astype(np.int32), (pairs % count).astype(np.int32), joint, count)

    def attraction(self, points: Float32) -> Float32:
        """Σ_j p_ij (y_i − y_j)/(1 + |y_i − y_j|²), [N, 2]."""
        across = points[self.source, 0] - points[self.target, 0]
        up = points[self.source, 1] - points[self.target, 1]
        pull = self.weight / (1 + across * across + up * up)
        sums = (np.bincount(self.source, pull * gap, minlength=self.count) for gap in (across, up))
        return np.column_stack(list(sums)).astype(np.float32)


def pairwise_repulsion(points: Float32) -> tuple[Float32, float]:
    """Σ_j (y_i − y_j)/(1 + |y_i − y_j|²)², [N, 2], and Z = Σ_{i≠j} 1/(1 + |y_i − y_j|²), over all pairs, blockwise."""
    count = len(points)
    lengths, ones = np.einsum("nd,nd->n", points, points), np.ones(count, np.float32)
    # [−2y, 1, 1 + |y|²] · [y', |y'|², 1] = 1 + |y − y'|², so that one product gives a block's denominators.
    left = np.column_stack([-2 * points, ones, 1 + lengths])  # [N, 4]
    right = np.vstack([points.T, lengths, ones])  # [4, N]
    sides = np.column_stack([points, ones])  # [N, 3]
    push, scratch = np.empty((count, 3), np.float32), np.empty((BLOCK_ROWS, count), np.float32)
    total = -float(count)  # each point's kernel with itself is 1 and does not count
    for begin in range(0, count, BLOCK_ROWS):
        rows = slice(begin, min(begin + BLOCK_ROWS, count))
        kernel = scratch[: rows.stop - begin]
        np.matmul(left[rows], right, out=kernel)
        np.reciprocal(kernel, out=kernel)
        total += float(kernel.sum())
        np.multiply(kernel, kernel, out=kernel)
        np.matmul(kernel, sides, out=push[rows])
    return points * push[:, 2:] - push[:, :2], max(total, 1e-12)


def grid_repulsion(points: Float32) -> tuple[Float32, float]:
    """The same sums, interpolated: points charge the nodes of a grid, and the nodes' sums are a convolution."""
    at = (points - points.min(axis=0)) / np.float32(BOX)
    boxes = _smooth(max(FEWEST_BOXES, int(at.max()) + 1))
    side = boxes * NODES
    index, weight = _interpolation(at, side)  # both [N, 9]
    charges = (np.ones(len(points), np.float32), points[:, 0], points[:, 1])
    nodes = np.stack(
        [np.bincount(index.ravel(), (weight * charge[:, None]).ravel(), side * side) for charge in charges]
    )
    # Zeros to twice the side keep the convolution from wrapping around; rows of zeros alone are not transformed.
    charged = np.fft.fft(np.fft.rfft(nodes.astype(np.float32).reshape(3, side, side), 2 * side), 2 * side, axis=1)
    once, twice = _kernels(side)  # transforms of 1/(1 + d²) and of its square
    sums = np.fft.ifft(np.concatenate([charged[:1] * once, charged * twice]), axis=1)[:, :side]
    felt = np.fft.irfft(sums, 2 * side)[:, :, :side].reshape(4, -1)[:, index.ravel()].reshape(4, *index.shape)
    near, push, across, up = np.einsum("cnk,nk->cn", felt, weight)
    repulsion = points * push[:, None] - np.column_stack([across, up])
    return repulsion.astype(np.float32), max(float(near.sum(dtype=np.float64)) - len(points), 1e-12)


def _interpolation(at: Float32, side: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """The 3 × 3 nodes of each point's box, and Lagrange's weights on them; `at` is [N, 2] in widths of a box."""
    box = at.astype(np.int64)
    inside = (at - box) * NODES - np.float32(0.5)  # nodes stand at 0, 1 and 2
    weights = np.stack(
        [(inside - 1) * (inside - 2) / 2, -inside * (inside - 2), inside * (inside - 1) / 2], axis=-1
    )  # [N, 2, 3]
    node = box[:, :, None] * NODES + np.arange(NODES)  # [N, 2, 3]
    index = node[:, 0, :, None] * side + node[:, 1, None, :]
    weight = weights[:, 0, :, None] * weights[:, 1, None, :]
    return index.reshape(len(at), -1), weight.reshape(len(at), -1).astype(np.float32)


@lru_cache(maxsize=1)  # the grid grows now and then, and never shrinks for long
def _kernels(side: int) -> tuple[Complex, Complex]:
    """Transforms of 1/(1 + d²) and of its square on the grid's nodes, wrapped around twice the side."""
    steps = np.arange(2 * side)
    squared = np.square(np.minimum(steps, 2 * side - steps) * (BOX / NODES)).astype(np.float32)
    kernel = 1 / (1 + squared[:, None] + squared[None])
    return np.fft.rfft2(kernel), np.fft.rfft2(kernel * kernel)


def _smooth(number: int) -> int:
    """The least number from `number` up without a prime factor above 5: its Fourier transforms are fast."""
    rest = number
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return number if rest == 1 else _smooth(number + 1)
