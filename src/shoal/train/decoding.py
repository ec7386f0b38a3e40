"""From a run's image files to the squares that training sees, decoded once where they fit on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

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
from shoal.train.pixels import Pictures, Pixels

KEPT_BYTES = 16 * 2**30  # more than this is decoded anew each time it is needed
CHUNK = 64


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
        return Pixels(ids, config, None, decode=lambda position: _decoded(reader, uris[position], config))
    name = digest_of(usable["sha256"].to_pylist(), side, config.resize)[:16]
    file, good = run_dir.cache / f"pixels-{name}.npy", run_dir.cache / f"pixels-{name}.good.npy"
    if not good.is_file():
        _decode_all(file, good, uris, config, reader, progress)
    kept: Pictures = memory_map(file)
    is_good = memory_map(good)
    if not is_good.any():
        raise NoImagesError(f"no usable image in {run_dir.root}: none of {len(ids):,} can be decoded")
    if is_good.all():
        return Pixels(ids, config, kept)
    where = np.flatnonzero(is_good)
    return Pixels(ids[where], config, kept, where.astype(np.int64))


def _decode_all(
    file: Path, good: Path, uris: Sequence[str], config: DataConfig, reader: ImageReader, progress: Progress
) -> None:
    side = config.stored_size
    require_free(file.parent, len(uris) * side * side * 3, "keeping decoded images")
    is_good = np.zeros(len(uris), dtype=np.bool_)
    with atomic.filling_array(file, (len(uris), side, side, 3), np.uint8) as fill:

        def decode(start: int) -> int:
            for row in range(start, min(start + CHUNK, len(uris))):
                picture = _decoded(reader, uris[row], config)
                if picture is not None:
                    fill(row, picture)
                    is_good[row] = True
            return min(CHUNK, len(uris) - start)

        with progress.task("Decoding", len(uris)) as task, ThreadPoolExecutor(core_count()) as pool:
            for done in pool.map(decode, range(0, len(uris), CHUNK)):
                task.advance(done)
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
