"""Pictures that anyone would tell apart, in folders by kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def paint(folder: Path, kinds: int = 3, each: int = 8, seed: int = 0) -> Path:
    """Folders of pictures that anyone would tell apart: discs, stripes, checks in colours of their own."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    patterns = [
        lambda p: np.hypot(x - 48 - p, y - 48 + p) < 30,
        lambda p: (x + p) // 6 % 2 == 0,
        lambda p: ((x + p) // 16 + y // 16) % 2 == 0,
    ]
    colours = np.array([[220, 60, 40], [40, 120, 220], [60, 180, 70]])
    for kind in range(kinds):
        (folder / f"kind{kind}").mkdir(parents=True, exist_ok=True)
        for number in range(each):
            mask = patterns[kind](int(generator.integers(0, 6)))
            pixels = np.where(mask[..., None], colours[kind], 235) + generator.integers(-12, 13, (96, 96, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"kind{kind}" / f"{number}.png")
    return folder
