"""Whether clusters come in sizes of their own: evidence that needs no labels.

k-means makes clusters of about one size, and communities whatever there is. Both are learned, and the two compared by
the neighbours of their images. Less equal clusters can tell less, so what they tell is taken for their entropy; by that
alone a cluster of nearly everything would often win. So each cluster is asked as well, small ones as much as large, how
many of its images' neighbours it holds: small clusters that are no kinds hold few.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.cluster.heads import Neighbours
from shoal.cluster.information import entropy, information, mean_cluster
from shoal.cluster.kmeans import Labels

MORE = 0.09  # clusters of sizes of their own tell so much more for their entropy, or sizes are called equal ...
HELD = 0.005  # and hold so much more of their neighbours, cluster by cluster ...
MUCH_MORE = 0.2  # ... and so much more needs no other evidence
TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was found.

    Attributes:
        gain: what clusters of sizes of their own tell of neighbours beyond those of one size, each for its entropy,
            as a part of what the latter tell.
        held: share of neighbours in their own cluster, the mean over clusters, beyond that of clusters of one size.
    """

    gain: float
    held: float

    @property
    def differ(self) -> bool:
        return self.gain > MUCH_MORE or (self.gain > MORE and self.held > HELD)

    @property
    def sentence(self) -> str:
        told = f"{abs(self.gain):.1%} {'more' if self.gain > 0 else 'less'}"
        if self.differ:
            return f"sizes differ: clusters of sizes of their own tell {told} of neighbours for their entropy"
        if self.gain > MORE:
            return "sizes are about equal: small clusters would hold less of their images' neighbours"
        return f"sizes are about equal: clusters of sizes of their own tell but {told} of neighbours for their entropy"


def compare(even: Labels, free: Labels, neighbours: Neighbours, k: int) -> Sizes:
    """Compare clusterings [n] of `k` clusters, of one size and of their own, by the images' neighbours [n, m]."""
    told, told_free = (information(labels, neighbours, k) / max(entropy(labels), TINY) for labels in (even, free))
    held, held_free = (mean_cluster(labels, neighbours, k) for labels in (even, free))
    return Sizes(told_free / told - 1 if told > 0 else 0.0, held_free - held)
