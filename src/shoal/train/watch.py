"""Is the training still alive? Values that are not finite, features that all became one, clusters that emptied.

It stops with advice rather than spend hours on a loss that cannot fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.errors import CollapseError

LEAST_SPREAD = 0.01  # 1 − ‖mean of unit features‖²: 1 for features all round, 0 for features that are all one
LEAST_CLUSTERS = 1.5  # effective clusters: exp of the entropy of the mean assignment
PATIENCE = 3  # looks in a row that must find the same


@dataclass(frozen=True, slots=True)
class Health:
    """Of two views' unit features (Wang and Isola, 2020): alignment is E‖x − y‖², uniformity log E exp(−2‖x − x'‖²)."""

    spread: float
    alignment: float
    uniformity: float


@torch.no_grad()
def health(first: Tensor, second: Tensor) -> Health:
    """Of features [B, d] of two views of the same images."""
    x, y = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
    alignment = (x - y).square().sum(dim=1).mean()
    squared = _squared_distances(x[:512])
    uniformity = squared.mul(-2).exp().mean().log() if len(squared) else torch.zeros(())
    return Health(float(1 - x.mean(dim=0).square().sum()), float(alignment), float(uniformity))


def _squared_distances(rows: Tensor) -> Tensor:
    """Of all pairs of rows float32 [n, d]: [n · (n − 1) / 2]. By their products, since Apple's GPUs have no pdist."""
    products = rows @ rows.T
    first, second = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
    lengths = products.diagonal()
    return (lengths[first] + lengths[second] - 2 * products[first, second]).clamp_min(0)


def effective_clusters(entropy: float) -> float:
    """How many equally used clusters have this entropy."""
    return math.exp(entropy)


class Watch:
    """Counts bad signs; raises CollapseError when they persist."""

    def __init__(self, phase: str) -> None:
        self._phase = phase
        self._flat = 0
        self._empty = 0

    def finite(self, value: float, epoch: int, step: int) -> None:
        """The loss, or the norm of its gradient."""
        if not math.isfinite(value):
            raise CollapseError(
                f"{self._phase} gave a value that is not finite in epoch {epoch}, step {step}; lower "
                f"{self._phase}.optimiser.rate, or set {self._phase}.loop.clip=1 or {self._phase}.loop.precision=fp32"
            )

    def features(self, spread: float, epoch: int) -> None:
        self._flat = self._flat + 1 if spread < LEAST_SPREAD else 0
        if self._flat >= PATIENCE:
            raise CollapseError(
                f"{self._phase} collapsed in epoch {epoch}: the features of all images are the same "
                f"(spread {spread:.4f}, expected at least {LEAST_SPREAD}); lower {self._phase}.optimiser.rate, raise "
                f"{self._phase}.temperature, or check that the views do not hide what the images show (--show-views)"
            )

    def clusters(self, entropy: float, clusters: float, epoch: int, advice: str = "raise scan.entropy_weight") -> None:
        """`entropy` of the mean assignment to so many `clusters`, effectively; `advice` is what to try first."""
        effective = effective_clusters(entropy)
        self._empty = self._empty + 1 if clusters >= 2 and effective < min(LEAST_CLUSTERS, 0.75 * clusters) else 0
        if self._empty >= PATIENCE:
            raise CollapseError(
                f"{self._phase} collapsed in epoch {epoch}: nearly all images are in one of {clusters:.3g} clusters "
                f"(effective number {effective:.2f}); {advice}, lower "
                f"{self._phase}.optimiser.rate, or train the pretext task for longer"
            )
