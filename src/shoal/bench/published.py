"""Figures that others published for the same data, to stand beside ours; each names where it is from.

Test images, trained on the training images alone unless `trained_on` says otherwise. ACC, NMI and ARI in per cent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCAN: Final = "Van Gansbeke et al. 2020, its repository"
PROPOS: Final = "Huang et al. 2022 with DCBoost"
TEMI: Final = "Adaloglou et al. 2023"
TURTLE: Final = "Gadetsky et al. 2024"
KERAS: Final = "Keras code example, Semantic Image Clustering, its published model"

TRAIN: Final = "train"
TRAIN_AND_TEST: Final = "train+test"


@dataclass(frozen=True, slots=True)
class Published:
    """One figure, or three, of one method on one benchmark; None where it was not given."""

    benchmark: str  # by name
    method: str
    source: str
    acc: float | None
    nmi: float | None = None
    ari: float | None = None
    trained_on: str = TRAIN
    note: str = ""

    @property
    def leads(self) -> str:
        """What was done, in words for a table."""
        told = [self.method, self.note, "" if self.trained_on == TRAIN else f"**{self.trained_on}**"]
        return ", ".join(part for part in told if part)


_LOSS: Final = "SCAN, loss only"
_LABELLED: Final = "SCAN + self-label"
_BEST: Final = "best run"

PUBLISHED: Final = (
    Published("cifar10", _LOSS, SCAN, 81.6, 71.5, 66.5, note=_BEST),
    Published("cifar10", _LABELLED, SCAN, 88.3, 79.7, 77.2, note=_BEST),
    Published("cifar10", "ProPos + DCBoost", PROPOS, 95.5, None, None, TRAIN_AND_TEST, "ResNet-34, 5 runs, ± 0.3"),
    Published("cifar10", "TEMI", TEMI, 96.9, 92.6, 93.2, note="frozen CLIP-L"),
    Published("cifar10", "TURTLE", TURTLE, 99.5, 98.5, 98.9, note="frozen CLIP-L + DINOv2"),
    Published("cifar100-20", _LOSS, SCAN, 44.0, 44.9, 28.3, note=_BEST),
    Published("cifar100-20", _LABELLED, SCAN, 50.7, 48.6, 33.3, note=_BEST),
    Published("cifar100-20", "ProPos + DCBoost", PROPOS, 62.1, None, None, TRAIN_AND_TEST, "ResNet-34, 5 runs, ± 1.4"),
    Published("stl10", _LOSS, SCAN, 79.2, 67.3, 61.8, note=_BEST),
    Published("stl10", _LABELLED, SCAN, 80.9, 69.8, 64.6, note=_BEST),
    Published("stl10", "ProPos + DCBoost", PROPOS, 93.3, None, None, TRAIN_AND_TEST, "ResNet-34, 5 runs, ± 0.3"),
    Published("imagenet50", _LOSS, SCAN, 75.1, note=_BEST),
    Published("imagenet50", _LABELLED, SCAN, 76.8, note=_BEST),
    Published("imagenet100", _LOSS, SCAN, 66.2, note=_BEST),
    Published("imagenet100", _LABELLED, SCAN, 68.9, note=_BEST),
    Published("imagenet100", "TEMI", TEMI, 83.4, note="frozen CLIP-L"),
    Published("imagenet200", _LOSS, SCAN, 56.3, note=_BEST),
    Published("imagenet200", _LABELLED, SCAN, 58.1, note=_BEST),
)

# Not on the same footing as any row above: 20 clusters of all 60,000 images of CIFAR-10, by majority label.
KERAS_NOTE: Final = (
    f"Keras' example ({KERAS}) reports a weighted purity of 25.6 % for 20 clusters of CIFAR-10's 60,000 images "
    f"(**{TRAIN_AND_TEST}**)."
)
