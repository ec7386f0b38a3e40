"""Views of batches of images, computed on their device: what the losses ask an encoder to see as the same, or to tell.

Sets: `keras` (the Keras example's), `simclr`, `strong` (SCAN's, with cutout), `flip` (weak), `centre` (none at all).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shoal.train import colour, geometry
from shoal.train.config import ViewConfig

GEOMETRIC = 5  # of RandAugment's operations; with the photometric ones and doing nothing, there are 14
OPERATIONS = GEOMETRIC + len(colour.PHOTOMETRIC) + 1  # the last does nothing


class Views:
    """Makes views of one set. Calls with equal generators give equal views.

    Args:
        config: which set, and how strong.
        size: side of the views, pixels.
        mean, std: of each channel, for values from 0 to 1.
    """

    def __init__(self, config: ViewConfig, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.config = config
        self.size = size
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._std = torch.tensor(std).view(1, 3, 1, 1)

    def __call__(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Normalised views, float32 channels-last [B, 3, size, size], of uint8 pixels [B, 3, H, W].

        `random` must be on the device of the pixels.
        """
        images = self.coloured(pixels, random)
        mean, std = (numbers.to(images.device, non_blocking=True) for numbers in (self._mean, self._std))
        normal = (images - mean) / std
        if self.config.kind == "strong" and self.config.cutout:
            # After normalising, so that what is cut out becomes the mean colour.
            normal = normal.masked_fill(geometry.holes(len(images), self.size, self.config.cutout, random), 0)
        return normal.contiguous(memory_format=torch.channels_last)

    def coloured(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Views as a person may look at them: before normalising and cutout, float32 from 0 to 1."""
        images = pixels.float() / 255
        match self.config.kind:
            case "keras":
                return self._keras(images, random)
            case "simclr":
                return self._simclr(images, random)
            case "strong":
                return self._strong(images, random)
            case "flip":
                maps = geometry.after(geometry.flips(len(images), random), self._centre(images))
                return geometry.sample(images, maps, self.size, "border")
            case _:
                return self._whole(images)

    def shown(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """What the encoder is given, turned back into colours from 0 to 1: for figures."""
        normal = self(pixels, random)
        return (normal * self._std.to(normal.device) + self._mean.to(normal.device)).clamp(0, 1)

    # -- sets --------------------------------------------------------------------------------------------------------

    def _keras(self, images: Tensor, random: torch.Generator) -> Tensor:
        config = self.config
        maps = geometry.keras(len(images), config.shift, config.turn, config.zoom, random)
        return geometry.sample(images, maps, self.size, "border")

    def _simclr(self, images: Tensor, random: torch.Generator) -> Tensor:
        config = self.config
        aspect = images.shape[3] / images.shape[2]
        maps = geometry.crops(len(images), aspect, config.area, config.ratio, random)
        views = geometry.sample(images, maps, self.size, "border")
        views = colour.jitter(views, config.jitter, config.jitter_chance, random)
        views = colour.greyed(views, config.grey_chance, random)
        return colour.blurred(views, config.blur, config.blur_chance, random) if config.blur_chance else views

    def _strong(self, images: Tensor, random: torch.Generator) -> Tensor:
        """`operations` of RandAugment's 14, no one twice: those that move pixels in one pass, then those of colour."""
        count = len(images)
        order = torch.rand(count, OPERATIONS, generator=random, device=random.device).argsort(dim=1)
        chosen = torch.zeros(count, OPERATIONS, dtype=torch.bool, device=random.device)
        chosen.scatter_(1, order[:, : self.config.operations], True)
        maps = geometry.after(geometry.flips(count, random), self._placed(images, random))
        maps = geometry.after(geometry.distortions(chosen[:, :GEOMETRIC], random), maps)
        return colour.augmented(geometry.sample(images, maps, self.size, "zeros"), chosen[:, GEOMETRIC:-1], random)

    # -- places ------------------------------------------------------------------------------------------------------

    def _parts(self, images: Tensor) -> tuple[float, float]:
        """Width and height of a view of the images' own scale, as parts of theirs, at most the whole."""
        return min(1.0, self.size / images.shape[3]), min(1.0, self.size / images.shape[2])

    def _centre(self, images: Tensor) -> Tensor:
        return geometry.centre(len(images), *self._parts(images), images.device)

    def _placed(self, images: Tensor, random: torch.Generator) -> Tensor:
        """A window of `size` pixels anywhere in the image."""
        maps = self._centre(images)
        for axis, part in enumerate(self._parts(images)):
            if part < 1:
                maps[:, axis, 2] = (torch.rand(len(images), generator=random, device=random.device) * 2 - 1) * (
                    1 - part
                )
        return maps

    def _whole(self, images: Tensor) -> Tensor:
        """The centre, pixel by pixel where the images are large enough, else enlarged."""
        height, width = images.shape[2:]
        if min(height, width) < self.size:
            return geometry.sample(images, self._centre(images), self.size, "border")
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return images[:, :, top : top + self.size, left : left + self.size]
