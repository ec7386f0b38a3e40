"""Where a benchmark's images are: a Parquet file, what torchvision has fetched, a folder; or why they are not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shoal import atomic
from shoal.bench import tables
from shoal.bench.request import BenchRequest
from shoal.bench.tables import Labelled
from shoal.errors import DataAbsentError, RequestError
from shoal.images.listed import is_image_name

DEBIAN_FASHION: Final = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
DEBIAN_STAMPS: Final = Path("/usr/share/tuxpaint/stamps")  # Debian's package tuxpaint-stamps-default
WORDNET_ID: Final = re.compile(r"n\d{8}")
TAIL_SEED: Final = 0  # the long tail is a data set: the same whatever seeds it is clustered with


@dataclass(frozen=True, slots=True)
class Splits:
    """Sources of a data set's images. Without `test` there is no split: fit on all, report on all."""

    train: str
    test: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look for data, and where to put what is made of it.

    Attributes:
        made: folder for tables made of other forms.
        general: --data DIR, or None.
        own: --data NAME=DIR, by the data's name.
        classes: --classes FILE, or None.
        download: whether torchvision may fetch what is not there.
    """

    made: Path
    general: Path | None = None
    own: dict[str, Path] = field(default_factory=dict)
    classes: Path | None = None
    download: bool = False

    @classmethod
    def of(cls, request: BenchRequest) -> Places:
        return cls(request.out / "data", request.general_folder, request.own_folders, request.classes, request.download)

    def folder(self, data: str) -> Path | None:
        """The folder to look for `data` in, if one was given."""
        return self.own.get(data, self.general)


def find(data: str, places: Places) -> Splits:
    """Find, or make, the images of `data`.

    Raises:
        DataAbsentError: they are not on this machine; says what would bring them.
        RequestError: --classes does not fit.
    """
    if data.startswith("imagenet"):
        return _imagenet(int(data.removeprefix("imagenet")), places)
    return _FINDERS[data](places)


def _cifar10(places: Places) -> Splits:
    return _tables("cifar10", places) or _torchvision("cifar10", "CIFAR10", places)


def _cifar100(places: Places) -> Splits:
    return _tables("cifar100", places) or _torchvision("cifar100", "CIFAR100", places)


def _stl10(places: Places) -> Splits:
    return _tables("stl10", places) or _torchvision("stl10", "STL10", places)


def _fashion_mnist(places: Places) -> Splits:
    return (
        _tables("fashion-mnist", places)
        or _idx_files(places)
        or _torchvision("fashion-mnist", "FashionMNIST", places, "or install Debian's dataset-fashion-mnist")
    )


def _tiny_imagenet(places: Places) -> Splits:
    folder = places.folder("tinyimagenet-20")
    if folder is not None and (folder / "tinyimagenet-20.parquet").is_file():
        return Splits(str(folder / "tinyimagenet-20.parquet"))
    raise _absent("tinyimagenet-20.parquet", folder, "it holds 20 classes of Tiny-ImageNet: path, image, label")


def _cifar10_long_tail(places: Places) -> Splits:
    whole = _cifar10(places)
    target = places.made / "cifar10-lt-train.parquet"
    tables.write_long_tail(Path(whole.train), target, TAIL_SEED)
    return Splits(str(target), whole.test)


def _stamps(places: Places) -> Splits:
    for folder in (places.own.get("stamps"), places.general and places.general / "stamps", DEBIAN_STAMPS):
        if folder and folder.is_dir():
            return Splits(str(folder))
    raise DataAbsentError("no folder of stamps: install Debian's tuxpaint-stamps-default, or give --data stamps=DIR")


_FINDERS: Final[dict[str, Callable[[Places], Splits]]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "stl10": _stl10,
    "fashion-mnist": _fashion_mnist,
    "tinyimagenet-20": _tiny_imagenet,
    "cifar10-lt": _cifar10_long_tail,
    "stamps": _stamps,
}


# -- tables ----------------------------------------------------------------------------------------------------------


def _tables(stem: str, places: Places) -> Splits | None:
    folder = places.folder(stem)
    found = _pair(folder, stem) if folder is not None else None
    return found or _pair(places.made, stem)  # made by an earlier run


def _pair(folder: Path, stem: str) -> Splits | None:
    train, test = (folder / f"{stem}-{split}.parquet" for split in ("train", "test"))
    return Splits(str(train), str(test)) if train.is_file() and test.is_file() else None


def _make(stem: str, places: Places, images: Callable[[str], Iterator[Labelled]]) -> Splits:
    train, test = (places.made / f"{stem}-{split}.parquet" for split in ("train", "test"))
    tables.write_images(train, images("train"))
    tables.write_images(test, images("test"))
    return Splits(str(train), str(test))


def _idx_files(places: Places) -> Splits | None:
    given = places.folder("fashion-mnist")
    for folder in (given, given and given / "fashion-mnist", given and given / "FashionMNIST" / "raw", DEBIAN_FASHION):
        files = {split: _idx_pair(folder, split) for split in ("train", "test")} if folder else {}
        if files and all(file.is_file() for pair in files.values() for file in pair):
            return _make("fashion-mnist", places, _FashionFiles(files))
    return None


@dataclass(frozen=True, slots=True)
class _FashionFiles:
    """The two files of each split."""

    files: dict[str, tuple[Path, Path]]

    def __call__(self, split: str) -> Iterator[Labelled]:
        return tables.fashion_images(*self.files[split])


def _idx_pair(folder: Path, split: str) -> tuple[Path, Path]:
    stem = "train" if split == "train" else "t10k"
    return folder / f"{stem}-images-idx3-ubyte.gz", folder / f"{stem}-labels-idx1-ubyte.gz"


# -- torchvision -----------------------------------------------------------------------------------------------------


def _torchvision(stem: str, kind: str, places: Places, otherwise: str = "") -> Splits:
    """What torchvision has in the folder given, or may fetch into it, as tables."""
    folder = places.folder(stem)
    root = folder or (places.made / "torchvision" if places.download else None)
    if root is None:
        raise _absent(f"{stem}-train.parquet and {stem}-test.parquet", None, f"or --download to fetch it {otherwise}")
    opened = {split: _open_torchvision(kind, root, split, places.download, stem) for split in ("train", "test")}

    def images(split: str) -> Iterator[Labelled]:
        data = opened[split]
        names = [name.replace("/", "-").replace(" ", "-") for name in data.classes]
        yield from ((image, names[int(number)]) for image, number in (data[row] for row in range(len(data))))

    return _make(stem, places, images)


def _open_torchvision(kind: str, root: Path, split: str, download: bool, stem: str) -> Any:
    from torchvision import datasets  # noqa: PLC0415  (imports torch)

    which: dict[str, Any] = {"split": split} if kind == "STL10" else {"train": split == "train"}
    try:
        return getattr(datasets, kind)(str(root), download=download, **which)
    except Exception as error:  # RuntimeError where it is not there, and many kinds without a network
        if download:
            why = f"could not be downloaded ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
            raise DataAbsentError(f"torchvision's {kind} {why}") from error
        names = f"{stem}-train.parquet and {stem}-test.parquet"
        raise _absent(names, root, f"nor torchvision's {kind}; --download fetches it") from error


# -- ImageNet --------------------------------------------------------------------------------------------------------


def _imagenet(classes: int, places: Places) -> Splits:
    """A list of the images of the classes wanted, from folders train/WNID and val/WNID as torchvision has them."""
    name = f"imagenet{classes}"
    root = places.folder(name) or places.folder("imagenet")
    if root is None:
        raise DataAbsentError("no ImageNet: give --data DIR with train/WNID/*.JPEG and val/WNID/*.JPEG")
    root = root / "imagenet" if (root / "imagenet").is_dir() else root
    if not (root / "train").is_dir() or not (root / "val").is_dir():
        raise DataAbsentError(f"{root} has no folders train and val, each with one folder a WordNet id")
    if places.classes is None:
        raise DataAbsentError(f"which {classes} classes? Give --classes FILE with a WordNet id on each line")
    wanted = read_classes(places.classes)
    if len(wanted) != classes:
        raise RequestError(f"--classes names {places.classes} with {len(wanted)} WordNet ids; {name} expects {classes}")
    made = {split: places.made / f"{name}-{split}.csv" for split in ("train", "val")}
    for split, target in made.items():
        _write_list(target, root / split, wanted)
    return Splits(str(made["train"]), str(made["val"]))


def read_classes(file: Path) -> list[str]:
    """WordNet ids in the order of a file with one at the start of each line; what follows them is not read.

    Raises:
        RequestError: it cannot be read, or a line starts with something else.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--classes names {file}, which cannot be read: {error}") from error
    words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    wrong = next((word for word in words if not WORDNET_ID.fullmatch(word)), None)
    if wrong is not None:
        raise RequestError(f"{file} has a line that starts with {wrong!r}; expected a WordNet id such as n01440764")
    return list(dict.fromkeys(words))


def _write_list(target: Path, folder: Path, wanted: list[str]) -> None:
    """A CSV of path and label, the classes in the order given."""
    lines = ["path,label"]
    for wordnet_id in wanted:
        files = sorted((folder / wordnet_id).iterdir()) if (folder / wordnet_id).is_dir() else []
        images = [file for file in files if is_image_name(file.name)]
        if not images:
            raise DataAbsentError(f"{folder} has no images of class {wordnet_id}")
        lines += [f"{_quoted(str(file.absolute()))},{wordnet_id}" for file in images]
    text = "\n".join(lines) + "\n"
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        atomic.write_bytes(target, text.encode())


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _absent(what: str, folder: Path | None, more: str) -> DataAbsentError:
    where = f"{folder} has no {what}" if folder else f"no {what}: give --data DIR with them"
    return DataAbsentError(f"{where}; {more}".rstrip())
