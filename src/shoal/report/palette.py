"""Colours for clusters: few, calm, legible on light and dark, and unlike those of the clusters beside them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32

COLOURS: Final = (
    "#4477b8", "#e08a3c", "#4f9d69", "#cc5a58", "#8a6bbd", "#2f9fae", "#d07fb0", "#a58a2d",
    "#7a8ea8", "#9b6a4f", "#6aa5de", "#d9a441", "#86b35b", "#b0487e", "#5f66c4", "#3aa58f",
    "#e2766d", "#8f9a3a", "#b58ad6", "#c98b66",
)  # fmt: skip


def colours_for(centres: Float32) -> list[str]:
    """A colour for every cluster, unlike those of clusters that lie near on the map.

    Greedy, in the clusters' order: each takes the colour that is least like its neighbours', near ones counting most.

    Args:
        centres: [K, 2] where the clusters lie on the map.
    """
    likeness = _likeness()
    taken: list[int] = []
    used = np.zeros(len(COLOURS))
    scale = max(float(centres.std()), 1e-6) if len(centres) else 1.0
    for number, centre in enumerate(centres):
        gaps = (centres[:number] - centre) / scale
        nearness = 1.0 / (np.einsum("nd,nd->n", gaps, gaps) + 0.05)
        clash = nearness @ likeness[taken] if taken else np.zeros(len(COLOURS))
        best = int(np.argmin(clash + used * (clash.mean() + 1.0)))  # no colour twice while others are free
        used[best] += 1
        taken.append(best)
    return [COLOURS[index] for index in taken]


def _likeness() -> npt.NDArray[np.float64]:
    """How easily two colours are confused, from 0 to 1, [colours, colours]: a Gaussian of their distance in OKLab."""
    lab = np.array([_oklab(colour) for colour in COLOURS])
    squared = np.square(lab[:, None] - lab[None]).sum(axis=-1)
    likeness: npt.NDArray[np.float64] = np.exp(-squared / (2 * 0.08**2))
    return likeness


def _oklab(colour: str) -> npt.NDArray[np.float64]:
    """Björn Ottosson's OKLab (2020) of #rrggbb."""
    srgb = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ linear
    )
    lab: npt.NDArray[np.float64] = (
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ cones
    )
    return lab
