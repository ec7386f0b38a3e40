"""How good clusters are, told without labels: by images that were put aside and the neighbours they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoal.cluster import kmeans
from shoal.train import draws, losses
from shoal.train.features import mine, standardised
from shoal.train.losses import ScanLoss

SOME_IMAGES = 10_000  # whose neighbours tell which of two encoders, or of two clusterings, is better


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images of the training put aside: `positions` [m] among all, and for each its neighbours among them, [m, k]."""

    positions: Tensor
    neighbours: Tensor

    def loss(self, logits: Tensor, entropy_weight: float) -> ScanLoss:
        """SCAN's loss of logits [H, m, K] over all pairs of an image and a neighbour."""
        k = self.neighbours.shape[1]
        return losses.scan(logits.repeat_interleave(k, dim=1), logits[:, self.neighbours.flatten()], entropy_weight)

    def agreement(self, logits: Tensor) -> float:
        """Mutual information of an image's cluster and its neighbour's, as a part of log K: 0 to 1; logits [m, K].

        It rises when neighbours share clusters and when clusters are many and even; one cluster for all scores 0.
        """
        return agreement(logits.argmax(dim=1), self.neighbours, logits.shape[1])


def agreement(label: Tensor, neighbours: Tensor, clusters: int) -> float:
    """`HeldOut.agreement` of cluster numbers [m]; neighbours [m, k]."""
    if clusters < 2:
        return 0.0
    pairs = label[:, None] * clusters + label[neighbours]  # [m, k]
    joint = torch.bincount(pairs.flatten(), minlength=clusters**2).double().view(clusters, clusters)
    joint = (joint + joint.T) / (2 * joint.sum())
    apart = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    information = torch.special.xlogy(joint, joint).sum() - torch.special.xlogy(joint, apart).sum()
    return float(information / torch.log(torch.tensor(float(clusters))))


def some(count: int, seed: int, most: int = SOME_IMAGES) -> Tensor:
    """Rising positions of the images that comparisons are made by: of all, or of so many as that takes."""
    return torch.randperm(count, generator=draws.generator("cpu", seed, "crosswise"))[:most].sort().values


def crosswise(
    first: Tensor, second: Tensor, clusters: int, k: int, seed: int, device: torch.device
) -> tuple[float, float]:
    """Which of two encoders tells images apart better? Each one's clusters are judged by the other's neighbours.

    Its own neighbours would flatter any encoder: even one that sees nothing but brightness agrees with itself.

    Args:
        first, second: features float32 [n, d] of the same images.

    Returns:
        The agreement (0 to 1) of the first's k-means clusters on the second's neighbours, and of the second's on the
        first's.
    """
    order = some(len(first), seed)
    told, near = [], []
    for features in (first[order], second[order]):
        points = standardised(features)
        rng = np.random.default_rng(draws.number(seed, "crosswise"))
        told.append(torch.from_numpy(kmeans.fit(points, min(clusters, len(points)), rng).labels.astype(np.int64)))
        near.append(mine(features, k, device))
    return agreement(told[0], near[1], clusters), agreement(told[1], near[0], clusters)


def split(
    features: Tensor, chosen: Tensor, part: float, k: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor, HeldOut]:
    """Put a part of the images aside.

    Args:
        features: float32 [n, d], by which neighbours are found, apart in each of the two sets.
        chosen: positions of the images there are to learn from [c]; the rest is in neither set.

    Returns:
        Positions of the images to train on [t]; for each its neighbours as positions among all images [t, k]; and the
        images put aside.
    """
    count = len(chosen)
    order = chosen[torch.randperm(count, generator=draws.generator("cpu", seed, "held out"))]
    aside = order[: min(count - 2, max(2, round(part * count)))].sort().values
    kept = order[len(aside) :].sort().values
    held_out = HeldOut(aside, mine(features[aside], k, device))
    return kept, kept[mine(features[kept], k, device)], held_out
