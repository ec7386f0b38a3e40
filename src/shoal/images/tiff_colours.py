"""What the numbers of a TIFF page mean: grey, colours, a palette; which is white; how many bits."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
from PIL import Image

from shoal.errors import DecodeError
from shoal.images.levels import Numbers, Range, find_range, to_levels

Picture = tuple[Image.Image, tuple[str, ...]]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
_NAMES: Final = {
    10: "ITU L*a*b*",
    32803: "the raw mosaic of a camera",
    34892: "raw camera colours",
    32844: "LogL",
    32845: "LogLuv",
}
_NUMBERS: Final = (  # of a page, that tifffile takes from its tags as they are
    *("imagewidth", "imagelength", "imagedepth", "tilewidth", "tilelength", "rowsperstrip", "samplesperpixel"),
    *("bitspersample", "sampleformat", "compression", "planarconfig", "fillorder", "photometric", "predictor"),
)
_GREYS: Final = frozenset({WHITE_IS_ZERO, BLACK_IS_ZERO, MASK})
_LEAST: Final = {RGB: 3, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}  # samples a pixel
_READ: Final = _GREYS | {PALETTE, *_LEAST}
_UNSIGNED, _SIGNED, _FLOAT, _UNTYPED = 1, 2, 3, 4  # sample formats
_SIZES: Final = {
    _UNSIGNED: {*range(1, 17), 32, 64},
    _UNTYPED: {*range(1, 17), 32, 64},
    _SIGNED: {8, 16, 32, 64},
    _FLOAT: {16, 32, 64},
}
_SORTS: Final = {_SIGNED: " with sign", _FLOAT: " floating point", 5: " complex", 6: " complex"}
_JPEG: Final = 7  # whose decoder gives RGB
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of alpha
_BITS, _MOST, _SIGNED_LEAST, _SIGNED_MOST = 258, 281, 340, 341  # tags
_INKS, _EXTRA, _SUBSAMPLING, _PROFILE, _NO_DATA = 332, 338, 530, 34675, 42113
_SIGNIFICANT: Final = re.compile(r'SignificantBits="(\d{1,2})"')


def check_kind(page: Any) -> None:
    """Refuse by name what is not read. Raises DecodeError."""
    bits = _all(page.tags.valueof(_BITS, 1))
    if min(bits) != max(bits):
        raise DecodeError(f"TIFF with samples of {', '.join(map(str, bits[:4]))} bits is not read")
    if not all(isinstance(getattr(page, name), int) for name in _NUMBERS):
        raise DecodeError("corrupt TIFF")
    photometric, samples = _photometric(page), page.samplesperpixel
    if photometric not in _READ:
        raise DecodeError(f"TIFF with {_NAMES.get(photometric, f'photometric {photometric}')} is not read")
    size = f"{page.bitspersample} bits{_SORTS.get(page.sampleformat, '')}"
    if page.bitspersample not in _SIZES.get(page.sampleformat, ()):
        raise DecodeError(f"TIFF with samples of {size} is not read")
    if page.imagedepth != 1:
        raise DecodeError(f"TIFF with a depth of {page.imagedepth} is not read")
    if photometric == YCBCR and page.bitspersample != 8 and page.compression != _JPEG:
        raise DecodeError(f"TIFF with YCbCr of {size} is not read")
    if photometric == YCBCR and page.compression == 1 and _is_subsampled(page):
        raise DecodeError("TIFF with subsampled YCbCr that is not compressed is not read")
    if photometric == PALETTE and (page.colormap is None or page.bitspersample > 16 or page.sampleformat != _UNSIGNED):
        raise DecodeError(f"TIFF with a palette for {size} is not read")
    if photometric in (CIELAB, ICCLAB) and page.bitspersample not in (8, 16):
        raise DecodeError(f"TIFF with L*a*b* of {size} is not read")
    is_read = samples >= _LEAST[photometric] if photometric in _LEAST else _grey_or_three(page)
    if not is_read or samples > 64 or (photometric == CMYK and page.tags.valueof(_INKS, 1) != 1):
        raise DecodeError(f"TIFF with {samples} channels of {size} is not read")


def picture(page: Any, samples: Numbers) -> Picture:
    """The image of 8 bits, L, LA, RGB, RGBA, CMYK or LAB, that `samples` [height, width, samples a pixel] show."""
    photometric = _photometric(page)
    if photometric in (CIELAB, ICCLAB):
        return _lab(samples, photometric), ()
    if photometric == PALETTE:
        return _painted(page, samples), ()
    samples = _without_gaps(page, samples)
    channels = _LEAST.get(photometric, 3 if page.samplesperpixel == 3 else 1)
    found = find_range(samples[..., :channels], _said(page))
    levels = to_levels(samples[..., :channels], found)
    if photometric == WHITE_IS_ZERO:
        levels = 255 - levels
    notes = [] if found.note is None else [found.note]
    if photometric in _GREYS and channels == 3:
        notes.append("three channels, taken as red, green and blue")
    elif page.samplesperpixel > channels + (_alpha(page) != 0):
        notes.append(f"{page.samplesperpixel} channels, of which the first {channels} are shown")
    if photometric == CMYK:
        return Image.fromarray(np.ascontiguousarray(levels), "CMYK"), tuple(notes)
    return _with_alpha(page, levels, samples, channels, found), tuple(notes)


def _without_gaps(page: Any, samples: Numbers) -> Numbers:
    """The numbers, with those that stand for no data, as maps have them, turned into what is no number."""
    if page.sampleformat not in (_SIGNED, _FLOAT):
        return samples  # there it is zero, as a rule
    try:
        gap = float(page.tags.valueof(_NO_DATA, "").strip(" \0"))
    except (ValueError, AttributeError):
        return samples
    kind = samples.dtype if samples.dtype.kind == "f" else np.dtype(np.float64)
    gaps = samples == kind.type(gap)
    return np.where(gaps, kind.type(np.nan), samples) if gaps.any() else samples


def _with_alpha(page: Any, levels: Numbers, samples: Numbers, channels: int, found: Range) -> Image.Image:
    kind = _alpha(page)
    if kind == 0:
        return Image.fromarray(levels[..., 0] if channels == 1 else levels)
    alpha = samples[..., channels : channels + 1]
    # Alpha has the bits of the colours: it is not dim because the picture is.
    opacity = to_levels(alpha, Range(0.0, max(1.0 if found.white <= 1 else found.white, float(alpha.max()))))
    layer = np.concatenate([levels, opacity], axis=-1)
    if kind == _UNASSOCIATED:
        return Image.fromarray(layer)
    mode = "La" if channels == 1 else "RGBa"
    return Image.frombytes(mode, layer.shape[1::-1], layer.tobytes()).convert(mode.upper())


def _painted(page: Any, samples: Numbers) -> Image.Image:
    colours = page.colormap  # [3, colours], 16 bits; some programs write 8
    palette = (colours if colours.max() < 256 else colours >> 8).astype(np.uint8).T
    layer = palette[np.minimum(samples[..., 0], len(palette) - 1)]
    if _alpha(page) == 0:
        return Image.fromarray(layer)
    return Image.fromarray(np.dstack([layer, to_levels(samples[..., 1], find_range(samples[..., 1]))]))


def _lab(samples: Numbers, photometric: int) -> Image.Image:
    """L*a*b* of 8 bits, as Pillow takes it: a and b with sign."""
    values = np.ascontiguousarray(samples[..., :3])
    if values.dtype.itemsize == 2:
        values = (values.view(np.uint16) >> 8).astype(np.uint8)
    layer = values.view(np.uint8).copy()
    if photometric == ICCLAB:
        layer[..., 1:] ^= 128
    return Image.frombytes("LAB", layer.shape[1::-1], layer.tobytes())


def _said(page: Any) -> Range | None:
    """The range of the numbers, as the file says it; None where it says no more than their size."""
    if page.sampleformat in (_SIGNED, _FLOAT):
        least, most = (page.tags.valueof(tag) for tag in (_SIGNED_LEAST, _SIGNED_MOST))
        return None if least is None or most is None else Range(float(min(_all(least))), float(max(_all(most))))
    if page.bitspersample < 16 or _PROFILE in page.tags:  # a profile is for the whole range
        return Range(0, 2**page.bitspersample - 1)
    most = page.tags.valueof(_MOST)
    if most is not None and max(_all(most)) < 2**page.bitspersample - 1:
        return Range(0, max(_all(most)))
    significant = _SIGNIFICANT.search(page.description)
    return Range(0, 2 ** int(significant[1]) - 1) if significant else None


def _is_subsampled(page: Any) -> bool:
    """Whether colours have fewer samples than brightness; by their bytes where a tag is missing."""
    factors = page.tags.valueof(_SUBSAMPLING)
    if factors is not None:
        return tuple(factors) != (1, 1)
    return bool(sum(page.databytecounts) < 3 * page.imagewidth * page.imagelength)


def _grey_or_three(page: Any) -> bool:
    """Grey, or a palette, alone or with alpha; or three greys, which are taken as colours."""
    samples: int = page.samplesperpixel
    return samples == 1 or (samples == 2 and _alpha(page) != 0) or (samples == 3 and _photometric(page) in _GREYS)


def _alpha(page: Any) -> int:
    """The kind of alpha that follows the colours; 0 if none does."""
    if _EXTRA not in page.tags and _photometric(page) == RGB and page.samplesperpixel == 4:
        return _UNASSOCIATED  # what programs mean that leave it unsaid
    kind = page.extrasamples[0] if page.extrasamples else 0
    return kind if kind in (_ASSOCIATED, _UNASSOCIATED) else 0


def _photometric(page: Any) -> int:
    """A tag that has to be there and sometimes is not."""
    return int(page.photometric) if 262 in page.tags else RGB if page.samplesperpixel >= 3 else BLACK_IS_ZERO


def _all(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
