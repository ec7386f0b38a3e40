"""Tensors on their way from the CPU to the device that computes with them."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The values on `device`; what a GPU is given is on its way when this returns.

    Only from memory that the system leaves where it is can a GPU fetch by itself. From any other the host waits until
    all work that it has given the GPU is done, and the GPU then waits for more.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
