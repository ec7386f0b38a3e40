"""Whether learned clusters are taken, or those of k-means stand: by evidence that needs no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shoal.cluster.arrays import Labels
from shoal.cluster.ground.information import entropy, information
from shoal.cluster.learned.learning import Learned

LEAST_AGREEMENT: Final = 0.25  # mean adjusted Rand index of the heads with their consensus
DOMINATING: Final = 3.0  # a cluster so many times as large as k-means' largest is a collapse, if it holds more than ...
MOST_EVEN, MOST_FREE = 0.5, 0.9  # ... so much of all images, where sizes are about equal, and where they differ
NEARLY: Final = 0.97  # of what k-means tells of neighbours: with that much, learned clusters are taken
TINY: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether learned clusters are taken, and one sentence that says why."""

    taken: bool
    sentence: str


def judge(learned: Learned, plain: Labels, k: int) -> Verdict:
    """Compare learned clusters with those of k-means, `plain` [N].

    The better ones say more about which cluster an image's neighbours are in: the mutual information of the clusters
    of neighbours, on pairs whose first image trained no head. Clusters that are less equal can tell less, so of them
    less is asked. Nearly as much will do: k-means cuts the very space that neighbours are told by, and is flattered by
    it; docs/decisions.md has the comparison.
    """
    everywhere = learned.placed.found.labels, plain
    sampled = [labels[learned.sample] for labels in everywhere]
    own, other = (information(labels, learned.neighbours, k) for labels in sampled)
    possible, possible_plain = (entropy(labels) for labels in sampled)
    asked = NEARLY * other * min(1.0, possible / max(possible_plain, TINY))
    largest, largest_plain = (float(np.bincount(labels).max()) / len(plain) for labels in everywhere)
    told = f"{own:.2f} against {other:.2f} nats on neighbours held out"
    if largest > (MOST_FREE if learned.sizes.differ else MOST_EVEN) and largest > DOMINATING * largest_plain:
        return Verdict(False, f"k-means stands: the learned clusters collapsed, one of them holds {largest:.0%} of all")
    if learned.agreement < LEAST_AGREEMENT:
        return Verdict(False, f"k-means stands: the learned heads do not agree (adjusted Rand {learned.agreement:.2f})")
    if own <= asked:
        return Verdict(False, f"k-means stands: learned clusters tell less of an image's neighbours ({told})")
    much = "nearly as much" if own > NEARLY * other else "as much for their sizes"
    more = "more of an image's neighbours than" if own > other else f"{much} of an image's neighbours as"
    return Verdict(True, f"learned clusters tell {more} k-means ({told}); {learned.sizes.sentence}")
