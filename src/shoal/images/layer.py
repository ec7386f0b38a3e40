"""From an image of 8 bits in any mode, maybe with a profile or transparency, to plain RGB in sRGB."""

from __future__ import annotations

from PIL import Image

from shoal.images.colour import Profile, find_profile, lab_to_rgb
from shoal.images.ground import on_ground

Rendered = tuple[Image.Image, tuple[str, ...]]
_COLOURS = {"L": "L", "1": "L", "CMYK": "CMYK"}  # by mode; all other modes are RGB or become so


def to_srgb(image: Image.Image, icc: bytes | None) -> Rendered:
    """RGB of its own memory, and notes on what was chosen.

    Args:
        icc: the profile that came with it; one that is for another kind of colour than the image has is ignored.
    """
    if image.mode == "LAB":
        return lab_to_rgb(image), ()
    profile = find_profile(icc) if icc else None
    if image.has_transparency_data:
        layer, note = on_ground(_layer(image, profile))
        return layer, () if note is None else (note,)
    colours = _COLOURS.get(image.mode, "RGB")
    if profile is not None and profile.mode == colours:
        # What `convert` gives is a copy: an image with several frames keeps its file's bytes alive.
        return profile.to_rgb(image.convert(colours)), ()
    return image.convert("RGB"), ()


def _layer(image: Image.Image, profile: Profile | None) -> Image.Image:
    if profile is not None and profile.mode == "L" and image.mode in ("L", "LA", "La"):
        grey = image.convert("LA") if image.mode != "L" else image.convert("RGBA").convert("LA")
        layer = profile.to_rgb(grey.getchannel("L"))
        layer.putalpha(grey.getchannel("A"))
        return layer
    layer = image.convert("RGBA")
    if profile is not None and profile.mode == "RGB" and image.mode not in ("L", "LA", "La"):
        return profile.to_rgb(layer)
    return layer
