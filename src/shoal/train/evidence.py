"""How good clusters are, told without labels: by images that were put aside and the neighbours they have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.train import draws, losses
from shoal.train.features import mine
from shoal.train.losses import ScanLoss


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
        clusters = logits.shape[1]
        label = logits.argmax(dim=1)
        pairs = label[:, None] * clusters + label[self.neighbours]  # [m, k]
        joint = torch.bincount(pairs.flatten(), minlength=clusters**2).double().view(clusters, clusters)
        joint = (joint + joint.T) / (2 * joint.sum())
        apart = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
        information = torch.special.xlogy(joint, joint).sum() - torch.special.xlogy(joint, apart).sum()
        return float(information / torch.log(torch.tensor(float(clusters))))


def split(features: Tensor, part: float, k: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor, HeldOut]:
    """Put a part of the images aside.

    Args:
        features: float32 [n, d], by which neighbours are found, apart in each of the two sets.

    Returns:
        Positions of the images to train on [t]; for each its neighbours as positions among all images [t, k]; and the
        images put aside.
    """
    count = len(features)
    order = torch.randperm(count, generator=draws.generator("cpu", seed, "held out"))
    aside = order[: min(count - 2, max(2, round(part * count)))].sort().values
    kept = order[len(aside) :].sort().values
    held_out = HeldOut(aside, mine(features[aside], k, device))
    return kept, kept[mine(features[kept], k, device)], held_out
