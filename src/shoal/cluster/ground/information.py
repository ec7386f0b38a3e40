"""What clusters tell of an image's neighbours, which no label goes into."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Labels, Neighbours
from shoal.cluster.contingency import contingency
from shoal.cluster.sample import some_of
from shoal.embeddings import Ids

HELD_OUT: Final = 10


def held_out(images: int) -> Ids:
    """Positions of the images, one in ten, that are the first of no pair that heads are trained on."""
    return some_of(images, -(-images // HELD_OUT))


def information(labels: Labels, neighbours: Neighbours, k: int) -> float:
    """Mutual information, in nats, of the clusters of held-out images and of their neighbours.

    Args:
        labels: [n], from 0 to k − 1.
        neighbours: [n, m], as positions among the n.
    """
    asked = held_out(len(labels))
    first = np.repeat(labels[asked], neighbours.shape[1])
    other = labels[neighbours[asked]].ravel()
    table = contingency(np.concatenate([first, other]), np.concatenate([other, first]), k)  # symmetric
    joint = table.count / table.count.sum()
    share = np.bincount(table.first, joint, minlength=k)
    return float(np.sum(joint * np.log(joint / (share[table.first] * share[table.second]))))


def entropy(labels: Labels) -> float:
    """Of the clusters' sizes, in nats: the logarithm of their number if all are equal, less otherwise."""
    share = np.bincount(labels) / len(labels)
    share = share[share > 0]
    return float(-np.sum(share * np.log(share)))


def own_shares(labels: Labels, neighbours: Neighbours) -> npt.NDArray[np.float32]:
    """Share of each image's neighbours that are in its cluster, float32 [n]."""
    shares: npt.NDArray[np.float32] = (labels[neighbours] == labels[:, None]).mean(axis=1, dtype=np.float32)
    return shares


def cluster_shares(labels: Labels, neighbours: Neighbours, k: int) -> npt.NDArray[np.float64]:
    """Mean share of neighbours in their own cluster, of the images of each cluster, [k]; 0 of one without images."""
    sizes = np.bincount(labels, minlength=k)
    sums = np.bincount(labels, weights=own_shares(labels, neighbours).astype(np.float64), minlength=k)
    shares: npt.NDArray[np.float64] = sums / np.maximum(sizes, 1)
    return shares


def worst_cluster(labels: Labels, neighbours: Neighbours, k: int) -> float:
    """The least of the clusters' shares.

    Under a half, a cluster's images have most of their neighbours elsewhere: it holds what fitted nowhere.
    """
    return float(cluster_shares(labels, neighbours, k).min())
