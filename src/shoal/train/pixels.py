"""The images of a run as training sees them: squares of one size, however they were come by (`decoding`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shoal.cores import core_count
from shoal.embeddings import Ids
from shoal.train.config import DataConfig

STATISTICS_IMAGES = 20_000

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Usable images: `ids` [n] and, by position, uint8 pixels.

    `kept` [m, s, s, 3], perhaps memory-mapped, holds them at `rows` [n] (None: at their positions). Without it `decode`
    gives the one at a position, [s, s, 3], or None, when it is asked for.
    """

    ids: Ids
    config: DataConfig
    kept: Pictures | None
    rows: npt.NDArray[np.int64] | None = None
    decode: Callable[[int], Pictures | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Tensor) -> Tensor:
        """uint8 [b, 3, s, s] of the images at `positions`, channels-last in memory."""
        where = positions.cpu().numpy()
        if self.kept is not None:
            where = where if self.rows is None else self.rows[where]
            # Sorted reading spares the disk its jumps.
            order = np.argsort(where)
            pictures = np.empty((len(where), *self.kept.shape[1:]), np.uint8)
            pictures[order] = self.kept[where[order]]
        else:
            assert self.decode is not None
            with ThreadPoolExecutor(core_count()) as pool:
                read = list(pool.map(self.decode, where.tolist()))
            pictures = np.stack([_grey(self.config) if picture is None else picture for picture in read])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))

    def colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel for values from 0 to 1: the recipe's, or the images' own."""
        if self.config.mean is not None and self.config.std is not None:
            return self.config.mean, self.config.std
        step = max(1, len(self) // STATISTICS_IMAGES)
        sums, squares, count = np.zeros(3), np.zeros(3), 0
        for start in range(0, len(self), step * 256):
            values = self.take(torch.arange(start, min(start + step * 256, len(self)), step)).numpy() / 255.0
            sums += values.sum(axis=(0, 2, 3))
            squares += np.square(values).sum(axis=(0, 2, 3))
            count += values.shape[0] * values.shape[2] * values.shape[3]
        mean = sums / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
        return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def _grey(config: DataConfig) -> Pictures:
    return np.full((config.stored_size, config.stored_size, 3), 128, np.uint8)
