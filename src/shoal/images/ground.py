"""The ground that a transparent picture is laid on, chosen so that what is drawn can be seen."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

WHITE, DARK = 255, 48  # grey levels
LEAST_CONTRAST: Final = 24.0  # levels by which what is drawn differs from white, on average
LOOKED_AT: Final = 256  # pixels a side: enough to weigh what is drawn


def on_ground(layer: Image.Image) -> tuple[Image.Image, str | None]:
    """Lay RGBA on white, or, where what is drawn is so light that it would hardly show, on dark grey; RGB and a note.

    What is drawn is weighed by its opacity: the mean difference of its brightness from white has to be LEAST_CONTRAST.
    """
    level = WHITE if _contrast_with_white(layer) >= LEAST_CONTRAST else DARK
    page = Image.new("RGB", layer.size, (level, level, level))
    page.paste(layer, mask=layer)
    return page, None if level == WHITE else "nearly white on transparency: laid on dark grey"


def _contrast_with_white(layer: Image.Image) -> float:
    step = max(1, min(layer.size) // LOOKED_AT)
    small = np.asarray(layer if step == 1 else layer.reduce(step))
    opacity = small[..., 3].astype(np.float32)
    total = float(opacity.sum())
    if total == 0:
        return float(WHITE)  # nothing is drawn
    brightness = small[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    return float(((WHITE - brightness) * opacity).sum()) / total
