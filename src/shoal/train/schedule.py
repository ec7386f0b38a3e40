"""Learning rates over time, and the optimisers they drive."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from shoal.train.config import OptimiserConfig, ScheduleConfig
from shoal.train.muon import Muon


def rate_at(step: int, steps_per_epoch: int, epochs: int, config: ScheduleConfig) -> float:
    """The learning rate of an optimiser step, as a part of the recipe's.

    Args:
        step: optimiser steps done before, over all epochs.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if config.kind == "constant":
        return 1.0
    if config.kind == "steps":
        return float(0.1 ** sum(step >= epoch * steps_per_epoch for epoch in config.milestones))
    length = config.steps or max(1, epochs * steps_per_epoch - warmup)
    done = min(1.0, (step - warmup) / length)
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * done))


def optimiser(modules: Iterable[nn.Module], config: OptimiserConfig) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters that are trained."""
    trained = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    fused = all(weight.is_cuda for weight in trained) or None  # all weights in one pass; None leaves it to torch
    match config.name:
        case "sgd":
            return torch.optim.SGD(
                trained,
                lr=config.rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                nesterov=config.nesterov,
                fused=fused,
            )
        case "muon":
            return Muon(trained, config.rate, weight_decay=config.weight_decay, momentum=config.momentum)
        case "adam":
            return torch.optim.Adam(trained, lr=config.rate, weight_decay=config.weight_decay, fused=fused)
        case _:
            return torch.optim.AdamW(trained, lr=config.rate, weight_decay=config.weight_decay, fused=fused)
