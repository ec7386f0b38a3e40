"""Where the pixels of views come from: affine maps, one for each image, composed and sampled in a single pass.

A map is float32 [B, 2, 3] from a point of the view to the point of the image it shows; both run from −1 to 1 across and
down, whatever their sizes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from shoal.train.draws import signs, uniform


def sample(images: Tensor, maps: Tensor, size: int, fill: str) -> Tensor:
    """Views [B, 3, size, size] of float images [B, 3, H, W]. `fill`: `border` repeats the edge, `zeros` is black."""
    grid = F.affine_grid(maps, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=fill, align_corners=False)


def identity(count: int, device: torch.device) -> Tensor:
    return torch.eye(2, 3, device=device).repeat(count, 1, 1)


def after(outer: Tensor, inner: Tensor) -> Tensor:
    """The map that goes through `outer` and then through `inner`: view -> outer -> inner -> image."""
    linear = inner[:, :, :2] @ outer[:, :, :2]
    shift = inner[:, :, :2] @ outer[:, :, 2:] + inner[:, :, 2:]
    return torch.cat([linear, shift], dim=2)


def flips(count: int, random: torch.Generator) -> Tensor:
    """A mirror image in half of the cases."""
    maps = identity(count, random.device)
    maps[:, 0, 0] = signs(count, random)
    return maps


def keras(count: int, shift: float, turn: float, zoom: tuple[float, float], random: torch.Generator) -> Tensor:
    """The Keras example's layers in their order: translation, flip, rotation, zoom of height and of width apart.

    Args:
        shift: largest translation, as a part of the side; turn: largest rotation, as a part of a full turn;
        zoom: least and greatest change of what is seen, negative meaning in.
    """
    maps = identity(count, random.device)
    moved = maps.clone()
    moved[:, 0, 2] = uniform(count, -2 * shift, 2 * shift, random)  # the side has length 2
    moved[:, 1, 2] = uniform(count, -2 * shift, 2 * shift, random)
    zoomed = maps.clone()
    zoomed[:, 0, 0] = 1 + uniform(count, *zoom, random)
    zoomed[:, 1, 1] = 1 + uniform(count, *zoom, random)
    turned = rotations(uniform(count, -turn, turn, random) * 2 * math.pi)
    return after(zoomed, after(turned, after(flips(count, random), moved)))


def rotations(angles: Tensor) -> Tensor:
    """Rotations about the centre by angles in radians [B]."""
    cosine, sine, nothing = angles.cos(), angles.sin(), torch.zeros_like(angles)
    return torch.stack([cosine, -sine, nothing, sine, cosine, nothing], dim=1).view(-1, 2, 3)


def crops(
    count: int, aspect: float, area: tuple[float, float], ratio: tuple[float, float], random: torch.Generator
) -> Tensor:
    """Inception's crops: a part of the area and an aspect ratio drawn, then a place; flipped in half of the cases.

    Args:
        aspect: width over height of the images; area: least and greatest part; ratio: width over height of the crop.
    """
    part = uniform(count, *area, random)
    shape = torch.exp(uniform(count, math.log(ratio[0]), math.log(ratio[1]), random))
    width = (part * shape / aspect).sqrt().clamp(max=1)  # as parts of the image's
    height = (part / shape * aspect).sqrt().clamp(max=1)
    maps = torch.zeros(count, 2, 3, device=random.device)
    maps[:, 0, 0] = width * signs(count, random)
    maps[:, 1, 1] = height
    maps[:, 0, 2] = uniform(count, -1, 1, random) * (1 - width)
    maps[:, 1, 2] = uniform(count, -1, 1, random) * (1 - height)
    return maps


def centre(count: int, width: float, height: float, device: torch.device) -> Tensor:
    """The middle, `width` and `height` as parts of the image's."""
    maps = identity(count, device)
    maps[:, 0, 0], maps[:, 1, 1] = width, height
    return maps


def distortions(chosen: Tensor, random: torch.Generator) -> Tensor:
    """RandAugment's geometric operations, composed for the images that drew them.

    Args:
        chosen: bool [B, 5]: rotate (to 30°), shear across and down, translate across and down (each to a tenth).
    """
    count = len(chosen)
    drawn = [uniform(count, 0, most, random) * signs(count, random) for most in (math.pi / 6, 0.1, 0.1, 0.2, 0.2)]
    angle, shear_across, shear_down, across, down = (
        value * chosen[:, column] for column, value in enumerate(drawn)
    )  # a translation of 0.2 is a tenth of a side of length 2
    sheared = identity(count, random.device)
    sheared[:, 0, 1], sheared[:, 1, 0] = shear_across, shear_down
    moved = identity(count, random.device)
    moved[:, 0, 2], moved[:, 1, 2] = across, down
    return after(moved, after(sheared, rotations(angle)))


def holes(count: int, size: int, longest: int, random: torch.Generator) -> Tensor:
    """Cutout (DeVries and Taylor, 2017): bool [B, 1, size, size], true in a square of 1 to `longest` pixels.

    Its centre lies anywhere in the image, so that part of it may lie outside.
    """
    length = uniform(count, 1, longest + 1, random).floor()
    x, y = uniform(count, 0, size, random).floor(), uniform(count, 0, size, random).floor()
    place = torch.arange(size, device=random.device)

    def within(middle: Tensor) -> Tensor:
        first = middle - (length / 2).floor()
        return (place >= first[:, None]) & (place < (first + length)[:, None])

    return within(y)[:, None, :, None] & within(x)[:, None, None, :]


def quarter_turns(images: Tensor) -> Tensor:
    """Images [B, c, s, s] as they are, then all turned by 90°, by 180° and by 270°, exactly: [4B, c, s, s]."""
    return torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)]).contiguous(memory_format=torch.channels_last)
