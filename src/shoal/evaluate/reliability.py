"""Does confidence mean what it says? Reliability: the share that is right beside the confidence, bin by bin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15  # of equal width, as Guo et al. draw them


@dataclass(frozen=True, slots=True)
class Bin:
    """Images whose confidence lies above `low` up to `high`: how many, their mean confidence, their share right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram's data and its figures.

    Attributes:
        error: expected calibration error, 0 to 1: the mean gap between confidence and accuracy, weighted by images.
        confidence: mean confidence of all images; above their share right, the clusters are too sure of themselves.
        accuracy: share of all images that is right.
        bins: those that hold images, by rising confidence.
    """

    error: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


def reliability(confidence: npt.NDArray[np.floating], is_right: npt.NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Compare the confidence of each image's cluster, [N] from 0 to 1, with whether the cluster is right for it, [N].

    The expected calibration error of Guo et al., On calibration of modern neural networks (2017), eq. 3: bins of equal
    width, each holding its upper edge; the first holds 0 as well.

    Raises:
        ValueError: no images, sequences of different lengths, or confidence outside 0 to 1.
    """
    values = np.asarray(confidence, np.float64)
    if len(values) != len(is_right) or not len(values):
        raise ValueError(
            "The 'confidence' and 'is_right' parameters must be of equal length, and not empty. "
            f"Got {len(values)} and {len(is_right)} instead."
        )
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"The 'confidence' parameter must lie between 0 and 1. Got {values.min()} to {values.max()} instead."
        )
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    sums = np.bincount(number, values, minlength=bins)
    right = np.bincount(number, np.asarray(is_right, np.float64), minlength=bins)
    held = [
        Bin(float(edges[one]), float(edges[one + 1]), int(n), float(sums[one] / n), float(right[one] / n))
        for one, n in enumerate(counts)
        if n
    ]
    error = float(np.abs(sums - right).sum() / len(values))
    return Reliability(error, float(values.mean()), float(np.mean(is_right)), tuple(held))
