"""Data sets by name, through torchvision: written once as a Parquet table of PNGs, and then a source like any other.

Names: cifar10, cifar100-20 (the 20 superclasses), stl10, each alone (its training part) or with parts: `cifar10:test`,
`cifar10:train+test`, `stl10:train+unlabeled`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shoal import atomic
from shoal.errors import SourceError
from shoal.progress import Progress

PARTS: Final = {"cifar10": ("train", "test"), "cifar100-20": ("train", "test"), "stl10": ("train", "test", "unlabeled")}
SCHEMA: Final = pa.schema([("path", pa.string()), ("image", pa.binary()), ("label", pa.string())])
ROWS: Final = 5000  # written at a time

# Superclass of each of CIFAR-100's classes, in the order of the classes' names (Krizhevsky, 2009).
SUPERCLASS_NAMES: Final = (
    "aquatic mammals", "fish", "flowers", "food containers", "fruit and vegetables", "household electrical devices",
    "household furniture", "insects", "large carnivores", "large man-made outdoor things",
    "large natural outdoor scenes", "large omnivores and herbivores", "medium-sized mammals",
    "non-insect invertebrates", "people", "reptiles", "small mammals", "trees", "vehicles 1", "vehicles 2",
)  # fmt: skip
SUPERCLASSES: Final = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
)  # fmt: skip


def is_name(source: str) -> bool:
    """Is this a data set's name rather than a place? What exists on the disk is a place."""
    return source.partition(":")[0] in PARTS and not Path(source).exists()


def table(source: str, folder: Path, progress: Progress) -> Path:
    """The data set as a Parquet table in `folder`, made there if need be, from torchvision's files in that folder.

    Raises:
        SourceError: there is no such part, or the files are neither there nor to be had.
    """
    name, _, parts = source.partition(":")
    wanted = tuple((parts or "train").split("+"))
    for part in wanted:
        if part not in PARTS[name]:
            raise SourceError(f"SOURCE has value {source!r}; expected the parts of {name}: {', '.join(PARTS[name])}")
    path = folder / f"shoal-{name}-{'-'.join(wanted)}.parquet"
    if path.is_file():
        return path
    opened = [(part, _open(name, part, folder)) for part in wanted]
    with (
        atomic.replacing(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="none") as writer,
        progress.task(f"Writing {name}", sum(len(images) for _, images in opened)) as task,
    ):
        for part, images in opened:
            for rows in _chunks(images, part, _label_of(name, images)):
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                task.advance(len(rows))
    return path


def _open(name: str, part: str, folder: Path) -> Any:
    from torchvision import datasets  # noqa: PLC0415  (only for data sets by name)

    folder.mkdir(parents=True, exist_ok=True)
    try:
        if name == "stl10":
            return datasets.STL10(str(folder), split=part, download=not (folder / "stl10_binary").is_dir())
        kind, place = {
            "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
            "cifar100-20": (datasets.CIFAR100, "cifar-100-python"),
        }[name]
        return kind(str(folder), train=part == "train", download=not (folder / place).is_dir())
    except Exception as error:  # torchvision and the network raise many kinds
        raise SourceError(
            f"{name} is not in {folder} and could not be fetched ({type(error).__name__}); where there is no network, "
            "fetch it elsewhere and pass --data DIR with the folder that torchvision made"
        ) from error


def _label_of(name: str, images: Any) -> Callable[[int], str | None]:
    """The name of a class number; None for STL-10's unlabelled images."""
    if name == "cifar100-20":
        return lambda number: SUPERCLASS_NAMES[SUPERCLASSES[number]]
    return lambda number: images.classes[number] if number >= 0 else None


def _chunks(images: Any, part: str, label_of: Callable[[int], str | None]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for number in range(len(images)):
        image, label = images[number]
        name = label_of(int(label))
        rows.append({"path": f"{part}/{name or 'unlabeled'}/{number:06d}.png", "image": _png(image), "label": name})
        if len(rows) == ROWS or number == len(images) - 1:
            yield rows
            rows = []


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
