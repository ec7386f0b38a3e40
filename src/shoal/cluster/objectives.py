"""What heads are trained for, on images and one neighbour of each.

The losses take probabilities [n, heads, k] and give one value a head, to make small: the sum of the losses trains all
heads side by side. An objective holds what a loss needs from one step to the next: a teacher, a probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from torch import Tensor

TINY: Final = 1e-9
ENTROPY_WEIGHT: Final = 5.0  # λ of SCAN
SHARPNESS: Final = 0.6  # β of TEMI
TEACHER_MOMENTUM: Final = 0.996
PRIOR_MOMENTUM: Final = 0.9
BALANCE_WEIGHT: Final = 10.0  # γ of TURTLE
PROBE_STEPS: Final = 10
PROBE_RATE: Final = 1e-3
MIXED: Final = 0.6  # α of I-Con


def mutual_information(first: Tensor, second: Tensor) -> Tensor:
    """−I(c; c′), the information that the cluster of one image gives on that of its neighbour, in nats.

    With P = Σ p(first)·p(second)ᵀ / n made symmetric: −Σ P·log(P / (P_row·P_column)) (Ji et al., Invariant Information
    Clustering, 2019, equation 3). It needs no weight for balance: clusters of one size carry the most information, but
    only where neighbours agree on them. From −log k to 0.
    """
    import torch  # noqa: PLC0415

    joint = torch.einsum("nhc,nhd->hcd", first, second) / len(first)
    joint = (joint + joint.transpose(1, 2)) / 2
    marginal = joint.sum(dim=1)  # [heads, k]
    chance = marginal[:, :, None] * marginal[:, None, :]
    return -(joint * (joint.clamp_min(TINY).log() - chance.clamp_min(TINY).log())).sum(dim=(1, 2))


def scan(first: Tensor, second: Tensor) -> Tensor:
    """−mean log⟨p, p′⟩ − λ·H(mean p), λ = 5 (Van Gansbeke et al., SCAN, 2020, equation 2)."""
    mean = first.mean(dim=0)
    entropy = -(mean * mean.clamp_min(TINY).log()).sum(dim=1)
    consistency = -(first * second).sum(dim=2).clamp_min(TINY).log().mean(dim=0)
    return consistency - ENTROPY_WEIGHT * entropy


def temi(first: Tensor, second: Tensor, teacher_first: Tensor, teacher_second: Tensor, prior: Tensor) -> Tensor:
    """−u·log Σ_c (s_c(v)·t_c(w))^β / π_c, β = 0.6, symmetrised (Adaloglou et al., TEMI, 2023, equations 6 to 8).

    s is the student and t the teacher, which gets no gradient; π [heads, k] is the teacher's mean. u weighs each pair
    by how much the teachers of all heads agree on it.
    """
    weight = (teacher_first * teacher_second).sum(dim=2).mean(dim=1, keepdim=True)  # [n, 1]
    return -(weight * (_reached(first, teacher_second, prior) + _reached(second, teacher_first, prior)) / 2).mean(dim=0)


def _reached(student: Tensor, teacher: Tensor, prior: Tensor) -> Tensor:
    together: Tensor = (student * teacher).clamp_min(TINY) ** SHARPNESS / prior.clamp_min(TINY)
    return together.sum(dim=2).log()  # [n, heads]


def icon(first: Tensor, second: Tensor) -> Tensor:
    """−mean log((1 − α)·n·q + α), q = Σ_c p_c·p′_c / size_c, α = 0.6 (Alshammari et al., I-Con, 2025, section 4.2).

    q is the chance of reaching the neighbour by a step to any image of one's own cluster; mixed with an even one, as
    the paper's debiasing does, so that pairs that are no true neighbours cost little.
    """
    share = ((first + second) / 2).mean(dim=0).clamp_min(TINY)  # size_c / n, [heads, k]
    reached = (first * second / share).sum(dim=2)
    return -((1 - MIXED) * reached + MIXED).log().mean(dim=0)


def turtle(labelling: Tensor, probe: Tensor) -> Tensor:
    """Cross-entropy of a probe's predictions to the labelling, − γ·H(mean labelling), γ = 10.

    The outer objective of Gadetsky et al., Let go of your labels with unsupervised transfer (TURTLE), 2024, equation 6:
    the labelling to look for is one that a linear probe predicts, but not one of a single cluster.
    """
    mean = labelling.mean(dim=0)
    entropy = -(mean * mean.clamp_min(TINY).log()).sum(dim=1)
    return -(labelling * probe.clamp_min(TINY).log()).sum(dim=2).mean(dim=0) - BALANCE_WEIGHT * entropy


@dataclass(slots=True, eq=False)
class LinearHeads:
    """Linear heads on rows [n, d], all in the same matrix product: weights [d, heads · k] and bias [heads · k]."""

    weights: Tensor
    bias: Tensor
    heads: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Logits [n, heads, k]."""
        return (rows @ self.weights + self.bias).view(len(rows), self.heads, -1)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.weights, self.bias]

    def copy(self) -> LinearHeads:
        """The same values, with a life of their own."""
        return LinearHeads(self.weights.detach().clone(), self.bias.detach().clone(), self.heads)


class Objective(Protocol):
    """Made anew for a training, from the heads as they are then."""

    def loss(self, anchors: Tensor, partners: Tensor) -> Tensor:
        """[heads], of rows [n, d] and of one neighbour of each [n, d]."""
        ...

    def before_step(self, anchors: Tensor) -> None:
        """Follow the heads, before the loss of `anchors` is taken to train them."""
        ...


class Pairwise:
    """A loss of two images' probabilities and nothing else."""

    def __init__(self, of: Callable[[Tensor, Tensor], Tensor], heads: LinearHeads) -> None:
        self._of, self._heads = of, heads

    def loss(self, anchors: Tensor, partners: Tensor) -> Tensor:
        return self._of(self._heads(anchors).softmax(2), self._heads(partners).softmax(2))

    def before_step(self, anchors: Tensor) -> None:
        pass


class Temi:
    """`temi` with a teacher that is the moving average of the heads, and π that of the teacher's mean.

    The paper's temperature of 0.1 belongs to logits from −1 to 1 (weights and inputs of unit length). Here logits are
    as long as training makes them, beginning with those of the clusters that the heads have learned first.
    """

    def __init__(self, heads: LinearHeads) -> None:
        self._heads, self._teacher = heads, heads.copy()
        self._prior: Tensor | None = None

    def loss(self, anchors: Tensor, partners: Tensor) -> Tensor:
        first, second = (self._teacher(rows).softmax(2) for rows in (anchors, partners))
        prior = first.mean(dim=0) if self._prior is None else self._prior
        return temi(self._heads(anchors).softmax(2), self._heads(partners).softmax(2), first, second, prior)

    def before_step(self, anchors: Tensor) -> None:
        for kept, new in zip(self._teacher.parameters, self._heads.parameters, strict=True):
            kept.lerp_(new.detach(), 1 - TEACHER_MOMENTUM)
        mean = self._teacher(anchors).softmax(2).mean(dim=0)
        self._prior = mean if self._prior is None else self._prior.lerp(mean, 1 - PRIOR_MOMENTUM)


class Turtle:
    """`turtle` with probes that go on learning, ten steps of Adam before each of the labelling's ("warm start").

    The gradient goes through the labelling alone, not through how the probe came to be (the paper's first-order
    approximation). Neighbours are not used.
    """

    def __init__(self, heads: LinearHeads) -> None:
        import torch  # noqa: PLC0415

        self._heads, self._probe = heads, heads.copy()
        for parameter in self._probe.parameters:
            parameter.requires_grad_()
        self._optimiser = torch.optim.Adam(self._probe.parameters, lr=PROBE_RATE)

    def loss(self, anchors: Tensor, partners: Tensor) -> Tensor:
        return turtle(self._heads(anchors).softmax(2), self._probe(anchors).softmax(2).detach())

    def before_step(self, anchors: Tensor) -> None:
        labelling = self._heads(anchors).softmax(2).detach()
        for _ in range(PROBE_STEPS):
            error = -(labelling * self._probe(anchors).log_softmax(2)).sum() / len(anchors)
            self._optimiser.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()


OBJECTIVES: Final[dict[str, Callable[[LinearHeads], Objective]]] = {
    "mutual_information": lambda heads: Pairwise(mutual_information, heads),
    "scan": lambda heads: Pairwise(scan, heads),
    "icon": lambda heads: Pairwise(icon, heads),
    "temi": Temi,
    "turtle": Turtle,
}
