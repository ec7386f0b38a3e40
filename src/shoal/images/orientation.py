"""The eight orientations of EXIF, and turning images upright."""

from __future__ import annotations

from typing import Final

from PIL import Image

TAG: Final = 0x0112  # in EXIF and TIFF
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, orientation: object) -> Image.Image:
    """The image upright; the same one if it is so already, or if `orientation` is none."""
    turn = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its own EXIF says."""
    return turned(image, orientation_of(image))


def orientation_of(image: Image.Image) -> object:
    """What its EXIF says; 1 where that is broken, which is no reason to lose the image."""
    try:
        return image.getexif().get(TAG, 1)
    except Exception:  # it raises what it likes
        return 1
