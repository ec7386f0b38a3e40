"""Where benchmarks find their images, and what is made of them."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shoal.bench import data
from shoal.bench.benchmarks import BENCHMARKS
from shoal.bench.data import Places, Splits, find, read_classes
from shoal.bench.superclasses import SUPERCLASS_OF, SUPERCLASSES
from shoal.bench.tables import FASHION_CLASSES, SCHEMA, long_tail, write_images
from shoal.errors import DataAbsentError, RequestError, SourceError
from shoal.images.sources import open_source

SPLIT_STEMS = {"train": "train", "test": "t10k"}


def write_table(file: Path, labels: list[str]) -> None:
    rows = [{"path": f"{label}/{n}.png", "image": b"", "label": label} for n, label in enumerate(labels)]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)


def write_idx(folder: Path, images: int, zipped: bool) -> np.ndarray:
    """Fashion-MNIST's four files with random pixels; image n of both splits is of class n % 10."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 28, 28), np.uint8)
    folder.mkdir(parents=True)
    for stem in SPLIT_STEMS.values():
        contents = {
            f"{stem}-images-idx3-ubyte": struct.pack(">4i", 2051, images, 28, 28) + pixels.tobytes(),
            f"{stem}-labels-idx1-ubyte": struct.pack(">2i", 2049, images) + bytes(n % 10 for n in range(images)),
        }
        for name, content in contents.items():
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return pixels


def decoded(table: pa.Table) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_pylist()])


def test_tables_in_the_folder_given_are_taken_as_they_are(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_table(tmp_path / f"cifar10-{split}.parquet", ["cat"])
    found = find("cifar10", Places(tmp_path / "made", tmp_path))
    assert found == Splits(str(tmp_path / "cifar10-train.parquet"), str(tmp_path / "cifar10-test.parquet"))
    assert not (tmp_path / "made").exists()


def test_a_folder_of_its_own_comes_before_the_general_one(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_table(own / "tinyimagenet-20.parquet", ["n01440764"])
    assert find("tinyimagenet-20", Places(tmp_path / "made", tmp_path, {"tinyimagenet-20": own})) == Splits(
        str(own / "tinyimagenet-20.parquet")
    )


@pytest.mark.parametrize("zipped", [True, False])  # Debian's package keeps them zipped; torchvision unpacked
def test_fashion_mnist_is_read_pixel_by_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.setattr(data, "DEBIAN_FASHION", tmp_path / "nowhere")
    pixels = write_idx(tmp_path / "FashionMNIST" / "raw", 12, zipped)
    found = find("fashion-mnist", Places(tmp_path / "made", tmp_path))
    assert found.test is not None
    for file in (found.train, found.test):
        table = pq.read_table(file)
        assert (decoded(table) == pixels).all()
        classes = [label.lower() for label in table["label"].to_pylist()]
        assert classes[0].startswith("t-shirt")  # torchvision has "T-shirt/top"
        assert classes[1:10] == list(FASHION_CLASSES[1:])
        assert [item.label.lower() for item in open_source([file]).listed().items() if item.label] == classes
    assert find("fashion-mnist", Places(tmp_path / "made")) == found  # what was made is found again


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "fashion-mnist", 12, zipped=True)
    labels = tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(struct.pack(">2i", 2049, 3) + bytes(3)))
    with pytest.raises(SourceError, match="cannot be read as Fashion-MNIST"):
        find("fashion-mnist", Places(tmp_path / "made", tmp_path))
    assert not list((tmp_path / "made").glob("*.parquet"))


def test_the_long_tail_falls_from_all_to_a_hundredth(tmp_path: Path) -> None:
    names = np.repeat([f"class {n}" for n in range(10)], 500)
    rows = long_tail(names, np.random.default_rng(0))
    kept, counts = np.unique(names[rows], return_counts=True)
    assert counts.tolist() == [int(500 * 100 ** (-n / 9)) for n in range(10)]
    assert counts[0] == 500
    assert counts[-1] == 5
    assert len(kept) == 10
    assert (np.diff(rows) > 0).all()
    assert (rows == long_tail(names, np.random.default_rng(0))).all()
    assert len(np.setxor1d(rows, long_tail(names, np.random.default_rng(1)))) > 0


def test_cifar10_lt_is_a_part_of_the_training_images_and_all_test_images(tmp_path: Path) -> None:
    write_table(tmp_path / "cifar10-train.parquet", ["a"] * 200 + ["b"] * 200)
    write_table(tmp_path / "cifar10-test.parquet", ["a", "b"])
    found = find("cifar10-lt", Places(tmp_path / "made", tmp_path))
    rows, whole = pq.read_table(found.train), pq.read_table(tmp_path / "cifar10-train.parquet")
    assert rows["label"].to_pylist() == ["a"] * 200 + ["b"] * 2
    assert set(rows["path"].to_pylist()) <= set(whole["path"].to_pylist())
    assert found.test == str(tmp_path / "cifar10-test.parquet")


def make_imagenet(root: Path, classes: list[str]) -> None:
    for split in ("train", "val"):
        for wordnet_id in classes:
            (root / split / wordnet_id).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(root / split / wordnet_id / f"{wordnet_id}_0, first.jpg")


CLASSES = [f"n{n:08d}" for n in range(12)]


def test_an_imagenet_subset_holds_the_classes_of_the_file(tmp_path: Path) -> None:
    make_imagenet(tmp_path, CLASSES)
    file = tmp_path / "classes.txt"
    file.write_text("# a comment\n" + "\n".join(f"{name} some words" for name in CLASSES[::-1][:10]) + "\n")
    found = find("imagenet10", Places(tmp_path / "made", tmp_path, classes=file))
    assert found.test is not None
    for split, source in (("train", found.train), ("val", found.test)):
        items = list(open_source([source]).listed().items())
        assert sorted(item.label or "" for item in items) == sorted(CLASSES[2:])
        assert all(item.problem is None and f"/{split}/{item.label}/" in item.uri for item in items)


def test_classes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    make_imagenet(tmp_path, CLASSES[:2])
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(CLASSES[:2]))
    with pytest.raises(RequestError, match="with 2 WordNet ids; imagenet10 expects 10"):
        find("imagenet10", Places(tmp_path / "made", tmp_path, classes=file))
    file.write_text("\n".join(CLASSES[:10]))
    with pytest.raises(DataAbsentError, match=f"no images of class {CLASSES[2]}"):
        find("imagenet10", Places(tmp_path / "made", tmp_path, classes=file))
    file.write_text("tench\n")
    with pytest.raises(RequestError, match="starts with 'tench'; expected a WordNet id"):
        read_classes(file)
    with pytest.raises(RequestError, match="cannot be read"):
        read_classes(tmp_path / "none.txt")


@pytest.mark.parametrize("name", sorted({benchmark.data for benchmark in BENCHMARKS.values()}))
def test_absent_data_says_what_would_bring_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(data, "DEBIAN_FASHION", tmp_path / "nowhere")
    monkeypatch.setattr(data, "DEBIAN_STAMPS", tmp_path / "nowhere")
    for places in (Places(tmp_path / "made"), Places(tmp_path / "made", tmp_path)):
        with pytest.raises(DataAbsentError, match=r"--data|--download|Tiny-ImageNet|folders train and val"):
            find(name, places)


def test_imagenet_without_a_list_of_classes_asks_for_one(tmp_path: Path) -> None:
    make_imagenet(tmp_path, CLASSES[:1])
    with pytest.raises(DataAbsentError, match="--classes FILE"):
        find("imagenet50", Places(tmp_path / "made", tmp_path))


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken():
        yield Image.new("L", (4, 4)), "a"
        raise SourceError("the disk is gone")

    with pytest.raises(SourceError):
        write_images(tmp_path / "t.parquet", broken())
    assert list(tmp_path.iterdir()) == []


def test_superclasses_part_the_hundred_classes_into_twenty_fives() -> None:
    assert len(SUPERCLASSES) == 20
    assert len(SUPERCLASS_OF) == 100
    assert {len(names.split()) for names in SUPERCLASSES.values()} == {5}
