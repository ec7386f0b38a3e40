"""What clusters on neighbour pairs are trained for: losses of soft assignments, one for each head.

All take the probabilities `first` and `second` [n, heads, k] of n images and of one neighbour of each, and give a
loss [heads] to make small. Heads never touch each other: the sum of the losses trains all of them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

TINY: Final = 1e-9
ENTROPY_WEIGHT: Final = 5.0  # λ of SCAN
SHARPNESS: Final = 0.6  # β of TEMI
MIXED: Final = 0.6  # α of I-Con


def mutual_information(first: Tensor, second: Tensor) -> Tensor:
    """−I(c; c′), the information that the cluster of one image gives on that of its neighbour, in nats.

    With P = Σ p(first)·p(second)ᵀ / n made symmetric: −Σ P·log(P / (P_row·P_column)) (Ji et al., Invariant Information
    Clustering, 2019, equation 3). It needs no weight for balance: clusters of one size carry the most information, but
    only where neighbours agree on them. From −log k to 0.
    """
    import torch  # noqa: PLC0415

    joint = torch.einsum("nhc,nhd->hcd", first, second) / len(first)
    joint = (joint + joint.transpose(1, 2)) / 2
    marginal = joint.sum(dim=1)  # [heads, k]
    chance = marginal[:, :, None] * marginal[:, None, :]
    return -(joint * (joint.clamp_min(TINY).log() - chance.clamp_min(TINY).log())).sum(dim=(1, 2))


def scan(first: Tensor, second: Tensor) -> Tensor:
    """−mean log⟨p, p′⟩ − λ·H(mean p), λ = 5 (Van Gansbeke et al., SCAN, 2020, equation 2)."""
    mean = first.mean(dim=0)
    entropy = -(mean * mean.clamp_min(TINY).log()).sum(dim=1)
    consistency = -(first * second).sum(dim=2).clamp_min(TINY).log().mean(dim=0)
    return consistency - ENTROPY_WEIGHT * entropy


def temi(first: Tensor, second: Tensor) -> Tensor:
    """−u·log Σ_c (s_c·t_c)^β / π_c, β = 0.6, symmetrised (Adaloglou et al., TEMI, 2023, equations 6 to 8).

    The teacher t is the head itself, held fixed for the step, and π the mean of its assignments; u weighs each pair by
    how much the heads agree on it.
    """
    fixed_first, fixed_second = first.detach(), second.detach()
    prior = (fixed_first + fixed_second).mean(dim=0) / 2  # [heads, k]
    weight = (fixed_first * fixed_second).sum(dim=2).mean(dim=1, keepdim=True)  # [n, 1]
    there = ((first * fixed_second).clamp_min(TINY) ** SHARPNESS / prior.clamp_min(TINY)).sum(dim=2).log()
    back = ((second * fixed_first).clamp_min(TINY) ** SHARPNESS / prior.clamp_min(TINY)).sum(dim=2).log()
    return -(weight * (there + back) / 2).mean(dim=0)


def icon(first: Tensor, second: Tensor) -> Tensor:
    """−mean log((1 − α)·n·q + α), q = Σ_c p_c·p′_c / size_c, α = 0.6 (Alshammari et al., I-Con, 2025, section 4.2).

    q is the chance of reaching the neighbour by a step to any image of one's own cluster; mixed with an even one, as
    the paper's debiasing does, so that pairs that are no true neighbours cost little.
    """
    share = ((first + second) / 2).mean(dim=0).clamp_min(TINY)  # size_c / n, [heads, k]
    reached = (first * second / share).sum(dim=2)
    return -((1 - MIXED) * reached + MIXED).log().mean(dim=0)


OBJECTIVES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "mutual_information": mutual_information,
    "scan": scan,
    "temi": temi,
    "icon": icon,
}
