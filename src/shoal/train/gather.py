"""Several processes as one: their tensors joined so that a loss sees the whole batch, with gradients flowing back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


def world_size() -> int:
    """Processes that train together; 1 outside torchrun."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    return distributed.get_rank() if _together() else 0


def gather(values: Tensor) -> Tensor:
    """Rows of all processes, by rank: [n, ...] -> [world · n, ...]. Differentiable; every process must have n rows.

    The gradient of a row is the sum of what the losses of all processes say of it. With gradients then averaged over
    the processes, as DistributedDataParallel does, a loss that is the mean over each one's own rows, or that every
    process computes on all rows, has the gradient of one process with the whole batch.
    """
    return _Gather.apply(values) if world_size() > 1 else values


@torch.no_grad()
def gather_constant(values: Tensor) -> Tensor:
    """As `gather`, without gradients."""
    if world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def share_first(network: nn.Module) -> None:
    """Give every process the first one's weights and statistics."""
    if world_size() > 1:
        for tensor in network.state_dict().values():
            distributed.broadcast(tensor, 0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.rows = len(values)
        return gather_constant(values)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Tensor:
        whole: Tensor = gradients[0].contiguous()
        distributed.all_reduce(whole)
        return whole[rank() * context.rows : (rank() + 1) * context.rows]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
