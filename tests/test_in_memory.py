"""Pictures that a program holds as a source: kept in the run as they are, and all that a run can do works from them."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kills import bury, count_writes, kill
from pictures import paint
from shoal import ImageClusterer
from shoal.corrections.corrected import read_corrected
from shoal.errors import DiskSpaceError, NoImagesError, RunError, SourceError
from shoal.export import export
from shoal.images.decode import decode
from shoal.images.in_memory import InMemorySource
from shoal.images.reading import ImageReader
from shoal.pictures.originals import Original, Originals
from shoal.progress import Progress, TerminalProgress
from shoal.relink import relink
from shoal.rundir import RunDir
from shoal.spool import Spool

Array = npt.NDArray[Any]
DIM = 6


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Array:
    """uint8 [12, 96, 96, 3], four of each kind."""
    folder = paint(tmp_path_factory.mktemp("pictures"), 3, 4)
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])


@pytest.fixture(scope="module")
def vectors() -> Array:
    return np.repeat(np.eye(3, DIM), 4, 0) + np.random.default_rng(0).normal(size=(12, DIM)) * 0.1


def fit(pictures: Any, out: Path, embeddings: Any = None) -> ImageClusterer:
    return ImageClusterer(clusters=3, out=out).fit(pictures, embeddings=embeddings)


def read(source: InMemorySource) -> list[Array]:
    reader = ImageReader(source.spool)
    return [np.asarray(decode(reader.read(item.uri))) for item in source.listed().items()]


# -- kept as they are --------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.data())
def test_every_pixel_is_kept(data: st.DataObject) -> None:
    sizes = st.integers(1, 20)
    shape = data.draw(st.tuples(sizes, sizes)) + data.draw(st.sampled_from([(), (1,), (3,)]))
    number = data.draw(st.integers(1, 4))
    pictures = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 256, (number, *shape), np.uint8)
    wanted = [np.broadcast_to(one.reshape(*shape[:2], -1), (*shape[:2], 3)) for one in pictures]
    whole = [] if shape[2:] == () and shape[1] in (1, 3, 4) else [pictures]  # which might be one picture
    for form in (*whole, list(pictures), (one for one in pictures)):
        np.testing.assert_array_equal(read(InMemorySource(form)), wanted)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_of_pillow_is_kept(mode: str, arrays: Array) -> None:
    way = {"La": ("LA",), "PA": ("P",), "RGBa": ("RGBA",)}.get(mode, ())
    image = Image.fromarray(arrays[0])
    for one in (*way, mode):
        image = image.convert(one)
    seen = image if not way else image.convert("RGBA" if mode != "La" else "LA")
    difference = read(InMemorySource([image]))[0].astype(int) - np.asarray(seen.convert("RGB")).astype(int)
    assert np.abs(difference).mean() < 5


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_pictures_are_read_as_deep_files_are(mode: str, arrays: Array) -> None:
    grey = arrays[0, :, :, 0].astype(float)
    kinds = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
    found = read(InMemorySource([Image.fromarray((grey * 200).astype(kinds[mode]))]))[0][:, :, 0]
    assert np.corrcoef(found.ravel(), grey.ravel())[0, 1] > 0.99


def test_pictures_from_files_are_upright_and_do_not_tell_where_they_were_taken(arrays: Array) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "at home"
    file = io.BytesIO()
    Image.fromarray(arrays[0][:, :50]).save(file, "JPEG", exif=exif, quality=95)
    source = InMemorySource([Image.open(file)])
    turned = np.rot90(np.asarray(Image.open(file)), -1)
    np.testing.assert_array_equal(read(source)[0], turned)
    uri = next(iter(source.listed().items())).uri
    assert b"at home" not in ImageReader(source.spool).read(uri)


def test_what_pillow_cannot_decode_is_skipped(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(arrays[0]).save(file, "PNG")
    broken = Image.open(io.BytesIO(file.getvalue()[:3000]))
    clusterer = fit([*arrays, broken], tmp_path / "run", np.concatenate([vectors, vectors[:1]]))
    rows = clusterer.run_dir_.read_images(["path", "status", "reason"]).to_pylist()
    assert rows[12]["status"] == "skipped"
    assert rows[12]["reason"].startswith("cannot be read (")
    with pytest.raises(NoImagesError, match="cannot be read"):
        clusterer.predict([broken], embeddings=vectors[:1])


# -- runs --------------------------------------------------------------------------------------------------------------


def test_pictures_are_clustered_as_their_files_are(arrays: Array, tmp_path: Path) -> None:
    for number, array in enumerate(arrays):
        (tmp_path / "files").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "files" / f"{number:08d}.png")
    files = ImageClusterer(clusters=3).fit(tmp_path / "files")
    for form in (arrays, (Image.fromarray(array) for array in arrays)):
        clusterer = ImageClusterer(clusters=3).fit(form)
        assert clusterer.clusters_.equals(files.clusters_)
    assert clusterer.predict(arrays).equals(files.predict(tmp_path / "files"))
    np.testing.assert_array_equal(clusterer.transform(list(arrays)), files.transform(tmp_path / "files"))
    assert clusterer.retrieve(arrays, 0)["cluster"].eq(0).all()
    near = clusterer.similar(arrays[5], 3)
    assert near["path"][0] == "00000005.png"
    assert near["cluster"].nunique() == 1


def test_the_same_again_does_nothing_and_more_adds_to_them(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    first = fit(arrays[:9], tmp_path, vectors[:9])
    again = fit([Image.fromarray(array) for array in arrays[:9]], tmp_path, vectors[:9])
    assert again.run_dir_.generation == first.run_dir_.generation
    more = fit(arrays, tmp_path, vectors)
    assert more.clusters_["path"].tolist() == [f"{number:08d}.png" for number in range(12)]
    assert len(list(tmp_path.glob("pictures/*"))) == 1
    fresh = fit(arrays, tmp_path / "fresh", vectors).run_dir_
    assert fresh.generation is not None
    for name in fresh.generation.places:
        assert more.run_dir_.path(name).read_bytes() == fresh.path(name).read_bytes(), name


def test_a_shorter_list_leaves_the_others_vanished(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    fit(arrays, tmp_path, vectors)
    run = fit(arrays[:9], tmp_path, vectors[:9]).run_dir_
    assert run.read_images(["status"])["status"].to_pylist() == ["ok"] * 9 + ["vanished"] * 3


def test_everything_works_from_the_run_alone(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    fit(arrays, tmp_path / "first", vectors)
    shutil.move(tmp_path / "first", tmp_path / "moved")
    ImageClusterer.load(tmp_path / "moved").save(tmp_path / "saved")
    for place in ("moved", "saved"):
        run = RunDir.open(tmp_path / place)
        images = run.read_images(["path", "uri", "sha256", "width", "height"])
        originals = [Original(*(images[name][row].as_py() for name in images.column_names)) for row in range(12)]
        for original, array in zip(originals, arrays, strict=True):
            np.testing.assert_array_equal(np.asarray(decode(Originals(run).read(original))), array)
        export(run, "folders", tmp_path / f"sorted-{place}", say=lambda line: None)
        written = sorted((tmp_path / f"sorted-{place}").rglob("*.png"))
        assert len(written) == 12
        assert len(read_corrected(run).numbers) == 3
        clusterer = ImageClusterer.load(tmp_path / place)
        assert clusterer.predict(arrays[:2], embeddings=vectors[:2])["cluster"].nunique() == 1
        assert len(clusterer.similar("00000003.png", 2)) == 2
        with pytest.raises(RunError, match="has no encoder for new images"):
            clusterer.predict(arrays[:2])


def test_a_death_at_any_write_changes_nothing_in_the_end(
    arrays: Array, vectors: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    count = count_writes(tmp_path / "whole", lambda: fit(arrays, tmp_path / "whole", vectors))
    whole = RunDir.open(tmp_path / "whole")
    assert whole.generation is not None
    for write in (*range(3, 12, 2), *range(12, count, 15)):
        root = tmp_path / f"killed-{write}"
        kill(root, write, lambda root=root: fit(arrays, root, vectors))  # type: ignore[misc]
        bury(root)
        run = fit(arrays, root, vectors).run_dir_
        assert run.generation is not None
        for name in whole.generation.places:
            assert run.path(name).read_bytes() == whole.path(name).read_bytes(), name
        assert len(list((root / "generations").rglob("pictures/*"))) == 1


def test_what_is_unfinished_says_how_to_go_on(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    with pytest.raises(NoImagesError):
        fit(arrays, tmp_path / "pictures", vectors * 0)
    paint(tmp_path / "files", 3, 4)
    with pytest.raises(NoImagesError):
        fit(tmp_path / "files", tmp_path / "array", vectors * 0)
    for name in ("pictures", "array"):
        with pytest.raises(
            RunError, match=r"finish it with: ImageClusterer\(clusters='3', out=.*\).fit\(…\) with what it was called"
        ):
            RunDir.open(tmp_path / name).require("cluster")
    np.save(tmp_path / "x.npy", vectors * 0)
    with pytest.raises(NoImagesError):
        fit(tmp_path / "files", tmp_path / "file", tmp_path / "x.npy")
    with pytest.raises(
        RunError, match=r"finish it with: shoal cluster .*files --clusters 3 --embeddings .*x.npy --out .*file"
    ):
        RunDir.open(tmp_path / "file").require("cluster")


def test_somebody_elses_folder_stays_as_it_is(arrays: Array, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is no run and holds"):
        fit(arrays, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_of_pictures_is_of_no_folder(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    fit(arrays, tmp_path / "run", vectors)
    paint(tmp_path / "files", 1, 1)
    with pytest.raises(RunError, match="is a run of pictures in memory; expected the same source") as caught:
        fit(tmp_path / "files", tmp_path / "run")
    assert "relink" not in str(caught.value)
    with pytest.raises(RunError, match="is a run of pictures in memory, and holds them itself"):
        relink(tmp_path / "run", [str(tmp_path / "files")], Progress())


def test_pictures_do_not_become_those_of_a_folder(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    fit(paint(tmp_path / "files", 3, 4), tmp_path / "run", vectors)
    with pytest.raises(RunError, match=r"not pictures in memory \(give another --out for it\)"):
        fit(arrays, tmp_path / "run", vectors)


def test_exports_tell_a_place_that_lasts(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    clusterer = fit(arrays, tmp_path / "run", vectors)
    for out in ("run", "saved"):
        if out == "saved":
            clusterer.save(tmp_path / "saved")
        export(RunDir.open(tmp_path / out), "parquet", tmp_path / f"{out}.parquet", say=lambda line: None)
    fit(arrays[::-1], tmp_path / "other", vectors)
    ImageClusterer(clusters=2, out=tmp_path / "run").fit(arrays, embeddings=vectors)  # a generation later
    for out in ("run", "saved"):
        exported = pq.read_table(tmp_path / f"{out}.parquet").to_pylist()
        for row, array in zip(exported, arrays, strict=True):
            assert row["uri"].startswith((tmp_path / out / "pictures").as_uri() + "/")
            np.testing.assert_array_equal(np.asarray(decode(ImageReader().read(row["uri"]))), array)


def test_pictures_leave_no_file_behind(arrays: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = InMemorySource(arrays)
    items = list(source.listed().items())
    assert len(items) == len(arrays)
    assert list(tmp_path.iterdir()) == []  # a process that is killed now has nothing to clear away
    assert list(source.listed().items()) == items
    np.testing.assert_array_equal(read(source), arrays)


def test_too_many_pictures_are_told(arrays: Array) -> None:
    source = InMemorySource(arrays)
    source.spool = Spool(most_bytes=50_000)
    with pytest.raises(DiskSpaceError, match=r"there is no room in .* for pictures in memory beyond the first"):
        list(source.listed().items())


@pytest.mark.parametrize("is_counted", [True, False])
def test_encoding_them_shows_how_far_it_is(is_counted: bool, arrays: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.progress.PLAIN_LINE_SECONDS", 0.0)
    shown = io.StringIO()
    list(InMemorySource(arrays, len(arrays) if is_counted else 0, TerminalProgress(shown)).listed().items())
    last = shown.getvalue().splitlines()[-1]
    assert last.startswith("Keeping: 12/12 pictures," if is_counted else "Keeping: 12 pictures,")


def test_rows_lead_nowhere_but_into_the_runs_own_tables(arrays: Array, vectors: Array, tmp_path: Path) -> None:
    run = fit(arrays, tmp_path / "run", vectors).run_dir_
    for uri in ("run://../secret.parquet#row=0", "run:///etc/passwd", "run://pictures/../../x.parquet#row=0"):
        assert run.located(pa.chunked_array([[uri]])).to_pylist() == [uri]  # which no reader opens
    uris = pq.read_table(run.images)["uri"].to_pylist()
    assert all(uri.startswith("run://pictures/") for uri in uris)
    assert all(uri.startswith("file:///") for uri in run.read_images()["uri"].to_pylist())


# -- refused -----------------------------------------------------------------------------------------------------------

EXPECTED = r"expected a PIL image, or a uint8 array \[height, width\]"
PICTURE = np.zeros((8, 8, 3), np.uint8)
REFUSED: dict[str, tuple[Any, str]] = {
    "floats": ([PICTURE / 255], r"picture 0 is float64 \[8, 8, 3\]; " + EXPECTED),
    "two channels": ([PICTURE[..., :2]], r"picture 0 is uint8 \[8, 8, 2\]; " + EXPECTED),
    "one row": ([PICTURE, PICTURE[0, 0]], r"picture 1 is uint8 \[3\]; " + EXPECTED),
    "no pixels": ([PICTURE[:0]], r"picture 0 is uint8 \[0, 8, 3\]; " + EXPECTED),
    "paths too": ([PICTURE, "a.png"], "picture 1 is of type str; " + EXPECTED),
    "pictures too": (["a.png", PICTURE], "source is of type list of ndarray; expected a path"),
    "one array": (PICTURE, r"source is one array of uint8 \[8, 8, 3\], a single picture; expected several"),
    "none": (np.zeros((0, 8, 8, 3), np.uint8), "source holds no picture"),
    "a matrix": (np.zeros((8, 8), np.uint8), r"source is of type array of uint8 \[8, 8\]; expected"),
    "a word in an array": (np.array("imgs"), "source is of type ndarray; expected a path"),
    "nothing in an array": (np.array(None), "source is of type ndarray; expected a path"),
    "a number": (np.array(5), r"source is of type array of int64 \[\]; expected a path"),
    "features": (np.zeros((8, 8)), r"features go into embeddings=, .*shoal.cluster.SphericalKMeans"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(case: str) -> None:
    source, told = REFUSED[case]
    with pytest.raises(SourceError, match=told) as caught:
        ImageClusterer().fit(source)
    assert "\n" not in str(caught.value)


def test_features_alone_are_not_fitted(vectors: Array) -> None:
    with pytest.raises(SourceError, match="features go into embeddings="):
        ImageClusterer().fit(vectors)
