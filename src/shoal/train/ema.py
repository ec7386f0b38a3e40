"""The exponential moving average of a network's weights: a network of its own, never written into the live one."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average(nn.Module):
    """average <- d · average + (1 − d) · network after each step, statistics of BatchNorm too; integers are copied.

    d is min(decay, (1 + t) / (10 + t)) after t steps, so that a short training's average is not where it began.
    """

    updates: torch.Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.updates += 1
        steps = int(self.updates)
        decay = min(self.decay, (1 + steps) / (10 + steps))
        live = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(live[name].to(mean.dtype), 1 - decay)
            else:
                mean.copy_(live[name])
