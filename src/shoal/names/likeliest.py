"""What a backbone's own classifier says of each image: its likeliest classes, from features as they are stored.

Only they are kept, a few per image: names and searches by words need no features and no N × 1,000 matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32
from shoal.encoder.classifier import Layer

KEPT: Final = 32  # classes an image
ROWS: Final = 2048  # at a time

Classes = npt.NDArray[np.uint16]
Probabilities = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, eq=False)
class Likeliest:
    """The likeliest classes of N images, the likeliest first, equal ones in the classifier's order."""

    classes: Classes  # [N, kept]
    probabilities: Probabilities  # [N, kept], 0 to 1; what is left up to 1 is that of all other classes

    def __len__(self) -> int:
        return len(self.classes)

    def of(self, rows: npt.NDArray[np.integer]) -> Likeliest:
        """Those of some of the images."""
        return Likeliest(self.classes[rows], self.probabilities[rows])


def of_features(blocks: Iterable[Float32], layer: Layer) -> Likeliest:
    """Likeliest classes of features [n, d], block after block, raw as the classifier had them: not of unit length."""
    return of_logits(rows @ layer.weight.T + layer.bias for block in blocks for rows in _cut(block))


def of_logits(blocks: Iterable[Float32]) -> Likeliest:
    """Likeliest classes of a classifier's output [n, classes], block after block."""
    return of_probabilities(_softmax(rows) for block in blocks for rows in _cut(block))


def of_probabilities(blocks: Iterable[Float32]) -> Likeliest:
    """Likeliest classes of probabilities [n, classes], block after block."""
    found = [_likeliest(rows) for block in blocks for rows in _cut(block)]
    classes = [one.classes for one in found] or [np.zeros((0, 0), np.uint16)]
    probabilities = [one.probabilities for one in found] or [np.zeros((0, 0), np.float16)]
    return Likeliest(np.concatenate(classes), np.concatenate(probabilities))


def _cut(block: Float32) -> Iterable[Float32]:
    return (block[start : start + ROWS] for start in range(0, len(block), ROWS))


def _softmax(logits: Float32) -> Float32:
    out: Float32 = logits - logits.max(axis=1, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)
    return out


def _likeliest(probabilities: Float32) -> Likeliest:
    kept = min(KEPT, probabilities.shape[1])
    some = np.sort(np.argpartition(-probabilities, kept - 1, axis=1)[:, :kept], axis=1)
    values = np.take_along_axis(probabilities, some, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    classes = np.take_along_axis(some, order, 1).astype(np.uint16)
    return Likeliest(classes, np.take_along_axis(values, order, 1).astype(np.float16))
