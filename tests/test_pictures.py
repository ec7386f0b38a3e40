"""Pictures of a run's images: made once, kept within a bound, the same bytes whenever made; what is gone says so."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.spec import AbstractFileSystem
from PIL import Image

from shoal.errors import DecodeError
from shoal.images.location import file_uri
from shoal.pictures.originals import CHANGED, MOST_FAILURES, REST_SECONDS, Original, Originals
from shoal.pictures.pictures import SIZES, Pictures
from shoal.pictures.store import BLOCK_BYTES, PictureStore
from shoal.rundir import RunDir

JPEG = b"\xff\xd8 a picture \xff\xd9"


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def photograph(path: Path, width: int = 800, height: int = 600, seed: int = 0) -> Original:
    """A smooth picture with a little noise, so that every size of it has other pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=92)
    return Original(path.name, file_uri(str(path)), hashlib.sha256(path.read_bytes()).hexdigest(), width, height)


def longest(jpeg: bytes) -> int:
    with Image.open(io.BytesIO(jpeg)) as image:
        return max(image.size)


def files(run: RunDir) -> list[Path]:
    return [path for path in run.cache.rglob("*") if path.is_file()]


def held(folder: Path) -> int:
    return sum(-(-path.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "photos.shoal").mkdir()
    return RunDir(tmp_path / "photos.shoal")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "photos"


# -- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_as_large_as_asked_for_and_never_blown_up(run: RunDir, source: Path, size: int) -> None:
    pictures = Pictures(run)
    large, small = photograph(source / "large.jpg"), photograph(source / "small.jpg", 60, 40)
    assert longest(pictures.exact(large, size).jpeg) == longest(pictures.quick(large, size).jpeg) == size
    assert longest(pictures.exact(small, size).jpeg) == 60


def test_a_small_image_is_kept_once_whatever_size_is_asked_for(run: RunDir, source: Path) -> None:
    small = photograph(source / "small.jpg", 60, 40)
    found = {Pictures(run).exact(small, size).jpeg for size in SIZES}
    assert len(found) == len(files(run)) == 1


def test_equal_images_share_their_picture(run: RunDir, source: Path) -> None:
    one = photograph(source / "one.jpg")
    shutil.copy(source / "one.jpg", source / "copy.jpg")
    copy = Original("copy.jpg", file_uri(str(source / "copy.jpg")), one.sha256, 800, 600)
    assert Pictures(run).exact(one, 96) == Pictures(run).exact(copy, 96)
    assert len(files(run)) == 1


def test_what_was_kept_needs_no_source_and_is_what_would_be_made(run: RunDir, source: Path, tmp_path: Path) -> None:
    original = photograph(source / "a.jpg")
    other = RunDir(tmp_path / "other.shoal")
    other.root.mkdir()
    Pictures(other).quick(original, 384)  # the page of another run asks for other sizes first
    Pictures(other).quick(original, 96)
    made = {size: Pictures(run).exact(original, size) for size in SIZES}
    assert made == {size: Pictures(other).exact(original, size) for size in SIZES}
    shutil.rmtree(source)
    assert made == {size: Pictures(run).exact(original, size) for size in SIZES}


def test_what_is_not_kept_is_made_of_a_larger_one_or_shown_smaller(run: RunDir, source: Path) -> None:
    large, small = photograph(source / "a.jpg"), photograph(source / "b.jpg", seed=1)
    Pictures(run).exact(large, 384)
    Pictures(run).exact(small, 96)
    shutil.rmtree(source)
    for found in (Pictures(run).exact(large, 192), Pictures(run).quick(large, 192)):
        assert (longest(found.jpeg), found.is_sharp) == (192, True)
    for found in (Pictures(run).exact(small, 384), Pictures(run).quick(small, 384)):
        assert (longest(found.jpeg), found.is_sharp) == (96, False)


def test_pictures_may_be_deleted_at_any_time(run: RunDir, source: Path) -> None:
    original, pictures = photograph(source / "a.jpg"), Pictures(run)
    found = pictures.exact(original, 192)
    shutil.rmtree(run.cache)
    assert pictures.exact(original, 192) == found
    assert len(files(run)) == 1
    shutil.rmtree(run.root)
    assert pictures.exact(original, 192) == found
    assert not run.root.exists()  # a run that was taken away is not made again


@pytest.mark.parametrize("left", [0, 300])
def test_a_picture_that_a_power_cut_tore_is_made_anew(run: RunDir, source: Path, left: int) -> None:
    original = photograph(source / "a.jpg")
    found = Pictures(run).exact(original, 192)
    (kept,) = files(run)
    kept.write_bytes(found.jpeg[:left])
    assert Pictures(run).exact(original, 192) == found
    assert kept.read_bytes() == found.jpeg


def test_a_picture_that_was_damaged_otherwise_is_not_made_smaller(run: RunDir, source: Path) -> None:
    original = photograph(source / "a.jpg")
    Pictures(run).exact(original, 192)
    (kept,) = files(run)
    kept.write_bytes(JPEG)
    assert longest(Pictures(run).quick(original, 96).jpeg) == 96


# -- what cannot be had ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("moved", "the source {} is not there (shoal relink photos.shoal SOURCE says where it is now)"),
        ("emptied", "the source {} is empty (shoal relink photos.shoal SOURCE says where it is now)"),
        ("deleted", "gone from the source"),
        ("changed", CHANGED),
        ("broken", CHANGED),
    ],
)
def test_a_picture_that_cannot_be_had_says_why(run: RunDir, source: Path, how: str, reason: str) -> None:
    photograph(source / "kept.jpg", seed=1)
    found = photograph(source / "folder" / "a.jpg")
    original = Original("folder/a.jpg", found.uri, found.sha256, found.width, found.height)
    if how in ("moved", "emptied"):
        shutil.rmtree(source)
    if how == "emptied":
        source.mkdir()
    if how == "deleted":
        shutil.rmtree(source / "folder")
    if how == "changed":
        photograph(source / "folder" / "a.jpg", seed=7)
    if how == "broken":
        (source / "folder" / "a.jpg").write_bytes((source / "folder" / "a.jpg").read_bytes()[:300])
    for ask in (Pictures(run).exact, Pictures(run).quick):
        with pytest.raises(DecodeError) as error:
            ask(original, 192)
        assert str(error.value) == reason.format(source)
    with pytest.raises(DecodeError):
        Pictures(run).large(original)
    assert files(run) == []


def test_what_was_never_read_is_shown_but_not_kept(run: RunDir, source: Path) -> None:
    photograph(source / "a.jpg")
    unread = Original("a.jpg", file_uri(str(source / "a.jpg")), None, None, None)
    assert longest(Pictures(run).quick(unread, 192).jpeg) == 192
    assert files(run) == []


def test_a_digest_that_is_none_reaches_no_file(run: RunDir, source: Path) -> None:
    (run.root / "secret.jpg").write_bytes(JPEG)
    store = PictureStore(run.cache / "thumbnails", 1 << 20)
    for name in ("../../../../secret", str(run.root / "secret"), "A" * 64):
        store.put(name, 96, JPEG)
        assert store.get(name, 96) is None
    assert files(run) == []


class Down(AbstractFileSystem):
    """Storage that cannot be reached until `is_up`; counts how often it was tried."""

    protocol = "down"
    cachable = False
    tries = 0
    is_up = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        Down.tries += 1
        if not Down.is_up:
            raise ConnectionError("no route to host")
        return JPEG


def test_a_network_that_fails_again_and_again_is_given_a_rest() -> None:
    fsspec.register_implementation("down", Down, clobber=True)
    now = [0.0]
    originals = Originals(Path("photos.shoal"), lambda: now[0])
    image = Original("a.jpg", "down://bucket/a.jpg", hashlib.sha256(JPEG).hexdigest(), 8, 8)
    for _ in range(3 * MOST_FAILURES):
        with pytest.raises(DecodeError, match="no route to host"):
            originals.read(image)
    assert Down.tries == MOST_FAILURES
    Down.is_up = True
    with pytest.raises(DecodeError, match="no route to host"):
        originals.read(image)
    now[0] = REST_SECONDS
    assert originals.read(image) == JPEG


def test_what_storage_no_longer_has_is_no_failure_of_the_network() -> None:
    originals = Originals(Path("photos.shoal"))
    memory = fsspec.filesystem("memory")
    gone, there = (Original(name, f"memory://shoal-pictures/{name}", None, 8, 8) for name in ("gone.jpg", "there.jpg"))
    memory.pipe_file("/shoal-pictures/there.jpg", JPEG)
    for _ in range(MOST_FAILURES + 2):
        with pytest.raises(DecodeError, match="gone from the source"):
            originals.read(gone)
    assert originals.read(there) == JPEG


# -- the store -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store may lie: a folder of the cache of a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "cache" / "thumbnails"


def test_the_store_is_bounded_and_the_oldest_go_first(folder: Path) -> None:
    store = PictureStore(folder, 40 * BLOCK_BYTES)
    for number in range(100):
        store.put(digest(number), 96, JPEG)
        (made,) = folder.rglob(f"{digest(number)}.jpg")
        os.utime(made, (number, number))
        assert held(folder) <= 40 * BLOCK_BYTES
    there = [store.get(digest(number), 96) is not None for number in range(100)]
    assert there == sorted(there)
    assert sum(there) >= 30


def test_what_others_left_there_counts_and_goes_first(folder: Path) -> None:
    """Pictures of an earlier format, and what a killed process had begun."""
    for name in ("v1/96/0/7-abc.jpg", f"v2/96/0/{digest(0)}.77.part"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes(15 * BLOCK_BYTES))
        os.utime(folder / name, (1, 1))
    PictureStore(folder, 20 * BLOCK_BYTES).put(digest(1), 96, JPEG)
    assert PictureStore(folder, 20 * BLOCK_BYTES).get(digest(1), 96) == JPEG
    assert held(folder) <= 20 * BLOCK_BYTES


def test_several_writers_share_a_store(folder: Path) -> None:
    stores = [PictureStore(folder, 32 * BLOCK_BYTES) for _ in range(3)]  # each knows of the others what a process does

    def work(number: int) -> bytes | None:
        store = stores[number % 3]
        store.put(digest(number % 50), 96, JPEG)
        return store.get(digest(number % 50), 96)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(work, range(600)))
    assert set(found) <= {JPEG, None}  # whole, or gone already
    assert held(folder) <= 32 * BLOCK_BYTES * 18 // 16
    assert not list(folder.rglob("*.part"))


def test_a_disk_that_cannot_be_written_costs_speed_and_nothing_else(source: Path, run: RunDir) -> None:
    original = photograph(source / "a.jpg")
    expected = Pictures(run).exact(original, 192)
    shutil.rmtree(run.cache)
    run.cache.write_text("a file stands where the folder should be")
    assert Pictures(run).exact(original, 192) == Pictures(run).quick(original, 192) == expected


def test_a_disk_that_is_nearly_full_is_left_to_others(folder: Path) -> None:
    store = PictureStore(folder, 1 << 20, spare_bytes=1 << 62)
    store.put(digest(0), 96, JPEG)
    assert store.get(digest(0), 96) is None
    assert held(folder) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of a file's size")
def test_a_picture_that_does_not_fit_leaves_nothing_behind(source: Path, run: RunDir) -> None:
    photograph(source / "a.jpg")
    script = """
import resource, signal, sys
from pathlib import Path
from shoal.pictures.store import PictureStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
store = PictureStore(Path(sys.argv[1]), 1 << 20)
store.put("0" * 64, 96, b"\\xff\\xd8" + bytes(5000) + b"\\xff\\xd9")
assert store.get("0" * 64, 96) is None
"""
    subprocess.run([sys.executable, "-c", script, str(run.cache / "thumbnails")], check=True)
    assert files(run) == []
