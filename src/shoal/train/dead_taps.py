"""A guard against gradients of convolutions that were never computed.

Where an image is so small that some taps of a kernel only ever meet the padding, oneDNN's bfloat16 weight gradient of
strided convolutions leaves those taps as whatever was in memory (seen with torch 2.15 on CPUs: 1×1 images, 3×3
kernels, stride 2). Their gradient is zero, so it is set to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def guard(network: nn.Module) -> None:
    """Make the gradients of all 2-d convolutions in `network` zero where no pixel was met."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad and max(module.kernel_size) > 1:
            seen: list[tuple[int, int]] = []
            module.register_forward_pre_hook(_remember(seen))
            module.weight.register_hook(_without_dead_taps(module, seen))  # type: ignore[no-untyped-call]


def alive(size: int, kernel: int, stride: int, padding: int, dilation: int) -> list[bool]:
    """For each tap of a kernel along one side: does it meet a pixel anywhere in an image of `size` pixels?"""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return [any(0 <= at * stride - padding + tap * dilation < size for at in range(outputs)) for tap in range(kernel)]


def _remember(seen: list[tuple[int, int]]) -> Callable[[nn.Module, Any], None]:
    def remember(module: nn.Module, inputs: Any) -> None:
        seen[:] = [(int(inputs[0].shape[2]), int(inputs[0].shape[3]))]

    return remember


def _without_dead_taps(module: nn.Conv2d, seen: list[tuple[int, int]]) -> Callable[[Tensor], Tensor]:
    def mend(gradient: Tensor) -> Tensor:
        if not seen or isinstance(module.padding, str):
            return gradient
        taps = [
            torch.tensor(alive(*numbers), device=gradient.device)
            for numbers in zip(seen[0], module.kernel_size, module.stride, module.padding, module.dilation, strict=True)
        ]
        met = taps[0][:, None] & taps[1][None, :]
        return gradient if bool(met.all()) else torch.where(met, gradient, 0)

    return mend
