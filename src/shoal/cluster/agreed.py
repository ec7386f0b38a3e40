"""One clustering that many heads agree on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster import accumulation, kmeans, stability, threads
from shoal.cluster.consensus import consensus_of
from shoal.cluster.ground import Ground
from shoal.cluster.heads import Heads
from shoal.cluster.information import worst_cluster
from shoal.cluster.kmeans import Labels

EVEN_TRIES, EVEN_PART = 16, 3  # by k-means: so many parts, each a third of the heads ...
FREE_TRIES, FREE_PART = 8, 2  # ... and by linkage, whose answers differ less
LEAST_PART = 8
STARTS = 3
SOUND = 0.9
COMPARED_IMAGES = 20_000


def agreed(heads: Heads, ground: Ground, k: int, seed: int, *, keep_sizes: bool) -> Labels:
    """Clusters of what the heads say together, int32 [n]: by k-means, of about one size, or by linkage, as they are.

    Joining votes has more than one answer that is nearly as good as the best. So random parts of the heads are asked,
    and the answer that agrees best with the others is taken. k-means may give what fits nowhere a cluster of its own,
    so that two kinds share another: its answers with a cluster whose images have their neighbours elsewhere are left
    out before.
    """
    count = len(heads.bias)
    tries, parts = (FREE_TRIES, FREE_PART) if keep_sizes else (EVEN_TRIES, EVEN_PART)
    part = min(count, max(LEAST_PART, count // parts))

    def answer(number: int) -> Labels:
        random = np.random.default_rng([seed, k, 12, number])
        some = heads.some(np.sort(random.choice(count, part, replace=False)))
        rows = consensus_of(some, ground.white).transform(ground.white)
        if keep_sizes:
            return accumulation.joined(rows, some.probabilities(ground.white), k, random)
        return kmeans.fit(rows, k, random, starts=STARTS).labels

    found = list(threads.each(answer, range(tries if part < count else 1)))
    if not keep_sizes:
        worst = [worst_cluster(labels, ground.neighbours, k) for labels in found]
        found = [labels for labels, least in zip(found, worst, strict=True) if least >= SOUND * max(worst)]
    return found[int(np.argmax(_agreements(found, k)))]


def _agreements(labellings: list[Labels], k: int) -> npt.NDArray[np.float64]:
    """Mean adjusted Rand index of each labelling with all of them."""
    some = slice(None, None, max(1, len(labellings[0]) // COMPARED_IMAGES))
    tables = [[stability.contingency(one[some], other[some], k) for other in labellings] for one in labellings]
    return np.array([np.mean([stability.adjusted_rand(table) for table in row]) for row in tables])
