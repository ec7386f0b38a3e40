"""Agreement of a clustering with labels. Pure functions of two sequences of equal length, labels first.

Labels and clusters are any values that sort; only which images share one matters. Degenerate cases: no images is an
error everywhere; one cluster for all has NMI, AMI and ARI 0 (1 if there is but one label), and the share of the largest
class as purity and ACC; a cluster for each image has purity 1, ARI 0, and number of classes / n as ACC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

Values = Sequence[Any] | npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

PURITY_AT = (1, 5, 10, 20, 50)
BLOCK_ROWS = 65_536  # neighbour rows looked at together


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images of each class each cluster holds: `counts` [clusters, classes], both in sorted order."""

    counts: Counts
    clusters: tuple[Any, ...]
    classes: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster: how many labelled images, the label most of them have (the first in order on a tie), its share."""

    cluster: Any
    size: int
    majority: Any
    accuracy: float


def confusion(labels: Values, clusters: Values) -> Confusion:
    """Count images by cluster and class.

    Raises:
        ValueError: no images, or sequences of different lengths.
    """
    class_of, cluster_of = _codes(labels, clusters)
    classes, names = np.unique(np.asarray(labels)), np.unique(np.asarray(clusters))
    flat = np.bincount(cluster_of * len(classes) + class_of, minlength=len(names) * len(classes))
    return Confusion(flat.reshape(len(names), len(classes)), tuple(names.tolist()), tuple(classes.tolist()))


def _codes(labels: Values, clusters: Values) -> tuple[Counts, Counts]:
    """Both as numbers from 0 in sorted order, once they are known to be of use."""
    if len(labels) != len(clusters):
        raise ValueError(
            "The 'labels' and 'clusters' parameters must be of equal length. "
            f"Got {len(labels)} and {len(clusters)} instead."
        )
    if not len(labels):
        raise ValueError("The 'labels' parameter must hold at least one label. Got none instead.")
    return np.unique(np.asarray(labels), return_inverse=True)[1], np.unique(np.asarray(clusters), return_inverse=True)[
        1
    ]


def matching(table: Confusion) -> dict[Any, Any]:
    """The one-to-one match of clusters to classes that most images agree with (Kuhn 1955, the Hungarian method).

    With more clusters than classes, some clusters have no class, and the other way round.
    """
    rows, columns = linear_sum_assignment(table.counts, maximize=True)
    return {table.clusters[row]: table.classes[column] for row, column in zip(rows, columns, strict=True)}


def clustering_accuracy(labels: Values, clusters: Values) -> float:
    """ACC, 0 to 1: the share of images whose cluster is matched to their class (Xie et al. 2016, eq. 10)."""
    table = confusion(labels, clusters)
    rows, columns = linear_sum_assignment(table.counts, maximize=True)
    return float(table.counts[rows, columns].sum() / table.counts.sum())


def top_accuracy(labels: Values, ranked: npt.NDArray[np.integer]) -> float:
    """Top-k ACC, 0 to 1: the share of images whose class is matched to one of their k likeliest clusters.

    The match is that of ACC, by the likeliest cluster alone (SCAN's top-5 on ImageNet; Van Gansbeke et al. 2020).

    Args:
        ranked: [N, k] clusters of each image, likeliest first; -1, which is no cluster, where there are fewer than k.
    """
    table = confusion(labels, ranked[:, 0])
    number_of = {name: number for number, name in enumerate(table.classes)}
    class_of = {cluster: number_of[name] for cluster, name in matching(table).items()}
    names, place = np.unique(ranked, return_inverse=True)
    classes = np.array([class_of.get(name, -1) for name in names.tolist()])[place.reshape(ranked.shape)]  # [N, k]
    own, _ = _codes(labels, ranked[:, 0])
    return float((classes == own[:, None]).any(axis=1).mean())


def purity(labels: Values, clusters: Values) -> float:
    """The share of images in their cluster's majority class (Manning et al. 2008, section 16.3); never below ACC."""
    table = confusion(labels, clusters)
    return float(table.counts.max(axis=1).sum() / table.counts.sum())


def nmi(labels: Values, clusters: Values) -> float:
    """Normalised mutual information, 0 to 1: I(labels; clusters) over the arithmetic mean of the two entropies."""
    value = normalized_mutual_info_score(*_codes(labels, clusters), average_method="arithmetic")
    return float(np.clip(value, 0, 1))  # rounding may leave the range by an ulp


def ami(labels: Values, clusters: Values) -> float:
    """Mutual information adjusted for chance, at most 1, about 0 for random clusters (Vinh et al. 2010), arithmetic."""
    return float(adjusted_mutual_info_score(*_codes(labels, clusters), average_method="arithmetic"))


def ari(labels: Values, clusters: Values) -> float:
    """Rand index adjusted for chance, -0.5 to 1, about 0 for random clusters (Hubert and Arabie 1985)."""
    return float(adjusted_rand_score(*_codes(labels, clusters)))


def cluster_table(labels: Values, clusters: Values) -> list[ClusterRow]:
    """Every cluster's size, majority label and accuracy, in the clusters' order."""
    table = confusion(labels, clusters)
    sizes = table.counts.sum(axis=1)
    best = table.counts.argmax(axis=1)
    return [
        ClusterRow(name, int(size), table.classes[column], float(counts[column] / size))
        for name, counts, size, column in zip(table.clusters, table.counts, sizes, best, strict=True)
    ]


def neighbour_purity(
    classes: npt.NDArray[np.integer], neighbours: npt.NDArray[np.integer], at: Sequence[int] = PURITY_AT
) -> dict[int, float]:
    """The mean share of an image's k nearest neighbours with its label, for each k, as SCAN reports it (2020).

    Args:
        classes: [N] class number of each image; -1 for one without label, neither an anchor nor a neighbour then.
        neighbours: [N, K] ids of the nearest images, nearest first, -1 where there is none.
        at: the k to look at; those above K are left out of the result.

    Returns:
        Purity, 0 to 1, for every k for which some labelled image has a labelled neighbour.
    """
    depths = [k for k in at if k <= neighbours.shape[1]]
    shares = dict.fromkeys(depths, 0.0)
    anchors = dict.fromkeys(depths, 0)
    labelled = np.flatnonzero(classes >= 0)
    for start in range(0, len(labelled), BLOCK_ROWS):
        rows = labelled[start : start + BLOCK_ROWS]
        near = np.asarray(neighbours[rows])
        theirs = np.where(near >= 0, classes[near], -1)  # [rows, K]; -1 indexes the last image, and is masked here
        known = theirs >= 0
        same = known & (theirs == classes[rows, None])
        for k in depths:
            counted = known[:, :k].sum(axis=1)
            has_any = counted > 0
            shares[k] += float((same[:, :k].sum(axis=1)[has_any] / counted[has_any]).sum())
            anchors[k] += int(has_any.sum())
    return {k: shares[k] / anchors[k] for k in depths if anchors[k]}
