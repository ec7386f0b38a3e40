"""Whether clusters come in sizes of their own: evidence that needs no labels.

k-means makes clusters of about one size, and communities whatever there is. Fewer clusters, or less equal ones, always
tell less of an image's neighbours; so the two are compared where they say as much: communities with the entropy of
about seven equal clusters, say, with seven clusters of k-means. Where communities tell more, sizes do differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.cluster.ground import Ground
from shoal.cluster.information import entropy, information
from shoal.cluster.kmeans import Labels
from shoal.cluster.starts import KMeansStarts

MORE = 0.005  # communities tell so much beyond what k-means tells at the same entropy, or sizes are called equal ...
EVEN = 0.9  # ... and this part of the clusters at the most would say as much if they were equal
TRIES = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was found.

    Attributes:
        gain: what communities tell of neighbours beyond clusters of one size with the same entropy, as a part of that.
        effective: how many clusters of one size would have the communities' mean entropy, as a part of their number.
    """

    gain: float
    effective: float

    @property
    def differ(self) -> bool:
        return self.gain > MORE and self.effective < EVEN

    @property
    def sentence(self) -> str:
        told = f"{abs(self.gain):.1%} {'more' if self.gain > 0 else 'less'}"
        if self.differ:
            return f"sizes differ: communities tell {told} of neighbours than clusters of one size that say as much"
        return f"sizes are about equal: communities tell but {told} of neighbours than clusters of one size"


def compare(ground: Ground, even: Sequence[Labels], free: Sequence[Labels], k: int, seed: int) -> Sizes:
    """Compare k-means' clusterings `even` with communities `free`, both of `k` clusters, by what they tell.

    Between the numbers of clusters looked at, what k-means tells is taken to rise straight with the entropy.
    """
    entropies = [entropy(labels) for labels in free]
    fewest, middle = math.exp(min(entropies)), math.exp(float(np.mean(entropies)))
    numbers = sorted({number for number in (int(fewest), int(middle), math.ceil(middle)) if 2 <= number < k})

    groups = [(number, KMeansStarts(ground, number, seed).next(TRIES)) for number in numbers]
    points = [(0.0, 0.0)]
    for number, labels in [*groups, (k, even)]:
        told = [information(one, ground.neighbours, number) for one in labels]
        points.append((float(np.mean([entropy(one) for one in labels])), float(np.mean(told))))
    at, worth = zip(*sorted(points), strict=True)
    told_free = np.array([information(one, ground.neighbours, k) for one in free])
    expected = np.interp(entropies, at, worth)
    gain = float(told_free.sum() / expected.sum() - 1) if expected.sum() > 0 else 0.0
    return Sizes(gain, middle / k)
