"""Adam on a cosine schedule, to the bit what `torch.optim` computes, without importing it.

The first optimiser of `torch.optim` imports torch's compiler, and sympy with it: more than training heads on a
thousand images takes, and a quarter of a gigabyte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

MOMENTUM: Final = 0.9  # β₁
SQUARES: Final = 0.999  # β₂
EPSILON: Final = 1e-8


class Adam:
    """Kingma and Ba, Adam (2015), algorithm 1, with a rate that falls from `rate` to 0 in `steps` (Loshchilov and
    Hutter, SGDR, 2017, equation 5, without restarts)."""

    def __init__(self, parameters: Sequence[Tensor], rate: float, steps: int) -> None:
        self._parameters = list(parameters)
        self._means = [parameter.detach().new_zeros(parameter.shape) for parameter in self._parameters]
        self._squares = [parameter.detach().new_zeros(parameter.shape) for parameter in self._parameters]
        self._rate, self._steps, self._done = rate, steps, 0

    def step(self, loss: Tensor) -> None:
        """Move the parameters against the gradient of `loss`."""
        import torch  # noqa: PLC0415  (k-means does not need it)

        gradients = torch.autograd.grad(loss, self._parameters)
        self._done += 1
        length = self._rate / (1 - MOMENTUM**self._done)
        correction = (1 - SQUARES**self._done) ** 0.5
        with torch.no_grad():
            for parameter, gradient, mean, square in zip(
                self._parameters, gradients, self._means, self._squares, strict=True
            ):
                mean.lerp_(gradient, 1 - MOMENTUM)
                square.mul_(SQUARES).addcmul_(gradient, gradient, value=1 - SQUARES)
                parameter.addcdiv_(mean, (square.sqrt() / correction).add_(EPSILON), value=-length)
        turn = math.pi / self._steps
        self._rate *= (1 + math.cos(turn * self._done)) / (1 + math.cos(turn * (self._done - 1)))
