"""Views of images: what a backbone is given, and what a person is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from shoal.images.decode import Decoded, decode_scaled, probe

Box = tuple[float, float, float, float]

# A JPEG may be decoded at a reduced scale that leaves this much more than the resize needs: bench/decode.py shows what
# that saves, and how few grey levels it is off a full decode.
SPARE: Final = 9 / 8
_FILTERS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Pixels for a backbone: uint8 [size, size, 3], RGB; and what decoding had to infer or choose, or None."""

    pixels: npt.NDArray[np.uint8]
    note: str | None


def model_input(
    image_bytes: bytes,
    *,
    size: int,
    crop_fraction: float,
    interpolation: str,
    resize: Literal["crop", "squash"] | str,
) -> ModelInput:
    """Decode, resize and crop an image for a backbone.

    `crop`: the shorter side becomes floor(size / crop_fraction) pixels and the centre size × size is taken, as timm
    prepares images for evaluation. `squash`: the whole image becomes size × size.

    Raises:
        DecodeError: see `decode`.
    """
    shorter = math.floor(size / crop_fraction) if resize == "crop" else size
    decoded = decode_scaled(image_bytes, least_size=math.ceil(shorter * SPARE))
    box = _centre(decoded, shorter, size) if resize == "crop" else None
    # Resizing the centre equals resizing the whole and then cropping, to rounding: the filter sees around the box.
    view = decoded.image.resize((size, size), _FILTERS[interpolation], box=box, reducing_gap=3.0)
    return ModelInput(np.asarray(view), decoded.note)


def thumbnail(data: bytes, size: int) -> Image.Image:
    """A small upright RGB picture of the whole image; its longest side has `size` pixels.

    Raises:
        DecodeError: see `decode`.
    """
    header = probe(data)
    longer, shorter = max(header.width, header.height), min(header.width, header.height)
    decoded = decode_scaled(data, least_size=max(1, math.ceil(size * shorter / longer)))
    scale = size / max(decoded.full_width, decoded.full_height)
    width, height = max(1, round(decoded.full_width * scale)), max(1, round(decoded.full_height * scale))
    # For making smaller, as sharp to the eye as bicubic, and a third faster.
    return decoded.image.resize((width, height), Image.Resampling.HAMMING, reducing_gap=3.0)


def _centre(decoded: Decoded, shorter: int, size: int) -> Box:
    """The box of the decoded image that becomes the centre size × size once its shorter side has `shorter` pixels."""
    full_width, full_height = decoded.full_width, decoded.full_height
    if full_width <= full_height:
        width, height = shorter, int(shorter * full_height / full_width)
    else:
        width, height = int(shorter * full_width / full_height), shorter
    left, top = round((width - size) / 2), round((height - size) / 2)
    # A reduced scale rounds up to whole pixels; the pixels themselves lie at exact halves, quarters or eighths.
    scale_x, scale_y = _scale(decoded.image.width, full_width), _scale(decoded.image.height, full_height)
    across, down = full_width / width * scale_x, full_height / height * scale_y
    return (
        max(0.0, left * across),
        max(0.0, top * down),
        min(decoded.image.width, (left + size) * across),
        min(decoded.image.height, (top + size) * down),
    )


def _scale(decoded: int, full: int) -> float:
    return next((1 / divisor for divisor in (1, 2, 4, 8) if -(-full // divisor) == decoded), decoded / full)
