"""Averaged weights that live beside the trained ones and never overwrite them."""

from __future__ import annotations

import copy

import torch
from torch import nn


def shadow(network: nn.Module) -> nn.Module:
    """A copy to average into; it is not trained."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay · average + (1 − decay) · network; what is no parameter (statistics of BatchNorm) is copied."""
    for mean, live in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(live.detach().to(mean.dtype), 1 - decay)
    for kept, now in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(now)
