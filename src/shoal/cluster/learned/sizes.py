"""Whether clusters come in sizes of their own: evidence that needs no labels.

k-means makes clusters of about one size, and communities whatever there is. Both are learned, and those of their own
sizes are looked at. Where kinds are about equal, they join two that features do not part, hardly ever three: a cluster
of nearly three mean ones is one kind of which there is much. What they tell of images' neighbours, for
their entropy since less equal clusters can tell less, must bear it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shoal.cluster.arrays import Labels, Neighbours
from shoal.cluster.ground.information import entropy, information

LARGE: Final = 2.8  # times a mean cluster, that the largest holds where sizes differ, and they tell more; or ...
MUCH_MORE: Final = 0.2  # ... they tell so much more that no other evidence is needed: few clusters can hold no such one
TINY: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was found.

    Attributes:
        gain: what clusters of sizes of their own tell of neighbours beyond those of one size, each for its entropy,
            as a part of what the latter tell.
        largest: images in the largest of them, in mean clusters.
    """

    gain: float
    largest: float

    @property
    def differ(self) -> bool:
        return self.gain > MUCH_MORE or (self.gain > 0 and self.largest > LARGE)

    @property
    def sentence(self) -> str:
        told = f"{abs(self.gain):.1%} {'more' if self.gain > 0 else 'less'} of neighbours for their entropy"
        if self.differ:
            return f"sizes differ: the largest holds as much as {self.largest:.1f} mean clusters, and they tell {told}"
        if self.gain > 0:
            return (
                f"sizes are about equal: left free, no cluster would hold as much as {LARGE:g} mean ones "
                f"(the largest {self.largest:.1f})"
            )
        return f"sizes are about equal: clusters of sizes of their own tell {told}"


def compare(even: Labels, free: Labels, neighbours: Neighbours, k: int) -> Sizes:
    """Compare clusterings [n] of `k` clusters, of one size and of their own, by the images' neighbours [n, m]."""
    told, told_free = (information(labels, neighbours, k) / max(entropy(labels), TINY) for labels in (even, free))
    return Sizes(told_free / told - 1 if told > 0 else 0.0, float(np.bincount(free).max()) * k / len(free))
