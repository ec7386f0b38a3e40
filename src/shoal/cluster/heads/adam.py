"""Adam for arrays: heads on frozen features need no more than numpy, whose import takes a twentieth of torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from shoal.embeddings import Float32

MOMENTUM: Final = 0.9  # β₁
SQUARES: Final = 0.999  # β₂
EPSILON: Final = np.float32(1e-8)


class Adam:
    """Kingma and Ba, Adam (2015), algorithm 1, at `rate`; with `steps`, one that falls to 0 in so many along a cosine
    (Loshchilov and Hutter, SGDR, 2017, equation 5, without restarts)."""

    def __init__(self, parameters: Sequence[Float32], rate: float, steps: int | None = None) -> None:
        self._parameters = list(parameters)
        self._means = [np.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [np.zeros_like(parameter) for parameter in self._parameters]
        self._rate, self._steps, self._done = rate, steps, 0

    def step(self, gradients: Sequence[Float32]) -> None:
        """Move the parameters, in place, against their gradients."""
        rate = self._rate
        if self._steps is not None:
            rate *= (1 + math.cos(math.pi * self._done / self._steps)) / 2
        self._done += 1
        length = np.float32(rate / (1 - MOMENTUM**self._done))
        correction = np.float32((1 - SQUARES**self._done) ** 0.5)
        for parameter, gradient, mean, square in zip(
            self._parameters, gradients, self._means, self._squares, strict=True
        ):
            mean[...] += np.float32(1 - MOMENTUM) * (gradient - mean)
            square[...] += np.float32(1 - SQUARES) * (gradient * gradient - square)
            parameter[...] -= length * mean / (np.sqrt(square) / correction + EPSILON)
