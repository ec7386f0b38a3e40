"""Data sets made into Parquet tables that Shoal reads: path, image (bytes), label; and their long-tailed form."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shoal import atomic, parquet, records
from shoal.errors import SourceError

SCHEMA: Final = pa.schema([("path", pa.string()), ("image", pa.binary()), ("label", pa.string())])
ROWS_AT_ONCE: Final = 4096
TAIL_RATIO: Final = 100  # images of the largest class for one of the smallest
FASHION_CLASSES: Final = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)

Labelled = tuple[Image.Image, str]


def write_images(target: Path, images: Iterable[Labelled]) -> None:
    """Write images as PNG with their labels to a Parquet file, atomically and in order; nothing if it is there."""
    if target.is_file():
        return
    with atomic.replacing(target) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        rows: list[dict[str, object]] = []
        for number, (image, label) in enumerate(images):
            rows.append({"path": f"{label}/{number:06d}.png", "image": _png(image), "label": label})
            if len(rows) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # for reading back soon, not for keeping
    return buffer.getvalue()


def fashion_images(images: Path, labels: Path) -> Iterator[Labelled]:
    """Fashion-MNIST from its two gzipped IDX files (LeCun's format, as MNIST has it).

    Raises:
        SourceError: they cannot be read, or do not fit together.
    """
    try:
        pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
        classes = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
        pairs = list(zip(pixels, [FASHION_CLASSES[number] for number in classes.tolist()], strict=True))
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise SourceError(f"{images} and {labels.name} cannot be read as Fashion-MNIST: {error}") from error
    yield from ((Image.fromarray(values), name) for values, name in pairs)


def write_long_tail(source: Path, target: Path, seed: int = 0, ratio: int = TAIL_RATIO) -> None:
    """Write a long-tailed choice of the rows of `source` to `target`, in their order; nothing if it is there.

    Class c of C, in the order of names, keeps n·ratio^(−c/(C−1)) of its n images, drawn from `seed` (Cui et al.,
    Class-balanced loss based on effective number of samples, 2019).
    """
    if target.is_file():
        return
    with source.open("rb") as file, parquet.opened(file) as opened:
        table = parquet.whole(opened)
    kept = long_tail(np.array(table["label"].to_pylist()), np.random.default_rng(seed), ratio)
    records.write_table(target, table.take(kept))


def long_tail(labels: npt.NDArray[np.str_], rng: np.random.Generator, ratio: int = TAIL_RATIO) -> npt.NDArray[np.int64]:
    """Rows that stay, ascending; see `write_long_tail`."""
    names = np.unique(labels)
    kept = []
    for number, name in enumerate(names):
        members = np.flatnonzero(labels == name)
        count = max(1, int(len(members) * ratio ** (-number / max(len(names) - 1, 1))))
        kept.append(rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(kept))
