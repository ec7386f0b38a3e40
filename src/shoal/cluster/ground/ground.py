"""What learned clusters are made from: whitened points, neighbours, and points drawn towards those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.cluster.arrays import Neighbours
from shoal.cluster.ground.smoothing import principal, smoothed
from shoal.cluster.sample import LOOKED_AT, sample_of
from shoal.cluster.space import ClusterSpace, Rows, fit_space, points_of
from shoal.embeddings import Float32, Ids, normalise_rows
from shoal.neighbours.exact import exact_neighbours

WHITE_DIMS = 256
IMAGES_PER_DIM = 8
NEIGHBOURS = 20  # as SCAN mines
SMOOTH_DIMS = 48


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What heads of any number of clusters learn from, for n images.

    Attributes:
        space: the whitening, without a consensus.
        white: float32 [n, dims], points whitened and as long as they are.
        neighbours: of each, as positions among the n.
        smooth: float32 [n, at most 48], whitened coordinates of the points drawn towards their neighbours.
        deviations: float32 [at most 48], standard deviations of those coordinates before they were whitened, falling.
    """

    space: ClusterSpace
    white: Float32
    neighbours: Neighbours
    smooth: Float32
    deviations: Float32

    @property
    def drawn(self) -> Float32:
        """The points drawn towards their neighbours, not whitened, [n, at most 48]."""
        return self.smooth * self.deviations


def prepare(store: Rows, ids: Ids, sample: Ids, seed: int) -> Ground:
    """What heads on the images `ids[sample]` learn from; the space is fitted to LOOKED_AT of all `ids`."""
    seen = ids[sample_of(ids, LOOKED_AT, seed)]
    dims = max(1, min(WHITE_DIMS, len(seen) // IMAGES_PER_DIM, store.dim))
    space = fit_space(store, seen, "cosine", np.random.default_rng([seed, 5]), dims=dims, whitening=1.0)
    white = points_of(space, store, ids[sample], unit=False)[0]
    assert space.scales is not None  # of the cosine metric
    # Whitened by half: a whole whitening would drown what near neighbours share.
    rows = normalise_rows(np.divide(white, np.sqrt(space.scales), dtype=np.float32))
    neighbours, _ = exact_neighbours(rows, min(NEIGHBOURS, len(sample) - 1))
    return Ground(space, white, neighbours, *principal(smoothed(rows, neighbours), SMOOTH_DIMS))
