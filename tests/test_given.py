"""Embeddings that a person gives: whose they are, that they become the run's as they are, and what is refused."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from kills import FULL, bury, count_writes, failing, kill, writes
from pictures import paint
from shoal import ImageClusterer, pipeline
from shoal.assign import AssignSummary, assign
from shoal.cli import main
from shoal.config import ClusterConfig
from shoal.embed.given import Given, open_given
from shoal.embed.matching import ALL_ZEROS, NOT_FINITE, NOT_GIVEN, OUT_OF_RANGE
from shoal.embeddings import EmbeddingStore
from shoal.errors import ConfigError, DiskSpaceError, EmbeddingsError, NoImagesError, RunError
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import Progress, Task
from shoal.rundir import RunDir
from shoal.similar import similar
from shoal.spool import Spool

Values = npt.NDArray[Any]
KINDS, EACH, DIM = 3, 4, 6


def vectors(seed: int = 0, each: int = EACH) -> Values:
    """Three kinds of vectors, float64 [KINDS * each, DIM]."""
    generator = np.random.default_rng(seed)
    return np.repeat(np.eye(KINDS, DIM) * 5, each, 0) + generator.normal(size=(KINDS * each, DIM)) * 0.3


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return paint(tmp_path / "pictures", KINDS, EACH)


def paths_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def table(paths: list[Any], values: Any, kind: pa.DataType | None = None) -> pa.Table:
    kind = kind or pa.list_(pa.float32())
    return pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "embedding": pa.array([None if one is None else list(one) for one in values], kind),
        }
    )


def write(target: Path, values: Values) -> Path:
    np.save(target, values)
    return target


def write_table(target: Path, *arguments: Any) -> Path:
    pq.write_table(table(*arguments), target, row_group_size=5)
    return target


def cluster(source: Path, embeddings: Path | Values, root: Path, **options: Any) -> RunDir:
    given = open_given(embeddings)
    config = ClusterConfig((str(source),), embeddings=given.asked, **{"clusters": "3", **options})
    stages = pipeline.clustering_stages(open_source(config.source), given)
    return pipeline.run(config, RunDir(root), stages, Progress())


def stored(run: RunDir) -> dict[str, Values]:
    """What the run holds, by path of its usable images."""
    images = run.read_images(["id", "path", "status"]).to_pylist()
    ok = {row["path"]: row["id"] for row in images if row["status"] == "ok"}
    rows = EmbeddingStore.open(run.embeddings).read(np.array(list(ok.values())))
    return dict(zip(ok, rows, strict=True))


def reasons(run: RunDir) -> dict[str, str]:
    rows = run.read_images(["path", "status", "reason"]).to_pylist()
    return {row["path"]: row["reason"] for row in rows if row["status"] == "skipped"}


def require_stored(run: RunDir, wanted: dict[str, Values]) -> None:
    found = stored(run)
    assert set(found) == set(wanted)
    for path, row in found.items():
        np.testing.assert_array_equal(row, wanted[path].astype(np.float32))


# -- forms -----------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Path, list[str], Values], Path | Values]] = {
    "float16": lambda at, paths, rows: write(at / "x.npy", rows.astype(np.float16)),
    "float32": lambda at, paths, rows: write(at / "x.npy", rows.astype(np.float32)),
    "float64": lambda at, paths, rows: write(at / "x.npy", rows),
    "big-endian": lambda at, paths, rows: write(at / "x.npy", rows.astype(">f4")),
    "by column": lambda at, paths, rows: write(at / "x.npy", np.asfortranarray(rows)),
    "array": lambda at, paths, rows: rows,
    "view": lambda at, paths, rows: np.repeat(rows, 2, 1)[:, ::2],
    "lists": lambda at, paths, rows: write_table(at / "x.parquet", paths, rows),
    "large lists": lambda at, paths, rows: write_table(at / "x.parquet", paths, rows, pa.large_list(pa.float64())),
    "fixed lists": lambda at, paths, rows: write_table(at / "x.parquet", paths, rows, pa.list_(pa.float64(), DIM)),
    "shuffled": lambda at, paths, rows: write_table(at / "x.parquet", paths[::-1], rows[::-1], pa.list_(pa.float64())),
    "full paths": lambda at, paths, rows: write_table(
        at / "x.parquet", [str(at / "pictures" / path) for path in paths], rows, pa.list_(pa.float64())
    ),
    "URIs": lambda at, paths, rows: write_table(
        at / "x.parquet", [(at / "pictures" / path).as_uri() for path in paths], rows, pa.list_(pa.float64())
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_become_the_runs_as_they_are(form: str, pictures: Path, tmp_path: Path) -> None:
    paths, rows = paths_in(pictures), vectors().astype(np.float16).astype(np.float64)  # which every form can hold
    run = cluster(pictures, FORMS[form](tmp_path, paths, rows), tmp_path / "run")
    require_stored(run, dict(zip(paths, rows, strict=True)))
    assert sorted(np.bincount(run.read_clusters()["cluster"])) == [EACH] * KINDS


def test_no_backbone_is_loaded(pictures: Path, tmp_path: Path) -> None:
    write(tmp_path / "x.npy", vectors())
    code = (
        "import sys\n"
        "from shoal.cli import main\n"
        "for words in (['cluster', 'pictures', '--embeddings', 'x.npy', '--clusters', '3'],\n"
        "              ['assign', 'pictures.shoal', 'pictures', '--embeddings', 'x.npy'],\n"
        "              ['similar', 'pictures.shoal', 'kind1/2.png'], ['report', 'pictures.shoal'],\n"
        "              ['export', 'pictures.shoal', 'sorted', '--to', 'folders'],\n"
        "              ['evaluate', 'pictures.shoal', '--labels', 'folders']):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, words\n"
        "print(sorted({'openvino', 'torch', 'timm'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "12 embeddings given in x.npy: row 0 for kind0/0.png, row 11 for kind2/3.png" in done.stdout
    assert "ACC 1.000" in done.stdout
    assert len(list((tmp_path / "sorted").rglob("*.png"))) == 12


def test_what_cannot_be_decoded_is_clustered_all_the_same(pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "kind0" / "0.png").read_bytes()
    (pictures / "kind0" / "0.png").write_bytes(whole[:200])  # a header that tells the size, and no pixels
    (pictures / "kind0" / "1.png").write_bytes(b"nothing")
    run = cluster(pictures, vectors(), tmp_path / "run")
    assert "kind0/0.png" in stored(run)
    assert reasons(run) == {"kind0/1.png": "not an image (text)"}


# -- whose they are ----------------------------------------------------------------------------------------------------


def test_what_is_not_named_like_an_image_needs_no_row(pictures: Path, tmp_path: Path) -> None:
    paths = paths_in(pictures)
    (pictures / "kind1" / "notes.txt").write_text("by the way")
    run = cluster(pictures, vectors(), tmp_path / "run")
    require_stored(run, dict(zip(paths, vectors(), strict=True)))
    with_notes = np.insert(vectors(), 8, np.nan, 0)
    run = cluster(pictures, with_notes, tmp_path / "other")
    require_stored(run, dict(zip(paths, vectors(), strict=True)))


def test_a_manifest_has_its_own_order(pictures: Path, tmp_path: Path) -> None:
    paths = paths_in(pictures)
    for order in (paths[::-1], paths[3:] + paths[:3]):  # of the same run, and of the same file of embeddings
        (pictures / "list.txt").write_text("\n".join(order))
        run = cluster(pictures / "list.txt", vectors(), tmp_path / "run")
        require_stored(run, dict(zip(order, vectors(), strict=True)))


def test_files_that_are_named_have_the_order_in_which_they_are(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    write(tmp_path / "x.npy", vectors())
    paths = [*paths_in(pictures)[5:], *paths_in(pictures)[:5]]
    for order in (paths, paths[::-1]):
        wanted = dict(zip(order, vectors(), strict=True))
        with pytest.raises(SystemExit) as ended:
            main(["cluster", *order, "--embeddings", "../x.npy", "--clusters", "3", "--out", "../run", "--no-report"])
        assert ended.value.code == 0
        require_stored(RunDir.open(tmp_path / "run"), wanted)
        for source in (order, pd.DataFrame({"file": [str(pictures / path) for path in order]})):
            clusterer = ImageClusterer(clusters=3).fit(source, embeddings=vectors())
            require_stored(clusterer.run_dir_, wanted)
            found = clusterer.predict(source, embeddings=vectors()).set_index("path")["cluster"]
            assert found.to_dict() == clusterer.clusters_.set_index("path")["cluster"].to_dict()


def named(order: list[str], pictures: Path, rows: Values) -> RunDir:
    return (
        ImageClusterer(clusters=3, out=pictures.parent / "run")
        .fit([str(pictures / path) for path in order], embeddings=rows)
        .run_dir_
    )


def test_named_files_keep_their_order_among_files_that_are_no_images(pictures: Path) -> None:
    (pictures / "notes.md").write_text("by the way")
    paths = paths_in(pictures)[:-1][::-1]
    for place in (0, 5, 12):
        order = [*paths[:place], "notes.md", *paths[place:]]
        wanted = dict(zip(paths, vectors(), strict=True))
        require_stored(named(order, pictures, vectors()), wanted)
        require_stored(named(order, pictures, np.insert(vectors(), place, 1.0, 0)), wanted)


def test_a_file_that_is_named_twice_counts_where_it_was_named_first(pictures: Path) -> None:
    paths = paths_in(pictures)[::-1]
    for order in ([*paths, paths[3]], [paths[0], *paths], [*paths, *paths]):
        require_stored(named(order, pictures, vectors()), dict(zip(paths, vectors(), strict=True)))


def test_a_pattern_among_several_names_what_it_matches_there(pictures: Path) -> None:
    order = ["kind2/*", "kind1/3.png", "kind[01]/*.png"]
    paths = paths_in(pictures)
    paths = [*paths[8:], paths[7], *paths[:7]]
    require_stored(named(order, pictures, vectors()), dict(zip(paths, vectors(), strict=True)))


@pytest.mark.parametrize(
    ("order", "is_as_listed"),
    [
        (["kind0", "kind1", "kind2"], True),
        (["kind0/0.png", "kind0", "kind1", "kind2"], True),
        (["kind0", "kind1/0.png", "kind1", "kind2/"], True),
        (["kind1", "kind0", "kind2"], False),
        (["kind0/3.png", "kind0", "kind1", "kind2"], False),
        (["kind2/3.png", "kind0", "kind1", "kind2"], False),
    ],
)
def test_folders_among_several_names_have_the_order_in_which_they_are_listed(
    order: list[str], is_as_listed: bool, pictures: Path, tmp_path: Path
) -> None:
    wanted = dict(zip(paths_in(pictures), vectors(), strict=True))
    if is_as_listed:
        require_stored(named(order, pictures, vectors()), wanted)
        return
    with pytest.raises(EmbeddingsError, match=r"SOURCE names folders.*; expected one folder, files alone, or a .txt"):
        named(order, pictures, vectors())
    by_path = write_table(tmp_path / "x.parquet", paths_in(pictures), vectors().astype(np.float32))
    source = [str(pictures / path) for path in order]
    clusterer = ImageClusterer(clusters=3).fit(source, embeddings=by_path)
    for path, row in stored(clusterer.run_dir_).items():
        np.testing.assert_array_equal(row, wanted[path].astype(np.float32))


def test_shards_that_are_named_in_another_order_are_refused(pictures: Path, tmp_path: Path) -> None:
    data = [(pictures / path).read_bytes() for path in paths_in(pictures)]
    for name, some in (("a", data[:6]), ("b", data[6:])):
        pq.write_table(pa.table({"image": some}), tmp_path / f"{name}.parquet")
    rows = list(stored(named(["../a.parquet", "../b.parquet"], pictures, vectors())).values())
    np.testing.assert_array_equal(rows, vectors().astype(np.float32))
    with pytest.raises(EmbeddingsError, match="SOURCE names folders, patterns or tables"):
        named(["../b.parquet", "../a.parquet"], pictures, vectors())


def test_an_empty_folder_beside_files_changes_nothing(pictures: Path) -> None:
    (pictures / "empty").mkdir()
    paths = paths_in(pictures)[::-1]
    order = [*paths[:3], "empty", *paths[3:]]
    require_stored(named(order, pictures, vectors()), dict(zip(paths, vectors(), strict=True)))


def test_a_limit_leaves_rows_to_their_images(pictures: Path, tmp_path: Path) -> None:
    wanted = dict(zip(paths_in(pictures), vectors(), strict=True))
    for form in ("float64", "lists"):
        rows = vectors().astype(np.float32)
        run = cluster(pictures, FORMS[form](tmp_path, paths_in(pictures), rows), tmp_path / form, limit=7)
        require_stored(run, {path: wanted[path] for path in stored(run)})
        assert len(stored(run)) == 7
        assert run.read_state()["stages"]["embed"]["facts"]["given"]["unused"] == 0


def test_images_without_a_row_are_skipped_and_rows_without_an_image_told(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: list[Any] = paths_in(pictures)
    rows = [*vectors(), np.ones(DIM), np.ones(DIM)]
    write_table(
        tmp_path / "x.parquet", [*paths[:-1], "elsewhere.png", "gone.png", None], [None, *rows[:-1][1:], rows[0]]
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["cluster", "pictures", "--embeddings", "x.parquet", "--clusters", "3", "--no-report"])
    assert ended.value.code == 0
    run = RunDir.open(tmp_path / "pictures.shoal")
    assert reasons(run) == {paths[0]: NOT_FINITE, paths[-1]: NOT_GIVEN}
    said = capsys.readouterr().out
    assert "14 embeddings given in x.parquet; 3 of no image of the source" in said
    assert f"1 {NOT_GIVEN}" in said


def test_a_copy_with_an_embedding_stands_in_for_its_original(pictures: Path, tmp_path: Path) -> None:
    paths = paths_in(pictures)
    shutil.copyfile(pictures / paths[0], pictures / "zz.png")
    run = cluster(pictures, write_table(tmp_path / "x.parquet", ["zz.png", *paths[1:]], vectors()), tmp_path / "run")
    np.testing.assert_array_equal(stored(run)[paths[0]], vectors()[0].astype(np.float32))
    assert not reasons(run)


def test_rows_that_are_no_use_are_skipped_with_a_reason(pictures: Path, tmp_path: Path) -> None:
    paths, rows = paths_in(pictures), vectors()
    rows[0, 1], rows[1, 2], rows[2], rows[4] = np.nan, np.inf, 0, rows[4] * 1e300
    rows[5], rows[8] = rows[5] * 1e-20, rows[8] * 1e-200
    run = cluster(pictures, rows, tmp_path / "run")
    told = [NOT_FINITE, NOT_FINITE, ALL_ZEROS, NOT_FINITE, OUT_OF_RANGE, ALL_ZEROS]
    assert reasons(run) == dict(zip([paths[row] for row in (0, 1, 2, 4, 5, 8)], told, strict=True))
    assert len(run.read_clusters()) == 6


@pytest.mark.parametrize("rows", [np.zeros((12, DIM)), np.full((12, DIM), np.nan)], ids=["zeros", "NaN"])
def test_no_usable_row_is_told(rows: Values, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match=r"no usable image in .*: its embedding"):
        cluster(pictures, rows, tmp_path / "run")


# -- again, and further ------------------------------------------------------------------------------------------------


def files_of(root: Path) -> dict[str, bytes]:
    run = RunDir.open(root)
    assert run.generation is not None
    return {name: run.path(name).read_bytes() for name in run.generation.places}


def test_the_same_again_does_nothing_and_another_file_all_that_follows(pictures: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.npy", vectors())
    first = cluster(pictures, file, tmp_path / "run")
    again = cluster(pictures, write(tmp_path / "copy.npy", vectors()), tmp_path / "run")
    assert again.generation == first.generation
    write(file, vectors(seed=1))
    other = cluster(pictures, file, tmp_path / "run")
    require_stored(other, dict(zip(paths_in(pictures), vectors(seed=1), strict=True)))
    fresh = cluster(pictures, file, tmp_path / "fresh")
    assert files_of(other.root) == files_of(fresh.root)


def test_a_run_grows_with_its_source(pictures: Path, tmp_path: Path) -> None:
    cluster(pictures, vectors(), tmp_path / "run")
    before = {row["path"]: row["id"] for row in RunDir.open(tmp_path / "run").read_images().to_pylist()}
    paint(pictures / "a", KINDS, 1, seed=9)  # which comes before all others
    run = cluster(pictures, np.concatenate([np.eye(KINDS, DIM) * 4, vectors()]), tmp_path / "run")
    require_stored(run, dict(zip(paths_in(pictures), [*(np.eye(KINDS, DIM) * 4), *vectors()], strict=True)))
    after = {row["path"]: row["id"] for row in run.read_images().to_pylist()}
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("form", ["float64", "by column", "lists"])
def test_a_death_at_any_write_changes_nothing_in_the_end(
    form: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    file = FORMS[form](tmp_path, paths_in(pictures), vectors())
    count = count_writes(tmp_path / "whole", lambda: cluster(pictures, file, tmp_path / "whole"))
    for write_number in range(2, count, 12):
        root = tmp_path / f"killed-{write_number}"
        kill(root, write_number, lambda root=root: cluster(pictures, file, root))  # type: ignore[misc]
        bury(root)
        cluster(pictures, file, root)
        assert files_of(root) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("form", ["float64", "by column", "lists"])
def test_a_full_disk_is_not_the_files_fault(form: str, pictures: Path, tmp_path: Path) -> None:
    file = FORMS[form](tmp_path, paths_in(pictures), vectors())
    told = writes(tmp_path / "whole", lambda: cluster(pictures, file, tmp_path / "whole"))
    first = next(number for number, write in enumerate(told) if "part-00000.npy" in write)
    with failing(tmp_path / "run", first, FULL), pytest.raises(DiskSpaceError):
        cluster(pictures, file, tmp_path / "run")


PEAK = (  # of a process, in MB, beside what it took to begin with
    "import resource, sys, numpy as np\n"
    "from shoal.embed.given import open_given\n"
    "from shoal.errors import EmbeddingsError\n"
    "from shoal.spool import Spool\n"
    "unit = 1 << 20 if sys.platform == 'darwin' else 1 << 10\n"
    "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit\n"
    "before = peak()\n"
)


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    values = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (400_000, 64))  # 205 MB
    values[:] = 1
    del values
    code = PEAK + (
        "with open_given('x.npy').rows(Spool()) as rows:\n"
        "    for start in range(0, 400_000, 8192):\n"
        "        assert rows.read(np.arange(start, min(start + 8192, 400_000))).all()\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60


# -- what is refused ---------------------------------------------------------------------------------------------------


def header(text: str, version: int = 1) -> bytes:
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + bytes(64)


def objects() -> Values:
    return np.array([[{}]], dtype=object)


NPY: dict[str, tuple[Callable[[Path], Any], str]] = {
    "objects": (lambda at: np.save(at, objects(), allow_pickle=True), r"holds object \[1, 1\]; expected float16"),
    "one dimension": (lambda at: np.save(at, np.ones(5)), r"holds float64 \[5\]; expected"),
    "three": (lambda at: np.save(at, np.ones((2, 2, 2))), r"holds float64 \[2, 2, 2\]; expected"),
    "whole numbers": (lambda at: np.save(at, np.ones((2, 2), int)), r"holds int64 \[2, 2\]; expected"),
    "complex": (lambda at: np.save(at, np.ones((2, 2), complex)), r"holds complex128 \[2, 2\]; expected"),
    "records": (
        lambda at: np.save(at, np.zeros((2, 2), [("a", "f4")])),
        "is not readable as a .npy file: it holds records; expected",
    ),
    "nothing": (lambda at: np.save(at, np.ones((0, 4))), r"holds float64 \[0, 4\]; expected"),
    "no columns": (lambda at: np.save(at, np.ones((4, 0))), r"holds float64 \[4, 0\]; expected"),
    "empty file": (lambda at: at.write_bytes(b""), "is not readable as a .npy file"),
    "text": (lambda at: at.write_bytes(b"1,2,3\n"), "is not readable as a .npy file"),
    "pickle": (lambda at: at.write_bytes(b"\x80\x04]\x94."), "is not readable as a .npy file"),
    "cut off": (lambda at: at.write_bytes(npy(np.ones((9, 9)))[:-9]), "is cut off: it has 767 bytes; expected 776"),
    "an endless header": (lambda at: at.write_bytes(header("{" * 60000)), "is not readable as a .npy file"),
    "a huge header": (lambda at: at.write_bytes(header("x" * 200_000, 2)), "is not readable as a .npy file"),
    "a lying header": (
        lambda at: at.write_bytes(header("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40, 4)}")),
        "is not readable as a .npy file",
    ),
    "a vast shape": (
        lambda at: at.write_bytes(header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 4)}")),
        "is cut off",
    ),
    "below nothing": (
        lambda at: at.write_bytes(header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 4)}")),
        "is not readable as a .npy file: its header is damaged; expected",
    ),
    "a later version": (
        lambda at: at.write_bytes(header("{}", 3)),
        "as a .npy file: version 3 of .npy; expected",
    ),
    "a folder": (lambda at: at.mkdir(), "is no plain file"),
    "a pipe": (os.mkfifo, "is no plain file"),
    "not there": (lambda at: None, "does not exist"),
}


def npy(values: Values) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("case", NPY)
def test_what_is_no_array_of_floats_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, told = NPY[case]
    file = tmp_path / "x.npy"
    make(file)
    with pytest.raises(EmbeddingsError, match=told) as caught:
        open_given(file)
    assert "\n" not in str(caught.value)
    assert "x.npy" in str(caught.value)


TABLES: dict[str, tuple[Any, str]] = {
    "no paths": (pa.table({"embedding": [[1.0]]}), "has the columns embedding; expected path, and embedding"),
    "no embeddings": (pa.table({"path": ["a"]}), "has the columns path; expected"),
    "numbers": (
        pa.table({"path": ["a"], "embedding": [1.0]}),
        "embedding is of type double; expected a list of floats",
    ),
    "texts": (pa.table({"path": ["a"], "embedding": [["x"]]}), "expected a list of floats"),
    "paths of numbers": (pa.table({"path": [1], "embedding": [[1.0]]}), "column path is of type int64; expected text"),
    "twice": (table(["a", "b", "a"], [[1.0]] * 3), "has 2 rows for 'a'; expected one for each image"),
    "two columns of paths": (
        pa.table([["a"], ["b"], [[1.0]]], names=["path", "path", "embedding"]),
        "has 2 columns called path; expected one",
    ),
    "two of embeddings": (
        pa.table([["a"], [[1.0]], [[1.0]]], names=["path", "embedding", "embedding"]),
        "has 2 columns called embedding; expected one",
    ),
    "whole numbers": (
        pa.table({"path": ["a"], "embedding": [[1]]}),
        "embedding is of type list<element: int64>; expected a list of floats",
    ),
    "a long path": (table(["a" * 20_000], [[1.0]]), "has a path of 20,000 bytes; expected at most 16,384"),
    "a long path twice": (table(["a" * 16_000] * 2, [[1.0]] * 2), "has 2 rows for 'a{199}…; expected one"),
    "a long name": (pa.table({"a" * 20_000: ["a"]}), "has the columns a{200}…; expected"),
    "no rows": (table([], []), r"holds a table of \[0, 0\]; expected"),
    "no values": (table(["a"], [None]), r"holds a table of \[1, 0\]; expected"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_without_paths_and_vectors_are_refused(case: str, tmp_path: Path) -> None:
    made, told = TABLES[case]
    pq.write_table(made, tmp_path / "x.parquet")
    with pytest.raises(EmbeddingsError, match=told) as caught:
        open_given(tmp_path / "x.parquet")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def again_and_again() -> pa.Table:
    path = pa.DictionaryArray.from_arrays(np.zeros(3_000_000, np.int32), pa.array(["a" * 1000]))
    rows = pa.ListArray.from_arrays(np.arange(3_000_001, dtype=np.int32), pa.array(np.zeros(3_000_000, np.float32)))
    return pa.table({"path": path, "embedding": rows})


def vast_row() -> pa.Table:
    row = pa.LargeListArray.from_arrays([0, 200_000_000], pa.array(np.zeros(200_000_000, np.float32)))
    return pa.table({"path": ["a"], "embedding": row})


def nothing_at_all() -> pa.Table:
    count = 40_000_000
    return pa.table({"path": pa.nulls(count, pa.string()), "embedding": pa.nulls(count, pa.list_(pa.float32()))})


@pytest.mark.parametrize("bomb", [again_and_again, vast_row, nothing_at_all])
def test_a_small_file_takes_little_memory(bomb: Callable[[], pa.Table], tmp_path: Path) -> None:
    pq.write_table(bomb(), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 1_000_000
    code = PEAK + (
        "try: open_given('x.parquet')\nexcept EmbeddingsError as error: print(len(str(error)), peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    told, megabytes = map(int, done.stdout.split())
    assert told < 600
    assert megabytes < 200


TEXTS = {
    "large": pa.large_string(),
    "views": pa.string_view(),
    "categories": pa.dictionary(pa.int32(), pa.string()),
    "small categories": pa.dictionary(pa.int8(), pa.large_string()),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("width", [16, 32])
def test_paths_may_be_any_kind_of_text(kind: str, width: int, tmp_path: Path) -> None:
    rows = vectors().astype(f"float{width}")
    made = table(list("abcdefghijkl"), rows, pa.list_(pa.float16() if width == 16 else pa.float32()))
    made = made.set_column(0, "path", pa.array(list("abcdefghijkl")).cast(TEXTS[kind]))
    pq.write_table(made, tmp_path / "x.parquet")
    given = open_given(tmp_path / "x.parquet")
    assert given.paths is not None
    assert given.paths.to_pylist() == list("abcdefghijkl")
    np.testing.assert_array_equal(read_all(given), rows.astype(np.float32))


def test_rows_of_unequal_length_are_refused(pictures: Path, tmp_path: Path) -> None:
    file = write_table(tmp_path / "x.parquet", paths_in(pictures), [*vectors()[:7], [1.0], *vectors()[8:]])
    with pytest.raises(EmbeddingsError, match="row 7 has 1 numbers; expected 6, as in the first"):
        cluster(pictures, file, tmp_path / "run")


@pytest.mark.parametrize("name", ["x.csv", "x", "s3://bucket/x.npy", "https://host/x.parquet"])
def test_other_files_are_refused(name: str) -> None:
    with pytest.raises(EmbeddingsError, match=r"--embeddings has value .*; expected a .npy or .parquet file on"):
        open_given(name)


@drawn(st.data())
def test_a_damaged_file_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    at = tmp_path_factory.mktemp("damaged")
    ending = data.draw(st.sampled_from([".npy", ".parquet"]))
    if ending == ".npy":
        whole = npy(vectors())
    else:
        whole = write_table(at / "whole.parquet", list("abcdefghijkl"), vectors()).read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file = at / f"x{ending}"
    file.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with suppress(EmbeddingsError):
        read_all(open_given(file))


def read_all(given: Given) -> Values:
    with given.rows(Spool()) as rows:
        return rows.read(np.arange(given.count))


def test_another_number_of_rows_is_refused_with_both(pictures: Path, tmp_path: Path) -> None:
    (pictures / "notes.txt").write_text("by the way")
    told = "embeddings has 5 rows, and the source lists 13 files, 12 of them named like images; expected a row for each"
    with pytest.raises(EmbeddingsError, match=told):
        cluster(pictures, vectors()[:5], tmp_path / "run")


def test_a_wrong_number_is_told_before_any_image_is_read(pictures: Path, tmp_path: Path) -> None:
    tasks = Tasks()
    for embeddings in (vectors()[:5], write_table(tmp_path / "x.parquet", ["a.png"], vectors()[:1])):
        given = open_given(embeddings)
        config = ClusterConfig((str(pictures),), embeddings=given.asked)
        with pytest.raises(EmbeddingsError, match="rows, and"):
            pipeline.run(
                config, RunDir(tmp_path / "run"), pipeline.clustering_stages(open_source(config.source), given), tasks
            )
    assert tasks.begun == []


class Tasks(Progress):
    """Remembers what was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        self.begun.append(name)
        with super().task(name, total, unit) as task:
            yield task


def test_paths_of_other_images_are_refused(pictures: Path, tmp_path: Path) -> None:
    file = write_table(tmp_path / "x.parquet", ["a.png", "b.png"], vectors()[:2])
    told = (
        r"2 rows, and no path in it is one of the source's 12 files; its first is 'a.png', the source's 'kind0/0.png'"
    )
    with pytest.raises(EmbeddingsError, match=told):
        cluster(pictures, file, tmp_path / "run")


def test_a_file_that_changes_meanwhile_is_refused(pictures: Path, tmp_path: Path) -> None:
    given = open_given(write(tmp_path / "x.npy", vectors()))
    write(tmp_path / "x.npy", vectors()[:, ::-1])
    with pytest.raises(EmbeddingsError, match="was changed while it was used"):
        read_all(given)


@pytest.mark.parametrize(
    "option", [{"backbone": "resnet50"}, {"weights": "x.pth"}, {"features": "map"}, {"resize": "squash"}]
)
def test_a_backbone_beside_them_is_refused(option: dict[str, str]) -> None:
    name, value = next(iter(option.items()))
    with pytest.raises(ConfigError, match=f"--{name} has value '{value}', and --embeddings is given"):
        ClusterConfig(("x",), embeddings="x.npy", **{name: value})  # type: ignore[arg-type]


# -- without an encoder ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> RunDir:
    return cluster(pictures, vectors(), tmp_path / "run")


def test_new_images_need_embeddings_too(run: RunDir, pictures: Path, tmp_path: Path) -> None:
    other = paint(tmp_path / "other", 1, 1, seed=7) / "kind0" / "0.png"
    with pytest.raises(RunError, match="made of embeddings that were given, and has no encoder for new images"):
        Model.open(run).embed([])
    with pytest.raises(RunError, match=r"has no encoder for new images; expected .*, or an image of the run"):
        similar(run, str(other), 3, "cpu", Progress())
    with pytest.raises(EmbeddingsError, match=r"has rows of 2 numbers; expected 6, as .*run was made of"):
        Model.open(run).take(open_given(np.ones((1, 2))), [], Spool())


def test_nothing_is_written_where_nothing_can_be_assigned(
    run: RunDir, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "few.npy", vectors()[:5])
    write(tmp_path / "narrow.npy", vectors()[:, :2])
    given: list[list[str]] = [[], *(["--embeddings", str(tmp_path / name)] for name in ("few.npy", "narrow.npy"))]
    for words in given:
        with pytest.raises(SystemExit) as ended:
            main(["assign", str(run.root), str(pictures), *words])
        assert ended.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1


def test_given_embeddings_are_assigned(
    run: RunDir, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.root / "model", tmp_path / "model")
    rows = np.concatenate([vectors(seed=3, each=2), np.full((1, DIM), np.nan), np.ones((1, DIM)), np.ones((1, DIM))])
    names = [f"{letter}.png" for letter in "abcdefg"]
    for name in names:
        shutil.copyfile(pictures / "kind0" / "0.png", tmp_path / name)
    (tmp_path / "notes.txt").write_text("by the way")
    (tmp_path / "new.txt").write_text("\n".join([*names, "notes.txt", "gone.png"]))
    write(tmp_path / "new.npy", rows)
    found = []
    for place in ("run", "model"):
        with pytest.raises(SystemExit) as ended:
            main(
                ["assign", str(tmp_path / place), str(tmp_path / "new.txt"), "--embeddings", str(tmp_path / "new.npy")]
            )
        assert ended.value.code == 0
        said = capsys.readouterr()
        told = [line for line in said.err.splitlines() if line.startswith("skipped")]
        assert sorted(told) == [
            f"skipped g.png: {NOT_FINITE}",
            "skipped gone.png: no such file",
            "skipped notes.txt: not an image (.txt)",
        ]
        found.append(said.out)
    assert found[0] == found[1]
    clusters = [line.split(",")[1] for line in found[0].splitlines()[1:]]
    assert clusters[::2] == clusters[1::2]
    assert len(set(clusters)) == KINDS


def test_the_same_files_are_images_for_assign_as_for_cluster(pictures: Path, tmp_path: Path) -> None:
    (pictures / "kind0" / "0.png").write_bytes(b"nothing")
    (pictures / "kind1" / "notes.txt").write_text("by the way")
    (pictures / "kind1" / "1.png").write_bytes(b"")
    rows = np.insert(vectors(), 8, 1.0, 0)
    clusterer = ImageClusterer(clusters=3, out=tmp_path / "run").fit(pictures, embeddings=rows)
    assigned = clusterer.predict(pictures, embeddings=rows)
    assert set(assigned["path"]) == set(clusterer.clusters_["path"])
    skipped = AssignSummary()
    given = open_given(rows)
    list(assign(Model.open(tmp_path / "run"), open_source([str(pictures)]), skipped, Progress(), given))
    assert dict(skipped.skipped) == reasons(clusterer.run_dir_)


def test_images_of_the_run_have_others_like_them(run: RunDir, pictures: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(pictures / "kind1" / "2.png", tmp_path / "copy.png"))
    by_path, by_file, by_copy = (
        similar(run, one, 3, "cpu", Progress()) for one in ("kind1/2.png", str(pictures / "kind1" / "2.png"), str(copy))
    )
    assert by_path == by_file
    assert {found.path.split("/")[0] for found in by_path} == {"kind1"}
    assert by_copy[0].path == "kind1/2.png"
    assert by_copy[1:] == by_path[:2]


def test_publishing_says_that_there_is_no_encoder(run: RunDir, tmp_path: Path) -> None:
    from shoal.publish.publish import publish

    with pytest.raises(RunError, match="has no encoder to publish; expected a run with a backbone"):
        publish(run, tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_given_embeddings_need_no_encoder_of_a_run_that_has_one(pictures: Path, tmp_path: Path) -> None:
    clusterer = ImageClusterer(clusters=3, out=tmp_path / "run").fit(pictures)
    rows = clusterer.transform(pictures)
    write(tmp_path / "x.npy", rows)
    wanted = clusterer.predict(pictures)["cluster"].tolist()
    code = (
        "import sys, numpy as np\n"
        "from shoal import ImageClusterer\n"
        "from shoal.cli import main\n"
        "loaded = ImageClusterer.load('run')\n"
        "found = loaded.predict('pictures', embeddings=np.load('x.npy'))\n"
        "try: main(['assign', 'run', 'pictures', '--embeddings', 'x.npy', '--to', 'x.csv'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print({'openvino', 'torch', 'timm'} & set(sys.modules) or 'none')\n"
        "print(*found['cluster'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["none", " ".join(map(str, wanted))]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_files_whose_names_are_no_text_are_told_and_found_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, folder = os.fsdecode(b"bad\xff.npy"), os.fsdecode(b"dir\xff")
    with (tmp_path / rows).open("wb") as file:
        np.save(file, vectors())
    shutil.move(pictures, folder)
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["cluster", folder, "--embeddings", rows, "--clusters", "3", "--out", "run"])
        assert ended.value.code == 0
        assert "12 embeddings given in bad%FF.npy: row 0" in capsys.readouterr().out
    asked = RunDir.open(tmp_path / "run").read_state()["asked"]
    assert Path(asked["embeddings"]).is_file()
    assert Path(asked["source"][0]).is_dir()
    for words in (["gone\udcff", "--embeddings", rows], [folder, "--embeddings", "gone\udcff.npy"]):
        with pytest.raises(SystemExit):
            main(["cluster", *words])
        assert "gone%FF" in capsys.readouterr().err


def test_a_backbone_may_follow(run: RunDir, pictures: Path, tmp_path: Path) -> None:
    config = ClusterConfig((str(pictures),), clusters="3")
    later = pipeline.run(config, run, pipeline.clustering_stages(open_source(config.source)), Progress())
    assert Model.open(later).dim == 1280
    back = cluster(pictures, vectors(), tmp_path / "run")
    assert files_of(back.root) == files_of(cluster(pictures, vectors(), tmp_path / "fresh").root)
