"""t-SNE in two dimensions from neighbours that are already known (van der Maaten & Hinton, 2008).

Up to `EXACT_POINTS` points every pair is computed, with numpy alone: that is done before openTSNE and what it imports
would have loaded. Beyond, openTSNE interpolates the repulsion (FIt-SNE, Linderman et al., 2019).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32

EXACT_POINTS: Final = 2000
PERPLEXITY: Final = 30.0
EXAGGERATION: Final = 12.0
EXACT_ROUNDS: Final = (100, 300)  # iterations with and without exaggeration: from a PCA start this settles 2,000 points
FAST_ROUNDS: Final = (250, 500)
BLOCK_ROWS: Final = 128  # a block of pairs stays in the processor's cache
THREADS: Final = 2  # fixed: sums in another order would give another map

Neighbours = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]


def embed(neighbours: Neighbours, similarity: Float32, start: Float32, seed: int) -> Float32:
    """Place points in the plane so that neighbours lie together.

    Args:
        neighbours: [N, k] positions of each point's neighbours, nearest first; -1 where there is none.
        similarity: [N, k] their cosine similarity.
        start: [N, 2] where the points begin, such as two principal components; only its shape matters, not its scale.
        seed: for openTSNE; the exact form has no randomness.

    Returns:
        [N, 2], centred. The same input gives the same bytes on one machine.
    """
    weights = affinities(neighbours, similarity)
    begin = (start - start.mean(axis=0)) * (1e-4 / max(float(start[:, 0].std()), 1e-12))
    if len(start) <= EXACT_POINTS:
        return _exact(neighbours, weights, begin.astype(np.float32))
    return _fast(neighbours, weights, begin.astype(np.float64), seed)


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


def _exact(neighbours: Neighbours, weights: Float64, start: Float32) -> Float32:
    """Gradient descent over all pairs, with momentum and gains as in the authors' code."""
    joint = _joint(neighbours, weights)
    points, velocity, gains = start.copy(), np.zeros_like(start), np.ones_like(start)
    for rounds, exaggeration, momentum in zip(EXACT_ROUNDS, (EXAGGERATION, 1.0), (0.5, 0.8), strict=True):
        rate = len(start) / exaggeration  # Belkina et al., 2019
        for _ in range(rounds):
            gradient = _gradient(points, joint, exaggeration)
            gains = np.where(np.signbit(gradient) == np.signbit(velocity), gains * 0.8, gains + 0.2)
            gains = np.maximum(gains, 0.01).astype(np.float32)
            velocity = np.float32(momentum) * velocity - np.float32(rate) * gains * gradient
            points = points + velocity
            points -= points.mean(axis=0)
    return points


def _joint(neighbours: Neighbours, weights: Float64) -> Float32:
    """p(ij) = (p(j|i) + p(i|j)) / 2N as a dense [N, N]."""
    count = len(neighbours)
    dense = np.zeros((count, count + 1), np.float32)  # the last column takes the neighbours that are not there
    np.put_along_axis(dense, np.where(neighbours >= 0, neighbours, count), weights.astype(np.float32), axis=1)
    square = dense[:, :count]
    joint: Float32 = (square + square.T) / np.float32(2 * count)
    return joint


def _gradient(points: Float32, joint: Float32, exaggeration: float) -> Float32:
    """Equation 5 of the paper: 4 Σ_j (p_ij − q_ij)(y_i − y_j)/(1 + |y_i − y_j|²), blockwise, [N, 2]."""
    count = len(points)
    lengths = np.einsum("nd,nd->n", points, points)
    ones = np.ones(count, np.float32)
    # [−2y, 1, 1 + |y|²] · [y', |y'|², 1] = 1 + |y − y'|², so that one product gives a block's denominators.
    left = np.column_stack([-2 * points, ones, 1 + lengths])  # [N, 4]
    right = np.vstack([points.T, lengths, ones])  # [4, N]
    sides = np.column_stack([points, ones])  # [N, 3]
    pull, push = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    kernels, scratch = np.empty((BLOCK_ROWS, count), np.float32), np.empty((BLOCK_ROWS, count), np.float32)
    total = -float(count)  # each point's kernel with itself is 1 and does not count
    for begin in range(0, count, BLOCK_ROWS):
        rows = slice(begin, min(begin + BLOCK_ROWS, count))
        kernel, work = kernels[: rows.stop - begin], scratch[: rows.stop - begin]
        np.matmul(left[rows], right, out=kernel)
        np.reciprocal(kernel, out=kernel)
        total += float(kernel.sum())
        np.multiply(joint[rows], kernel, out=work)
        np.matmul(work, sides, out=pull[rows])
        np.multiply(kernel, kernel, out=kernel)
        np.matmul(kernel, sides, out=push[rows])
    attraction = points * pull[:, 2:] - pull[:, :2]
    repulsion = (points * push[:, 2:] - push[:, :2]) / np.float32(max(total, 1e-12))
    gradient: Float32 = 4 * (np.float32(exaggeration) * attraction - repulsion)
    return gradient


def _fast(neighbours: Neighbours, weights: Float64, start: Float64, seed: int) -> Float32:
    # openTSNE loads scipy, pandas and scikit-learn: only where it pays.
    import scipy.sparse  # noqa: PLC0415
    from openTSNE import TSNEEmbedding  # noqa: PLC0415
    from openTSNE.affinity import PrecomputedAffinities  # noqa: PLC0415

    count, k = neighbours.shape
    known = neighbours >= 0
    rows = np.repeat(np.arange(count), k)[known.ravel()]
    conditional = scipy.sparse.csr_matrix((weights[known], (rows, neighbours[known])), shape=(count, count))
    placed = TSNEEmbedding(
        start,
        PrecomputedAffinities(conditional + conditional.T),
        negative_gradient_method="fft",
        random_state=seed,
        n_jobs=THREADS,
    )
    for rounds, exaggeration, momentum in zip(FAST_ROUNDS, (EXAGGERATION, 1.0), (0.5, 0.8), strict=True):
        placed = placed.optimize(rounds, exaggeration=exaggeration, momentum=momentum)
    points = np.asarray(placed, dtype=np.float32)
    points -= points.mean(axis=0)
    return points
