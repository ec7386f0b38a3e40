"""The losses. They take and give tensors, know nothing of trainers, and see the whole batch under torch.distributed.

All compute in float32, whatever autocast made of their inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.train.gather import gather, gather_constant, rank, world_size

# -- pretext tasks ---------------------------------------------------------------------------------------------------


def nt_xent(first: Tensor, second: Tensor, temperature: float, *, decoupled: bool = False) -> Tensor:
    """SimCLR's loss (Chen et al., 2020, equation 1): each view against all other views, its twin the positive.

    A view's similarity to itself is in neither the logits nor the targets. With several processes, the negatives are
    the views of all of them, and the mean is over this process's own.

    Args:
        first, second: projections of two views of the same images, [B, d]; need not have length 1.
        decoupled: leave the positive out of the denominator too (Yeh et al., 2022, equation 6): with small batches its
            gradient does not fade as soon as a twin is found, and fewer epochs do.
    """
    own_first, own_second = _unit(first), _unit(second)
    batch = len(own_first)
    all_first, all_second = gather(own_first), gather(own_second)
    everything = torch.cat([all_first, all_second])  # [2 · W · B, d]
    logits = torch.cat([own_first, own_second]) @ everything.T / temperature  # [2 · B, 2 · W · B]
    here = torch.arange(batch, device=first.device) + rank() * batch
    there = here + len(all_first)
    itself, twin = torch.cat([here, there]), torch.cat([there, here])
    logits = logits.scatter(1, itself[:, None], -math.inf)
    if not decoupled:
        return F.cross_entropy(logits, twin)
    positives = logits.gather(1, twin[:, None])[:, 0]
    negatives = logits.scatter(1, twin[:, None], -math.inf)
    return (negatives.logsumexp(dim=1) - positives).mean()


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo's loss (He et al., 2020, equation 1): each query against its own key and the queue.

    Args:
        queries, keys: [B, d]; keys carry no gradient.
        queue: [Q, d] of keys of earlier batches, of length 1.
    """
    queries, keys = _unit(queries), _unit(keys).detach()
    positive = torch.einsum("bd,bd->b", queries, keys)[:, None]
    logits = torch.cat([positive, queries @ queue.float().T], dim=1) / temperature  # [B, 1 + Q]
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def rotation(logits: Tensor, turns: Tensor) -> Tensor:
    """RotNet's loss (Gidaris et al., 2018): which of 0, 90, 180, 270° was the image turned by? logits [B, 4]."""
    return F.cross_entropy(logits.float(), turns)


def keras_contrastive(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The pretext loss of the Keras example as it was printed, faults and all; kept for comparison only.

    Features are not normalised, each row's similarity to itself counts as a positive, and the maxima of rows are
    subtracted from columns. `nt_xent` is what was meant.
    """
    features = torch.cat([first, second]).float()
    logits = features @ features.T / temperature
    logits = logits - logits.amax(dim=1)  # [n] against [n, n]: along the wrong axis
    targets = torch.eye(len(first), device=first.device).tile(2, 2)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


# -- clusters --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScanLoss:
    """For each of H heads: what is minimised, and its two parts, [H]."""

    total: Tensor
    consistency: Tensor
    entropy: Tensor  # of the mean assignment, 0 to log K


def scan(anchors: Tensor, neighbours: Tensor, entropy_weight: float) -> ScanLoss:
    """SCAN's loss (Van Gansbeke et al., 2020, equation 2), for all heads at once.

    −mean log⟨p(anchor), p(neighbour)⟩ − λ · H(mean p(anchor)).

    Args:
        anchors, neighbours: logits [H, B, K].
        entropy_weight: λ.
    """
    log_anchors = gather(anchors.float().log_softmax(dim=2).transpose(0, 1)).transpose(0, 1)
    log_neighbours = gather(neighbours.float().log_softmax(dim=2).transpose(0, 1)).transpose(0, 1)
    consistency = -torch.logsumexp(log_anchors + log_neighbours, dim=2).mean(dim=1)  # log of the inner product
    mean = log_anchors.exp().mean(dim=1)  # [H, K]
    entropy = -torch.special.xlogy(mean, mean).sum(dim=1)
    return ScanLoss(consistency - entropy_weight * entropy, consistency, entropy)


def keras_clustering(anchors: Tensor, neighbours: Tensor) -> ScanLoss:
    """The clustering loss of the Keras example as its printed run applied it; kept for comparison only.

    The inner product of probabilities is taken for a logit, so that the loss cannot fall below softplus(−1) = 0.3133,
    and the entropy is not applied, so that putting all images into one cluster is a minimum. `scan` is what was meant.
    """
    p, q = anchors.float().softmax(dim=2), neighbours.float().softmax(dim=2)
    consistency = F.softplus(-torch.einsum("hbk,hbk->hb", p, q)).mean(dim=1)
    mean = p.mean(dim=1)
    return ScanLoss(consistency, consistency, -torch.special.xlogy(mean, mean).sum(dim=1))


@dataclass(frozen=True, slots=True)
class SelfLabelLoss:
    """The loss, and which images of this process were confident enough, bool [B]. No such image: a loss of 0."""

    total: Tensor
    confident: Tensor


def self_label(
    weak: Tensor, strong: Tensor, *, threshold: float, quota: float = 0.0, weigh_classes: bool = True
) -> SelfLabelLoss:
    """Cross-entropy of strong views against what the weak views of confident images say (SCAN, section 2.3).

    Args:
        weak, strong: logits [B, K] of views of the same images; no gradient flows through `weak`.
        threshold: an image is confident if its largest probability is above it ...
        quota: ... or, if this is above 0, if it is among the `quota` · B / K surest of the images (of all processes)
            with the same label, whatever its probability.
        weigh_classes: weigh each label by the inverse of its frequency among the confident.
    """
    probability, label = weak.detach().float().softmax(dim=1).max(dim=1)
    classes = weak.shape[1]
    everyone, labels = gather_constant(probability), gather_constant(label)
    sure = _within_quota(everyone, labels, quota, classes) if quota > 0 else everyone > threshold
    # Neither bincount nor labels[sure]: a GPU would have to be waited for, to know how large they are.
    counts = torch.zeros(classes, device=weak.device).index_add(0, labels, sure.float())
    weights = counts.sum() / counts.clamp_min(1) if weigh_classes else torch.ones_like(counts)
    confident = sure[rank() * len(weak) : (rank() + 1) * len(weak)]
    losses = F.cross_entropy(strong.float(), label, reduction="none") * weights[label] * confident
    # The mean over the confident images of all processes: gradients are averaged over processes, hence their number.
    total = losses.sum() * world_size() / (weights * counts).sum().clamp_min(1e-12)
    return SelfLabelLoss(total, confident)


def _within_quota(probability: Tensor, label: Tensor, quota: float, classes: int) -> Tensor:
    """The surest images of each label, bool [n]: at most ceil(quota · n / classes) of each."""
    most = math.ceil(quota * len(label) / classes)
    surest_first = probability.argsort(descending=True, stable=True)
    by_label_then_surest = surest_first[label[surest_first].argsort(stable=True)]
    counts = torch.zeros(classes, dtype=torch.long, device=label.device).index_add(0, label, torch.ones_like(label))
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(label)
    place[by_label_then_surest] = torch.arange(len(label), device=label.device)
    return place - starts[label] < most


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=1)
