"""Clusters by average linkage: another kind of clustering than k-means and heads, with sizes as they come out.

Where two kinds of clustering agree on an image they are likely right about it, and how often they agree says about how
often either is right (two runs of one kind share their mistakes; Jiang et al., Assessing generalization of SGD via
disagreement, 2022, section 4).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.cluster import kmeans
from shoal.cluster.arrays import Labels
from shoal.cluster.kmeans import COSINE
from shoal.embeddings import Float32, normalise_rows

LEAVES: Final = 1_000  # small groups that are joined; more points than this are grouped first
LEAVES_PER_CLUSTER: Final = 4
MOST_LEAVES: Final = 4_000  # whose distances take 64 MB
GROUPING_ROUNDS: Final = 5
ROWS: Final = 256  # points whose neighbours are looked for at once
DRAWN_TO: Final = 10  # nearest groups that each group is drawn towards before they are joined
LEAST_SHARE: Final = 0.05  # of a mean cluster: what is smaller is no cluster, and joins the nearest one
CUTS: Final = 6  # cuts with up to this many times the clusters asked for are looked at


def linked(points: Float32, k: int, rng: np.random.Generator, metric: str) -> Labels:
    """Labels int32 [N] of `points` [N, d] in `k` clusters, or fewer where no `k` are large enough to be clusters.

    Points are grouped by a few rounds of k-means, groups are drawn towards their nearest ones, and joined by the mean
    distance between all of two clusters' groups.
    """
    from scipy.cluster import hierarchy  # noqa: PLC0415  (a fifth of a second that other commands need not wait for)

    groups, member = small_groups(points, min(max(LEAVES, LEAVES_PER_CLUSTER * k), MOST_LEAVES), rng, metric)
    if len(groups) <= k:
        return member
    sizes = np.bincount(member, minlength=len(groups))
    drawn = _drawn(groups, min(DRAWN_TO, len(groups) // (2 * k)), metric)
    tree = hierarchy.linkage(drawn.astype(np.float64), "average", metric=metric)
    least, best, kept = LEAST_SHARE * len(points) / k, np.zeros(len(groups), np.int32), np.zeros(1, np.intp)
    for count in range(k, min(len(groups), CUTS * k) + 1):
        cut = hierarchy.fcluster(tree, count, "maxclust").astype(np.int32) - 1
        held = np.bincount(cut, sizes)
        order = np.argsort(-held, kind="stable")[:k]  # where distances are equal, one cut may give more than it says
        large = order[held[order] >= least]
        if len(large) > len(kept) or count == k:
            best, kept = cut, large
        if len(large) >= k:
            break
    return _joined(best, kept, drawn, sizes, metric)[member]


def nearest(points: Float32, count: int, metric: str) -> npt.NDArray[np.intp]:
    """The `count` nearest other points of each of `points` [n, d], in no order: [n, count]. Among equals, any."""
    found = np.empty((len(points), count), np.intp)
    offset = 0 if metric == COSINE else np.einsum("nd,nd->n", points, points) / np.float32(2)
    for start in range(0, len(points), ROWS):
        rows = slice(start, min(start + ROWS, len(points)))
        scores = points[rows] @ points.T - offset  # [rows, n], greater is nearer
        scores[np.arange(len(scores)), np.arange(rows.start, rows.stop)] = -np.inf
        found[rows] = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return found


def small_groups(points: Float32, count: int, rng: np.random.Generator, metric: str) -> tuple[Float32, Labels]:
    """Means of at most `count` small groups [m, d], and the group of each of `points` [N, d], int32 [N]."""
    distinct, member = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) <= count:
        return distinct, member.astype(np.int32)
    first = distinct[np.sort(rng.choice(len(distinct), count, replace=False))]
    found = kmeans.lloyd(points, first, metric=metric, max_iterations=GROUPING_ROUNDS)
    return found.centroids, found.labels


def _drawn(groups: Float32, count: int, metric: str) -> Float32:
    """Each of the groups [m, d] as the mean of itself and its `count` nearest."""
    if count < 1:
        return groups
    total: Float32 = groups + groups[nearest(groups, count, metric)].sum(axis=1)
    return normalise_rows(total) if metric == COSINE else total / np.float32(count + 1)


def _joined(
    cut: Labels, kept: npt.NDArray[np.intp], groups: Float32, sizes: npt.NDArray[np.int64], metric: str
) -> Labels:
    """Labels [m] of the groups from 0: what is in no cluster `kept` joins the one whose mean is nearest."""
    place = np.full(int(cut.max()) + 1, -1, np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    labels = place[cut]
    inside = labels >= 0
    if not inside.all():
        means = np.zeros((len(kept), groups.shape[1]))
        np.add.at(means, labels[inside], groups[inside] * sizes[inside, None])
        means /= np.bincount(labels[inside], sizes[inside])[:, None]
        centres = means.astype(np.float32)
        if metric == COSINE:
            centres = normalise_rows(centres)
        labels[~inside] = kmeans.assign(groups[~inside], centres, metric=metric)[0]
    return labels
