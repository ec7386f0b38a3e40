"""Colour profiles: pictures brought to sRGB, and nothing done for those that are in it already."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

LEAST_DIFFERENCE: Final = 3  # levels: a profile that changes no colour by as much is sRGB, whatever it is called
_SPACES: Final = {"RGB ": "RGB", "CMYK": "CMYK", "GRAY": "L"}
_SRGB: Final = ImageCms.createProfile("sRGB")


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile that is not sRGB: the mode of the images that it is for (RGB, CMYK or L), and the way to sRGB."""

    mode: str
    _parsed: ImageCms.ImageCmsProfile
    _transforms: dict[str, Any] = field(default_factory=dict)

    def to_rgb(self, image: Image.Image) -> Image.Image:
        """An RGB image in sRGB, or RGBA if `image` is. Its mode is `mode`, or RGBA where that is RGB."""
        target = "RGBA" if image.mode == "RGBA" else "RGB"
        transform = self._transforms.get(image.mode)
        if transform is None:
            transform = ImageCms.buildTransform(self._parsed, _SRGB, image.mode, target)
            self._transforms[image.mode] = transform
        if image.mode == target:
            ImageCms.applyTransform(image, transform, inPlace=True)
            return image
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted


@functools.lru_cache(maxsize=32)
def find_profile(content: bytes) -> Profile | None:
    """The profile of these bytes; None where it is sRGB, broken, or of no kind that is converted.

    What it does to colours tells, not its name: cameras and programs each write an sRGB of their own.
    """
    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _SPACES.get(parsed.profile.xcolor_space)
        if mode is None:
            return None
        found = Profile(mode, parsed)
        if mode == "CMYK":
            found.to_rgb(Image.new("CMYK", (1, 1)))
            return found
        sample = _sample(mode)
        plain = np.asarray(sample.convert("RGB")).astype(int)
        changed = np.asarray(found.to_rgb(sample.copy())).astype(int)
    except Exception:  # a broken profile is no reason to lose the image; lcms raises what it likes
        return None
    return found if np.abs(changed - plain).max() >= LEAST_DIFFERENCE else None


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """CIE L*a*b* (D50) to sRGB."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def _sample(mode: str) -> Image.Image:
    """Colours all over the cube, or greys from black to white."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3))
