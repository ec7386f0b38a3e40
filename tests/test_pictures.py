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
from shoal.images import clouds
from shoal.images.location import file_uri
from shoal.pictures.originals import CHANGED, MOST_FAILURES, REST_SECONDS, Original, Originals
from shoal.pictures.pictures import SIZES, Pictures
from shoal.pictures.store import PACKS, RECORD, PictureStore
from shoal.rundir import RunDir

JPEG = b"\xff\xd8 a picture \xff\xd9" * 20
BOUND = 50 * PACKS * (len(JPEG) + RECORD.size)


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


def kept(run: RunDir) -> int:
    """How many pictures were ever kept of those whose packs are there."""
    return sum(path.stat().st_size // RECORD.size for path in run.cache.rglob("*.index"))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def pack(run: RunDir) -> Path:
    (found,) = run.cache.rglob("*.jpgs")
    return found


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
    assert len(found) == kept(run) == 1


def test_equal_images_share_their_picture(run: RunDir, source: Path) -> None:
    one = photograph(source / "one.jpg")
    shutil.copy(source / "one.jpg", source / "copy.jpg")
    copy = Original("copy.jpg", file_uri(str(source / "copy.jpg")), one.sha256, 800, 600)
    assert Pictures(run).exact(one, 96) == Pictures(run).exact(copy, 96)
    assert kept(run) == 1


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
    assert kept(run) == 1
    shutil.rmtree(run.root)
    assert pictures.exact(original, 192) == found
    assert not run.root.exists()  # a run that was taken away is not made again


@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "zeros"])
def test_a_picture_that_was_damaged_on_disk_is_made_anew(run: RunDir, source: Path, damage: str) -> None:
    original = photograph(source / "a.jpg")
    found, other = Pictures(run).exact(original, 192), Pictures(run).exact(original, 384)
    data, size = max(run.cache.rglob("*.jpgs"), key=lambda path: path.stat().st_size), len(other.jpeg)
    if damage == "gone":
        data.unlink()
    else:
        data.write_bytes({"empty": b"", "cut off": data.read_bytes()[: size // 2], "zeros": bytes(size)}[damage])
    assert Pictures(run).exact(original, 384) == other
    shutil.rmtree(source)
    assert Pictures(run).exact(original, 384) == other
    assert Pictures(run).exact(original, 192) == found


@pytest.mark.parametrize("end", [b"torn", bytes(RECORD.size), b"\xff" * RECORD.size])
def test_an_index_with_a_torn_end_is_read_as_far_as_it_goes(run: RunDir, source: Path, end: bytes) -> None:
    original = photograph(source / "a.jpg")
    found = Pictures(run).exact(original, 192)
    with pack(run).with_suffix(".index").open("ab") as index:
        index.write(end)
    shutil.rmtree(source)
    assert Pictures(run).exact(original, 192) == found


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
    assert kept(run) == 0
    assert files(run.cache) == []


def test_what_was_never_read_is_shown_but_not_kept(run: RunDir, source: Path) -> None:
    photograph(source / "a.jpg")
    unread = Original("a.jpg", file_uri(str(source / "a.jpg")), None, None, None)
    assert longest(Pictures(run).quick(unread, 192).jpeg) == 192
    assert kept(run) == 0
    assert files(run.cache) == []


def test_a_digest_that_is_none_reaches_no_file(run: RunDir, source: Path) -> None:
    (run.root / "secret.jpg").write_bytes(JPEG)
    store = PictureStore(run.cache / "thumbnails", 1 << 20)
    for name in ("../../../../secret", str(run.root / "secret"), "A" * 64):
        store.put(name, 96, JPEG)
        assert store.get(name, 96) is None
    assert kept(run) == 0
    assert files(run.cache) == []


class Down(AbstractFileSystem):
    """Storage that cannot be reached until `is_up`; counts how often it was tried."""

    cachable = False
    tries = 0
    is_up = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        Down.tries += 1
        if not Down.is_up:
            raise ConnectionError("no route to host")
        return JPEG


def test_a_network_that_fails_again_and_again_is_given_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "file_system", lambda uri: (Down(), uri))
    now = [0.0]
    originals = Originals(RunDir(Path("photos.shoal")), lambda: now[0])
    image = Original("a.jpg", "s3://bucket/a.jpg", hashlib.sha256(JPEG).hexdigest(), 8, 8)
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
    originals = Originals(RunDir(Path("photos.shoal")))
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
    store = PictureStore(folder, BOUND)
    for number in range(5_000):
        store.put(digest(number), 96, JPEG)
        if number % 100 == 0:
            assert held(folder) <= BOUND
            for path in files(folder):  # the clock of a file system may be coarser than this is fast
                if path.stat().st_mtime > 5_000:
                    os.utime(path, (number, number))
    there = [store.get(digest(number), 96) == JPEG for number in range(5_000)]
    assert there == sorted(there)
    assert 0.9 * 50 * PACKS < sum(there) <= 50 * PACKS


def test_what_others_left_there_counts_and_goes_first(folder: Path) -> None:
    """Of an earlier format, and what a killed process had begun."""
    for name in ("v1/96/0/7-abc.jpg", "v2/aaaa.jpgs"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes(60_000))
        os.utime(folder / name, (1, 1))
    store = PictureStore(folder, 100_000)
    store.put(digest(1), 96, JPEG)
    assert store.get(digest(1), 96) == PictureStore(folder, 100_000).get(digest(1), 96) == JPEG
    assert held(folder) <= 100_000


def test_several_writers_share_a_store(folder: Path) -> None:
    stores = [PictureStore(folder, BOUND) for _ in range(3)]  # each knows of the others what a process does

    def work(number: int) -> bytes | None:
        store = stores[number % 3]
        store.put(digest(number % 2500), 96, JPEG)
        return store.get(digest(number % 2500), 96)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(work, range(5_000)))
    assert set(found) <= {JPEG, None}  # whole, or gone already
    assert found.count(JPEG) > 4_500
    assert held(folder) <= BOUND + 2 * BOUND // PACKS


def test_what_another_process_kept_is_found(folder: Path) -> None:
    PictureStore(folder, 1 << 20).put(digest(0), 96, JPEG)
    script = """
import sys
from pathlib import Path
from shoal.pictures.store import PictureStore
store, names = PictureStore(Path(sys.argv[1]), 1 << 20), sys.argv[2:]
print(store.get(names[0], 96) is not None)
store.put(names[1], 96, store.get(names[0], 96))
"""
    command = [sys.executable, "-c", script, str(folder), digest(0), digest(1)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "True\n"
    assert PictureStore(folder, 1 << 20).get(digest(1), 96) == JPEG


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
    assert kept(run) == 0
    assert files(run.cache) == []
