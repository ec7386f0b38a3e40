"""Learned clusters: many heads trained on neighbours, their consensus, and whether to trust it.

1. Draw each image towards its neighbours; cluster that by k-means many times over, in spaces of several sizes.
2. Let one linear head learn each of those clusterings, then train it for what its cluster says of its neighbours'.
3. Leave out heads that tell far less of held-out neighbours than the best, and cluster what the rest say together.

No label is seen anywhere; docs/decisions.md has what each step was compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans, stability, threads
from shoal.cluster.consensus import consensus_of
from shoal.cluster.heads import HELD_OUT, Heads, Neighbours, plan, train_heads
from shoal.cluster.kmeans import Clustering, Labels
from shoal.cluster.smoothing import principal, smoothed
from shoal.cluster.space import ClusterSpace, Rows, fit_space, points_of
from shoal.embeddings import Float32, Ids, normalise_rows
from shoal.neighbours.exact import exact_neighbours
from shoal.progress import Progress

LEAST_IMAGES = 1_000  # with fewer, and with fewer a cluster than the next, `auto` does not look at learned clusters
LEAST_IMAGES_PER_CLUSTER = 20
MOST_IMAGES = 60_000  # that heads are trained on; clusters are made of all of them
WHITE_DIMS = 256
IMAGES_PER_DIM = 8
NEIGHBOURS = 20  # as SCAN mines
START_DIMS = (24, 32, 40, 48)  # of the spaces that heads begin in ...
SMALL_DIMS = (4, 8, 16)  # ... or in these, if one of them tells more of neighbours by this factor
MARGIN = 1.03
STARTS = 2
MOST_HEADS, LEAST_HEADS = 32, 4
OUTPUTS = 640  # heads times clusters, at most: more clusters, fewer heads
SIDE_BY_SIDE = 8  # heads trained in the same matrix products
CONSENSUS_STARTS = 10
SOUND = 0.9
UNWHITENED = {"turtle"}  # looks for wide margins, which a whitening makes alike in all directions
LEAST_AGREEMENT = 0.25  # mean adjusted Rand index of the heads with their consensus
DOMINATING = 3.0  # a cluster this many times as large as k-means' largest, and of half of the images, is a collapse
ASKED_IMAGES = 10_000  # how many, about, tell how far the heads agree
NEARLY = 0.97  # of what k-means tells of neighbours: with that much, learned clusters are taken


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What heads found.

    Attributes:
        space: whitening and consensus; its points are what `found` is made of, and new images go through it too.
        found: the clustering of all images.
        points, lengths: of all images in the space, as `ClusterSpace.project` gives them.
        sample: positions of the images that the heads were trained on, rising.
        neighbours: of the sample, as positions in it.
        agreement: mean adjusted Rand index of the kept heads with the consensus, at most 1.
        loss: mean loss of the kept heads on held-out pairs.
    """

    space: ClusterSpace
    found: Clustering
    points: Float32
    lengths: Float32
    sample: Ids
    neighbours: Neighbours
    agreement: float
    loss: float


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether learned clusters are taken, and one sentence that says why."""

    taken: bool
    sentence: str


def worth_a_look(images: int, k: int) -> bool:
    """Whether there are images enough for heads to learn more than chance."""
    return images >= max(LEAST_IMAGES, LEAST_IMAGES_PER_CLUSTER * k)


def learn(
    store: Rows,
    ids: Ids,
    k: int,
    seed: int,
    *,
    objective: str = "mutual_information",
    heads: int | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Learn `k` clusters of the images `ids` in `store`.

    Args:
        objective: what heads are trained for, a key of `objectives.OBJECTIVES`.
        heads: how many are trained; None takes 32, fewer for many clusters.
    """
    n = len(ids)
    sample = np.arange(n)
    if n > MOST_IMAGES:
        sample = np.sort(np.random.default_rng([seed, 4]).choice(n, MOST_IMAGES, replace=False))
    ground = prepare(store, ids, sample, seed)
    count = heads or max(LEAST_HEADS, min(MOST_HEADS, OUTPUTS // k))
    kept = _sound(heads_on(ground, k, seed, count, objective=objective, progress=progress), ground)
    white, neighbours = ground.white, ground.neighbours
    space = replace(ground.space, consensus=consensus_of(kept, white))
    points, lengths = points_of(space, store, ids)
    found = kmeans.fit(points, k, np.random.default_rng([seed, k, 6]), starts=CONSENSUS_STARTS)
    own = found.labels[sample]
    agreement = _agreement(kept, white, own, k)
    return Learned(space, found, points, lengths, sample, neighbours, agreement, float(kept.losses.mean()))


def judge(learned: Learned, plain: Labels, k: int) -> Verdict:
    """Compare learned clusters with those of k-means, `plain` [N], by evidence that needs no labels.

    The better ones say more about which cluster an image's neighbours are in: the mutual information of the clusters
    of neighbours, on pairs whose first image trained no head. Nearly as much will do: k-means cuts the very space that
    neighbours are told by, and is flattered by it; docs/decisions.md has the comparison.
    """
    both = (learned.found.labels, plain)
    own, other = (_information(labels[learned.sample], learned.neighbours, k) for labels in both)
    largest, largest_plain = (float(np.bincount(labels).max()) / len(plain) for labels in both)
    told = f"{own:.2f} against {other:.2f} nats on neighbours held out"
    if largest > 0.5 and largest > DOMINATING * largest_plain:
        return Verdict(False, f"k-means stands: the learned clusters collapsed, one of them holds {largest:.0%} of all")
    if learned.agreement < LEAST_AGREEMENT:
        return Verdict(False, f"k-means stands: the learned heads do not agree (adjusted Rand {learned.agreement:.2f})")
    if own <= NEARLY * other:
        return Verdict(False, f"k-means stands: learned clusters tell less of an image's neighbours ({told})")
    more = "more of an image's neighbours than" if own > other else "nearly as much of an image's neighbours as"
    return Verdict(True, f"learned clusters tell {more} k-means ({told})")


def prepare(store: Rows, ids: Ids, sample: Ids, seed: int) -> Ground:
    """What heads on the images `ids[sample]` learn from; the space is fitted to all `ids`."""
    dims = max(1, min(WHITE_DIMS, len(ids) // IMAGES_PER_DIM, store.dim))
    space = fit_space(store, ids, "cosine", np.random.default_rng([seed, 5]), dims=dims, whitening=1.0)
    white = points_of(space, store, ids[sample], unit=False)[0]
    assert space.scales is not None  # of the cosine metric
    # Whitened by half: a whole whitening would drown what near neighbours share.
    rows = normalise_rows(np.divide(white, np.sqrt(space.scales), dtype=np.float32))
    neighbours, _ = exact_neighbours(rows, min(NEIGHBOURS, len(sample) - 1))
    return Ground(space, white, neighbours, *principal(smoothed(rows, neighbours), START_DIMS[-1]))


def heads_on(
    ground: Ground,
    k: int,
    seed: int,
    count: int,
    *,
    objective: str = "mutual_information",
    progress: Progress | None = None,
) -> Heads:
    """Train `count` heads of `k` clusters, in groups of one size on every machine; each group on one core."""
    starts = starts_on(ground, k, count, seed)
    stretch = _unwhitening(ground.space) if objective in UNWHITENED else np.ones(ground.white.shape[1], np.float32)
    points = ground.white * stretch
    groups = [starts[first : first + SIDE_BY_SIDE] for first in range(0, count, SIDE_BY_SIDE)]
    with (progress or Progress()).task("Learning", plan(len(ground.white))[2] * len(groups), "epochs") as task:

        def train(number: int) -> Heads:
            own = int(np.random.default_rng([seed, k, 8, number]).integers(2**31))
            group = groups[number]
            return train_heads(points, ground.neighbours, group, k, own, objective=objective, watch=task.advance)

        heads = Heads.together(list(threads.each(train, range(len(groups)))))
    return replace(heads, weights=heads.weights * stretch[:, None, None])  # for whitened points again


def _unwhitening(space: ClusterSpace) -> Float32:
    """What gives whitened coordinates [dims] their variances again, at the same mean square length."""
    assert space.scales is not None  # of the cosine metric
    stretch = 1 / space.scales
    stretched: Float32 = (stretch / np.sqrt(np.mean(stretch**2))).astype(np.float32)
    return stretched


def starts_on(ground: Ground, k: int, count: int, seed: int) -> list[Labels]:
    """Clusterings of smoothed points by k-means, in whitened spaces of several sizes.

    Few kinds far apart need a small space, since whitening makes the other directions, which are noise, as large. So
    one start is made in each space first, to see whether small ones tell more of an image's neighbours.
    """

    def start(number: int, dims: int) -> Labels:
        rows = ground.smooth[:, :dims].copy()  # made of unit length in place
        return kmeans.fit(normalise_rows(rows), k, np.random.default_rng([seed, k, 7, number]), starts=STARTS).labels

    sizes = [*START_DIMS, *SMALL_DIMS]
    found = dict(zip(sizes, threads.each(lambda item: start(*item), enumerate(sizes)), strict=True))
    told = {dims: _information(labels, ground.neighbours, k) for dims, labels in found.items()}
    large, small = (max(dims, key=lambda one: told[one]) for dims in (START_DIMS, SMALL_DIMS))
    spaces = (small,) if told[small] > MARGIN * told[large] else START_DIMS
    numbers = range(len(sizes), len(sizes) + count - len(spaces))
    more = threads.each(lambda number: start(number, spaces[number % len(spaces)]), numbers)
    return [*(found[dims] for dims in spaces), *more][:count]


def _sound(heads: Heads, ground: Ground) -> Heads:
    """Heads that tell nearly as much of an image's neighbours as the best one does, by their held-out information.

    Choosing more strictly loses more by heads that are alike than it gains by better ones; docs/decisions.md.
    """
    labels = heads.logits(ground.white).argmax(axis=2).astype(np.int32)  # [n, heads]
    told = np.array([_information(one, ground.neighbours, heads.bias.shape[1]) for one in labels.T])
    kept = np.flatnonzero(told >= SOUND * told.max())
    return Heads(np.ascontiguousarray(heads.weights[:, kept]), heads.bias[kept], heads.losses[kept])


def _agreement(heads: Heads, white: Float32, labels: Labels, k: int) -> float:
    """Mean adjusted Rand index of the heads with `labels` [n], on some of the images."""
    some = slice(None, None, max(1, len(white) // ASKED_IMAGES))
    said = heads.logits(white[some]).argmax(axis=2).astype(np.int32)  # [some, heads]
    return float(np.mean([stability.adjusted_rand(stability.contingency(one, labels[some], k)) for one in said.T]))


def _information(labels: Labels, neighbours: Neighbours, k: int) -> float:
    """Mutual information, in nats, of the clusters of held-out images and of their neighbours."""
    held_out = np.arange(0, len(labels), HELD_OUT)
    first = np.repeat(labels[held_out], neighbours.shape[1])
    table = stability.contingency(first, labels[neighbours[held_out]].ravel(), k).astype(np.float64)
    joint: npt.NDArray[np.float64] = (table + table.T) / (2 * table.sum())
    chance = np.outer(joint.sum(axis=0), joint.sum(axis=1))
    there = joint > 0
    return float(np.sum(joint[there] * np.log(joint[there] / chance[there])))
