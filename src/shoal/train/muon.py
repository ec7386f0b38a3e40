"""Muon: steps that change a layer equally in all directions, which takes a contrastive task fewer images to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC: Final = (3.4445, -4.7750, 2.0315)  # Jordan et al., 2024: the slope at 0 is steep, for few rounds
ROUNDS: Final = 5
ALIKE: Final = (
    0.2  # root mean square of AdamW's steps, met so that one rate serves both (Liu et al., 2025, section 2.2)
)
TINY: Final = 1e-7


class Muon(Optimizer):
    """Momentum with each matrix made nearly orthogonal (Jordan et al., 2024); other weights are stepped as by AdamW.

    A convolution's weights are taken as a matrix [out, in · height · width]. Weights of several heads in one tensor
    would be turned against each other. timm's Muon does the same in bfloat16, which takes a CPU without it nine times
    as long.

    Args:
        rate: of learning; `lr` of the parameter groups, as everywhere in torch.
        weight_decay: decoupled, as AdamW's.
        betas: of AdamW, for biases and norms.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": rate, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(weights, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. The closure of torch's interface is called first, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                is_matrix = weight.ndim >= 2 and len(weight) > 1  # a class token is none
                move = self._turned if is_matrix else self._adapted
                weight.add_(move(weight, weight.grad, group), alpha=-group["lr"])
        return loss

    def _turned(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if not state:
            state["mean"] = torch.zeros_like(weight)
        mean: Tensor = state["mean"].lerp_(grad, 1 - group["momentum"])
        matrix = mean.flatten(1)
        move: Tensor = orthogonal(matrix) * (ALIKE * max(matrix.shape) ** 0.5)
        return move.reshape(weight.shape)

    def _adapted(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state, (first, second) = self.state[weight], group["betas"]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        state["step"] += 1
        mean, square = state["mean"].lerp_(grad, 1 - first), state["square"].lerp_(grad.square(), 1 - second)
        root = (square / (1 - second ** float(state["step"]))).sqrt_().add_(group["eps"])
        move: Tensor = mean / (1 - first ** float(state["step"])) / root
        return move


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix [m, n] with its singular values brought near 1, from 0.7 to 1.2, by Newton and Schulz' iteration.

    Those below about 1/500 of its norm stay smaller. It works on the Gram matrix of the shorter side, so that the
    longer one is passed over twice, not ten times.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    short = matrix.float() / matrix.float().norm().clamp_min(TINY)
    gram = short @ short.T  # [m, m], of what has been made of the matrix so far
    together = torch.eye(len(gram), device=gram.device)  # what the matrix has been multiplied with so far
    one, three, five = QUINTIC
    for _ in range(ROUNDS):
        turn = three * gram + five * (gram @ gram)
        turn.diagonal().add_(one)
        together = turn @ together
        gram = turn @ gram @ turn
    turned: Tensor = (together @ short).to(matrix.dtype)
    return turned
