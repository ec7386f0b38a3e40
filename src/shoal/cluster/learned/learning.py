"""Learned clusters: many heads trained on neighbours, one clustering of what they say, and whether to trust it.

1. Draw each image towards its neighbours; cut that by k-means, and the graph of neighbours into communities.
2. Let one linear head learn each of many such clusterings, then train it for what its cluster says of its
   neighbours', with clusters of one size, or of the communities' sizes.
3. Leave out heads that tell far less of held-out neighbours than the best, and join what the rest say.
4. Teach one last head the images that are sure.
5. Let evidence say whether clusters are about as large as each other, or of sizes of their own: one of the two heads
   is the model.

No label is seen anywhere; docs/clusters.md says it with a picture, docs/decisions.md what each step was compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoal.cluster import threads
from shoal.cluster.arrays import Labels, Neighbours
from shoal.cluster.contingency import adjusted_rand, contingency, matched
from shoal.cluster.ground.ground import Ground, prepare
from shoal.cluster.ground.information import entropy, information
from shoal.cluster.heads.placed import MOST_IMAGES, Placed, Taught, place, teach
from shoal.cluster.heads.training import LARGEST_BATCH, Heads, plan, train_heads
from shoal.cluster.learned import sizes as cluster_sizes
from shoal.cluster.learned.agreed import agreed
from shoal.cluster.learned.sizes import Sizes
from shoal.cluster.learned.starts import by_communities, by_k_means
from shoal.cluster.sample import sample_of, some_of
from shoal.cluster.space import ClusterSpace, Rows
from shoal.embeddings import Float32, Ids
from shoal.progress import Progress

LEAST_IMAGES = 1_000  # with fewer, and with fewer a cluster than the next, `auto` does not look at learned clusters
LEAST_IMAGES_PER_CLUSTER = 20
MOST_CLUSTERS = LARGEST_BATCH // 8  # more are not learned: a batch of pairs would tell of each by fewer than eight
FEWEST_HEADS = 2  # one for each sort of sizes
MOST_HEADS, LEAST_HEADS = 48, 4  # that are trained unless told
OUTPUTS = 960  # heads times clusters, about, at most: more clusters, fewer heads
MANY_IMAGES = 20_000  # with more, a third of the heads, and no more than ...
MANY_IMAGES_FREE = 10  # ... so many, have clusters of sizes of their own
SIDE_BY_SIDE = 8  # heads trained in the same matrix products
SOUND = 0.9
UNWHITENED = {"turtle"}  # looks for wide margins, which a whitening makes alike in all directions
TINY = 1e-9
ASKED_IMAGES = 10_000  # how many, at the most, tell how far the heads agree


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What heads found.

    Attributes:
        placed: the clustering of all images.
        sample: positions of the images that the heads were trained on, rising.
        neighbours: of the sample, as positions in it.
        agreement: mean adjusted Rand index of the kept heads with the consensus, at most 1.
        loss: mean loss of the kept heads on held-out pairs.
        sizes: whether clusters have sizes of their own.
    """

    placed: Placed
    sample: Ids
    neighbours: Neighbours
    agreement: float
    loss: float
    sizes: Sizes


def worth_a_look(images: int, k: int) -> bool:
    """Whether there are images enough for heads to learn more than chance, and not too many clusters."""
    return k <= MOST_CLUSTERS and images >= max(LEAST_IMAGES, LEAST_IMAGES_PER_CLUSTER * k)


def learn(
    store: Rows,
    ids: Ids,
    k: int,
    seed: int,
    *,
    objective: str = "mutual_information",
    heads: int | None = None,
    most: int = MOST_IMAGES,
    progress: Progress | None = None,
) -> Learned:
    """Learn `k` clusters of the images `ids` in `store`.

    Args:
        objective: what heads are trained for, a key of `objectives.OBJECTIVES`.
        heads: how many are trained, 2 or more, shared out as `head_counts` does; None takes 48, or 58 on more than
            20,000 images, and fewer for many clusters.
        most: images that heads are trained on, at the most.
    """
    sample = sample_of(ids, most, seed)
    ground = prepare(store, ids, sample, seed)
    even_count, free_count = head_counts(heads or usual_heads(k, len(sample)), len(sample))
    even = by_k_means(ground, k, even_count, seed)
    free = by_communities(ground, k, free_count, seed)

    def made(starts: list[Labels], keep_sizes: bool) -> tuple[Heads, Taught]:
        found = heads_on(ground, k, seed, starts, objective=objective, keep_sizes=keep_sizes, progress=progress)
        kept = sound(found, ground, per_entropy=keep_sizes)
        labels = agreed(kept, ground, k, seed, keep_sizes=keep_sizes)
        return kept, teach(ground, labels, k, seed)

    both = [made(even, False), made(free, True)]
    of_one_size, of_their_own = (taught.labels for _, taught in both)
    sizes = cluster_sizes.compare(of_one_size, of_their_own, ground.neighbours, k)
    kept, taught = both[sizes.differ]
    beside = _beside(of_one_size, of_their_own, sizes, k)
    placed = place(ground, taught, k, store, ids, sample, beside)
    agreement = _agreement(kept, ground.white, placed.found.labels[sample], k)
    return Learned(placed, sample, ground.neighbours, agreement, float(kept.losses.mean()), sizes)


def usual_heads(k: int, images: int) -> int:
    """How many heads of `k` clusters are trained on so many images unless told."""
    most = max(LEAST_HEADS, min(MOST_HEADS, OUTPUTS // k))
    half = (most + 1) // 2
    return 2 * half if images <= MANY_IMAGES else most + min(half, MANY_IMAGES_FREE)


def head_counts(heads: int, images: int) -> tuple[int, int]:
    """Of so many heads, 2 or more, how many have clusters of one size, and how many sizes of their own.

    Half of each; on more than 20,000 images a third of them, 10 at the most, have sizes of their own.
    """
    free = heads // 2 if images <= MANY_IMAGES else min(-(-heads // 3), MANY_IMAGES_FREE)
    return heads - free, free


def heads_on(
    ground: Ground,
    k: int,
    seed: int,
    starts: Sequence[Labels],
    *,
    objective: str = "mutual_information",
    keep_sizes: bool = False,
    progress: Progress | None = None,
) -> Heads:
    """Train a head of `k` clusters from each of `starts`, in groups of one size on every machine; each on one core."""
    stretch = _unwhitening(ground.space) if objective in UNWHITENED else np.ones(ground.white.shape[1], np.float32)
    points = ground.white * stretch
    groups = [starts[first : first + SIDE_BY_SIDE] for first in range(0, len(starts), SIDE_BY_SIDE)]
    with (progress or Progress()).task("Learning", plan(len(ground.white))[2] * len(groups), "epochs") as task:

        def train(number: int) -> Heads:
            own = int(np.random.default_rng([seed, k, 8, number]).integers(2**31))
            return train_heads(
                points,
                ground.neighbours,
                groups[number],
                k,
                own,
                objective=objective,
                keep_sizes=keep_sizes,
                watch=task.advance,
            )

        heads = Heads.together(list(threads.each(train, range(len(groups)))))
    return replace(heads, weights=heads.weights * stretch[:, None, None])  # for whitened points again


def _unwhitening(space: ClusterSpace) -> Float32:
    """What gives whitened coordinates [dims] their variances again, at the same mean square length."""
    assert space.scales is not None  # of the cosine metric
    stretch = 1 / space.scales
    stretched: Float32 = (stretch / np.sqrt(np.mean(stretch**2))).astype(np.float32)
    return stretched


def sound(heads: Heads, ground: Ground, per_entropy: bool) -> Heads:
    """Heads that tell nearly as much of an image's neighbours as the best one does, by their held-out information.

    Of clusters with sizes of their own it is taken for what it could be, the entropy. Choosing more strictly loses more
    by heads that are alike than it gains by better ones; docs/decisions.md.
    """
    labels = heads.logits(ground.white).argmax(axis=2).astype(np.int32)  # [n, heads]
    k = heads.bias.shape[1]
    told = np.array(
        [information(one, ground.neighbours, k) / (max(entropy(one), TINY) if per_entropy else 1) for one in labels.T]
    )
    return heads.some(np.flatnonzero(told >= SOUND * told.max()))


def _beside(even: Labels, free: Labels, sizes: Sizes, k: int) -> float | None:
    """How far clusters of their own sizes agree with those of one size, where these are taken.

    Not the other way round: clusters of one size must part what is frequent, and say little of ones that need not.
    """
    return None if sizes.differ else matched(contingency(even, free, k))


def _agreement(heads: Heads, white: Float32, labels: Labels, k: int) -> float:
    """Mean adjusted Rand index of the heads with `labels` [n], on some of the images."""
    some = some_of(len(white), ASKED_IMAGES)
    said = heads.logits(white[some]).argmax(axis=2).astype(np.int32)  # [some, heads]
    return float(np.mean([adjusted_rand(contingency(one, labels[some], k)) for one in said.T]))
