"""What the colours of views become: whole batches at once, each image with a strength of its own.

Images are float [B, 3, h, w] from 0 to 1; factors and thresholds are float [B].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.train.draws import chance, order, uniform

Rows = Tensor | slice  # of a batch: their numbers, or all

GREY: Final = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL and torchvision have it
ENHANCE: Final = (0.05, 0.95)  # factors of RandAugment's colour, contrast, brightness and sharpness


def jitter(
    images: Tensor, strengths: tuple[float, float, float, float], probability: float, random: torch.Generator
) -> Tensor:
    """SimCLR's colour jitter of brightness, contrast, saturation and hue, in an order drawn for the batch."""
    count = len(images)
    which = chance(count, probability, random)
    brightness, contrast, saturation, hue = strengths
    factors = [uniform(count, max(0, 1 - width), 1 + width, random) for width in (brightness, contrast, saturation)]
    shift = uniform(count, -hue, hue, random)
    steps = [
        lambda x, rows: brighten(x, factors[0][rows]),
        lambda x, rows: contrasted(x, factors[1][rows]),
        lambda x, rows: saturated(x, factors[2][rows]),
        lambda x, rows: turn_hue(x, shift[rows]),
    ]
    places = order(len(steps), random)

    def jittered(chosen: Tensor, rows: Rows) -> Tensor:
        for place in places:
            chosen = steps[place](chosen, rows)
        return chosen

    return _where(which, jittered, images.clone())


def greyed(images: Tensor, probability: float, random: torch.Generator) -> Tensor:
    """Some images without colour."""
    which = chance(len(images), probability, random)[:, None, None, None]
    return torch.where(which, grey(images), images)


def blurred(images: Tensor, spread: tuple[float, float], probability: float, random: torch.Generator) -> Tensor:
    """Gaussian blur of a standard deviation drawn from `spread`, in pixels, for some images (MoCo v2)."""
    which = chance(len(images), probability, random)
    spreads = uniform(len(images), *spread, random)
    reach = min(math.ceil(3 * spread[1]), min(images.shape[2:]) - 1)
    place = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)

    def blur(chosen: Tensor, rows: Rows) -> Tensor:
        kernels = torch.exp(-0.5 * (place / spreads[rows][:, None]) ** 2)
        kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # one for each channel
        planes, groups = chosen.flatten(0, 1)[None], len(kernels)  # [1, 3 · b, h, w]
        planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="reflect"), kernels[:, None, None, :], groups=groups)
        planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="reflect"), kernels[:, None, :, None], groups=groups)
        return planes.view_as(chosen)

    return _where(which, blur, images.clone())


def grey(images: Tensor) -> Tensor:
    """Luminance, [B, 1, h, w]."""
    red, green, blue = images.unbind(1)
    return (red * GREY[0] + green * GREY[1] + blue * GREY[2])[:, None]


def brighten(images: Tensor, factor: Tensor) -> Tensor:
    return (images * _each(factor)).clamp_(0, 1)


def contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luminance."""
    return _blend(images, grey(images).mean(dim=(2, 3), keepdim=True), factor)


def saturated(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luminance."""
    return _blend(images, grey(images), factor)


def turn_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Move the hue by `shift` of the circle; saturation and value (of HSV) stay.

    With maximum v, chroma c and hue h, channel n is v − c · clamp(min(k, 4 − k), 0, 1), k = (n + 6h) mod 6 for n = 5
    (red), 3 (green), 1 (blue).
    """
    largest, smallest = images.amax(dim=1), images.amin(dim=1)  # [B, h, w]
    chroma = largest - smallest
    red, green, blue = images.unbind(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        largest == red,
        (green - blue) / divisor,
        torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sector = sector + 6 * shift[:, None, None]
    channels = []
    for n in (5, 3, 1):
        k = (sector + n).remainder(6)
        channels.append(largest - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


# -- RandAugment's -----------------------------------------------------------------------------------------------------


def autocontrasted(images: Tensor, random: torch.Generator) -> Tensor:
    """Stretch each channel to the whole range."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (images - low) / torch.where(spread > 0, spread, 1), images)


def equalised(images: Tensor, random: torch.Generator) -> Tensor:
    """Even out each channel's histogram of 256 levels, as PIL does."""
    count, channels, height, width = images.shape
    levels = (images * 255).round().long().view(count * channels, height * width)
    histogram = torch.zeros(count * channels, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels))
    last = 255 - (histogram > 0).long().flip(1).argmax(dim=1, keepdim=True)  # the brightest level there is
    step = (height * width - histogram.gather(1, last)) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp_min(1)).clamp(0, 255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(1, levels).view_as(images).to(images.dtype) / 255


def solarised(images: Tensor, random: torch.Generator) -> Tensor:
    """Invert what is brighter than a threshold drawn."""
    threshold = _each(uniform(len(images), 0, 256 / 255, random))
    return torch.where(images >= threshold, 1 - images, images)


def posterised(images: Tensor, random: torch.Generator) -> Tensor:
    """Keep 4 to 8 bits of each value."""
    step = _each(2 ** (8 - uniform(len(images), 4, 9, random).floor().clamp(max=8)))
    return ((images * 255).round() / step).floor() * step / 255


def sharpened(images: Tensor, random: torch.Generator) -> Tensor:
    """Blend with the image smoothed; the outermost pixels stay."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device, dtype=images.dtype)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel / 13, groups=3)
    return _blend(images, smooth, uniform(len(images), *ENHANCE, random))


PHOTOMETRIC: Final[tuple[Callable[[Tensor, torch.Generator], Tensor], ...]] = (
    autocontrasted,
    equalised,
    solarised,
    posterised,
    sharpened,
    lambda images, random: saturated(images, uniform(len(images), *ENHANCE, random)),
    lambda images, random: contrasted(images, uniform(len(images), *ENHANCE, random)),
    lambda images, random: brighten(images, uniform(len(images), *ENHANCE, random)),
)


def augmented(images: Tensor, chosen: Tensor, random: torch.Generator) -> Tensor:
    """Each operation on the images that drew it, one after another in an order drawn for the batch.

    Args:
        chosen: bool [B, len(PHOTOMETRIC)].
    """
    out = images.clone()
    for place in order(len(PHOTOMETRIC), random):
        out = _where(chosen[:, place], lambda some, _: PHOTOMETRIC[place](some, random), out)  # noqa: B023
    return out


def _where(which: Tensor, change: Callable[[Tensor, Rows], Tensor], images: Tensor) -> Tensor:
    """Images, perhaps in place, with those changed that `which`, bool [B], says; `change` is told which it is given.

    A CPU is spared the others. A GPU changes them all: to count those that are wanted, the host would wait for it.
    """
    if images.device.type != "cpu":
        return torch.where(_each(which), change(images, slice(None)), images)
    rows = which.nonzero()[:, 0]
    if len(rows):
        images[rows] = change(images[rows], rows)
    return images


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """other + factor · (image − other), as PIL's enhancements."""
    return (other + _each(factor) * (images - other)).clamp_(0, 1)


def _each(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]
