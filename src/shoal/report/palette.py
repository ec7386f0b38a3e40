"""Colours for clusters: few, calm, legible on light and dark; the page of `shoal browse` has the same."""

from __future__ import annotations

from typing import Final

COLOURS: Final = (
    "#4477b8", "#e08a3c", "#4f9d69", "#cc5a58", "#8a6bbd", "#2f9fae", "#d07fb0", "#a58a2d",
    "#7a8ea8", "#9b6a4f", "#6aa5de", "#d9a441", "#86b35b", "#b0487e", "#5f66c4", "#3aa58f",
    "#e2766d", "#8f9a3a", "#b58ad6", "#c98b66",
)  # fmt: skip
NOISE: Final = "#8a8f96"


def colours_by_number(k: int) -> list[str]:
    """A colour for each cluster: it stays what it is for as long as the cluster's number does."""
    return [COLOURS[number % len(COLOURS)] for number in range(k)]
