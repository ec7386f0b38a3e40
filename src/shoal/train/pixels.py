"""The images of a run as training sees them: squares of one size, decoded once where they fit on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from torch import Tensor

from shoal import atomic, records
from shoal.array_header import memory_map
from shoal.cores import core_count
from shoal.disk import require_free
from shoal.embeddings import Ids
from shoal.errors import DecodeError, NoImagesError
from shoal.images.reading import ImageReader
from shoal.images.views import model_input
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_of
from shoal.train.config import DataConfig

KEPT_BYTES = 16 * 2**30  # more than this is decoded anew each time it is needed
CHUNK = 64
STATISTICS_IMAGES = 20_000

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Usable images: `ids` [n] and, by position, uint8 pixels.

    `kept` [m, s, s, 3], memory-mapped, holds them at `rows` [n] (None: at their positions). Without it they are decoded
    when asked for.
    """

    ids: Ids
    uris: Sequence[str]
    config: DataConfig
    reader: ImageReader
    kept: Pictures | None
    rows: npt.NDArray[np.int64] | None = None

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
            with ThreadPoolExecutor(core_count()) as pool:
                read = list(
                    pool.map(lambda number: _decoded(self.reader, self.uris[number], self.config), where.tolist())
                )
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


def open_pixels(run_dir: RunDir, config: DataConfig, progress: Progress) -> Pixels:
    """The pixels of a run's usable images; images that cannot be decoded are left out.

    Raises:
        NoImagesError: not one image can be decoded.
        DiskSpaceError: they would not fit on the disk.
    """
    images = run_dir.read_images(["id", "uri", "sha256", "status"])
    usable = images.filter(pc.equal(images["status"], records.OK))
    ids: Ids = usable["id"].to_numpy()
    uris = usable["uri"].to_pylist()
    side, reader = config.stored_size, ImageReader(run_dir.spool)
    if len(ids) * side * side * 3 > KEPT_BYTES:
        return Pixels(ids, uris, config, reader, None)
    name = digest_of(usable["sha256"].to_pylist(), side, config.resize)[:16]
    file, good = run_dir.cache / f"pixels-{name}.npy", run_dir.cache / f"pixels-{name}.good.npy"
    if not good.is_file():
        _decode_all(file, good, uris, config, reader, progress)
    kept: Pictures = memory_map(file)
    is_good = memory_map(good)
    if not is_good.any():
        raise NoImagesError(f"no usable image in {run_dir.root}: none of {len(ids):,} can be decoded")
    if is_good.all():
        return Pixels(ids, uris, config, reader, kept)
    where = np.flatnonzero(is_good)
    return Pixels(ids[where], [uris[row] for row in where], config, reader, kept, where.astype(np.int64))


def _decode_all(
    file: Path, good: Path, uris: Sequence[str], config: DataConfig, reader: ImageReader, progress: Progress
) -> None:
    side = config.stored_size
    require_free(file.parent, len(uris) * side * side * 3, "keeping decoded images")
    is_good = np.zeros(len(uris), dtype=np.bool_)
    with atomic.replacing(file) as temporary:
        temporary.touch()
        pictures = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(uris), side, side, 3))

        def decode(start: int) -> int:
            for row in range(start, min(start + CHUNK, len(uris))):
                picture = _decoded(reader, uris[row], config)
                if picture is not None:
                    pictures[row], is_good[row] = picture, True
            return min(CHUNK, len(uris) - start)

        with progress.task("Decoding", len(uris)) as task, ThreadPoolExecutor(core_count()) as pool:
            for done in pool.map(decode, range(0, len(uris), CHUNK)):
                task.advance(done)
        pictures.flush()
    with atomic.replacing(good) as temporary, temporary.open("wb") as stream:
        np.save(stream, is_good)


def _decoded(reader: ImageReader, uri: str, config: DataConfig) -> Pictures | None:
    """One image as its square; None if it cannot be read, which the embedding stage will tell with its reason."""
    try:
        return model_input(
            reader.read(uri), size=config.stored_size, crop_fraction=1.0, interpolation="bicubic", resize=config.resize
        ).pixels
    except DecodeError:
        return None


def _grey(config: DataConfig) -> Pictures:
    return np.full((config.stored_size, config.stored_size, 3), 128, np.uint8)
