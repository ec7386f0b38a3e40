"""One clustering that many heads agree on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans, threads
from shoal.cluster.arrays import Labels
from shoal.cluster.consensus import ROWS, Consensus
from shoal.cluster.contingency import adjusted_rand, contingency
from shoal.cluster.ground.ground import Ground
from shoal.cluster.ground.information import worst_cluster
from shoal.cluster.heads.training import Heads
from shoal.cluster.learned import accumulation
from shoal.cluster.sample import some_of
from shoal.embeddings import Float32

STARTS = 32  # of k-means, each on all votes
SOUND = 0.75
TRIES, PART, LEAST_PART = 8, 2, 8  # by linkage: so many parts, each half of the heads, or 8
COMPARED_IMAGES = 20_000


def agreed(heads: Heads, ground: Ground, k: int, seed: int, *, keep_sizes: bool) -> Labels:
    """Clusters of what the heads say together, int32 [n]: by k-means, of about one size, or by linkage, as they are."""
    return _linked(heads, ground, k, seed) if keep_sizes else _of_about_one_size(heads, ground, k, seed)


def consensus_of(heads: Heads, points: Float32) -> Consensus:
    """The consensus of `heads` on whitened points [n, d], in as many dimensions as a head has clusters."""
    columns = heads.bias.size
    total, second = np.zeros(columns), np.zeros((columns, columns))
    for start in range(0, len(points), ROWS):
        block = heads.probabilities(points[start : start + ROWS]).reshape(-1, columns)  # [rows, heads · k]
        total += block.sum(axis=0, dtype=np.float64)
        second += block.T @ block
    mean = total / len(points)
    scale = 1 / np.sqrt(np.maximum(mean, 1 / len(points)))
    covariance = (second / len(points) - np.outer(mean, mean)) * np.outer(scale, scale)
    variances, directions = threads.eigh(covariance)
    kept = np.argsort(-variances)[: heads.bias.shape[1]]
    signs = np.sign(directions[np.abs(directions[:, kept]).argmax(axis=0), kept])
    return Consensus(
        heads.weights,
        heads.bias,
        scale.astype(np.float32),
        (mean * scale).astype(np.float32),
        (directions[:, kept] * signs).astype(np.float32),
    )


def _of_about_one_size(heads: Heads, ground: Ground, k: int, seed: int) -> Labels:
    """k-means of the votes, its best answer of many: votes have two or three that are nearly as good.

    k-means may give what fits nowhere a cluster of its own, so that two kinds share another: answers with a cluster
    whose images have their neighbours elsewhere are left out before.
    """
    rows = consensus_of(heads, ground.white).transform(ground.white)
    found = list(threads.each(lambda own: kmeans.fit(rows, k, _random(seed, k, own), starts=1), range(STARTS)))
    worst = [worst_cluster(one.labels, ground.neighbours, k) for one in found]
    sound = [one for one, least in zip(found, worst, strict=True) if least >= SOUND * max(worst)]
    return min(sound, key=lambda one: one.inertia).labels


def _linked(heads: Heads, ground: Ground, k: int, seed: int) -> Labels:
    """Average linkage of the votes: random parts of the heads are asked, and the answer most like the others taken."""
    count = len(heads.bias)
    part = min(count, max(LEAST_PART, count // PART))

    def answer(number: int) -> Labels:
        random = _random(seed, k, number)
        some = heads.some(np.sort(random.choice(count, part, replace=False)))
        rows = consensus_of(some, ground.white).transform(ground.white)
        return accumulation.joined(rows, some.probabilities(ground.white), k, random)

    found = list(threads.each(answer, range(TRIES if part < count else 1)))
    return found[int(np.argmax(_agreements(found, k)))]


def _random(seed: int, k: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, k, 12, number])


def _agreements(labellings: list[Labels], k: int) -> npt.NDArray[np.float64]:
    """Mean adjusted Rand index of each labelling with all of them."""
    some = some_of(len(labellings[0]), COMPARED_IMAGES)
    tables = [[contingency(one[some], other[some], k) for other in labellings] for one in labellings]
    return np.array([np.mean([adjusted_rand(table) for table in row]) for row in tables])
