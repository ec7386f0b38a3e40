"""A run is one whole at every moment: what readers see, what is shown at the root, what stays and what goes."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shoal.cluster.stage
import shoal.embed.stage
from drafted import run_stage
from kills import FULL, count_writes, failing
from pictures import paint
from shoal import draft as drafts
from shoal import generations, pipeline, plain, records
from shoal.browse.site import OpenedRun
from shoal.config import ClusterConfig
from shoal.corrections.corrected import read_corrected
from shoal.draft import Draft
from shoal.embeddings import EmbeddingStore
from shoal.errors import DiskSpaceError, NoImagesError, RunError
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult
from shoal.runfiles import read_run_json, write_run_json

KINDS, EACH = 3, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "pictures"
    paint(folder, each=EACH)
    return folder


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "run.shoal"
    cluster(source, root, report=True)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run.shoal"))


def cluster(source: Path, root: Path, report: bool = False, **options: str) -> RunDir:
    config = ClusterConfig((str(source),), **{"clusters": "3", **options})  # type: ignore[arg-type]
    run = pipeline.run(config, RunDir(root), pipeline.clustering_stages(open_source(config.source)), Progress())
    return pipeline.run(config, RunDir(root), pipeline.report_stages(), Progress()) if report else run


def write(name: str, text: str) -> Callable[[ClusterConfig, RunDir, Progress], StageResult]:
    def stage(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        path = run_dir.new(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return StageResult(text)

    return stage


def put(root: Path, stage: str, name: str, text: str) -> None:
    run_stage(root, stage, write(name, text), ClusterConfig(("pictures",)))


def seen_at(root: Path) -> dict[str, bytes]:
    """What a program from outside finds, but for run.json."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    hidden = ("generations", "run.json", "lock.guard", "cache")
    return {name: path.read_bytes() for name, path in files.items() if name.split("/")[0] not in hidden}


def stored_files(root: Path) -> list[str]:
    folder = root / generations.FOLDER
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_reader_keeps_its_generation_and_its_files(tmp_path: Path) -> None:
    put(tmp_path, "a", "a.txt", "old a")
    put(tmp_path, "b", "report/b.txt", "b")
    old = RunDir.open(tmp_path)
    put(tmp_path, "a", "a.txt", "new a")
    new = RunDir.open(tmp_path)
    assert [run.path("a.txt").read_text() for run in (old, new)] == ["old a", "new a"]
    assert old.path("report/b.txt") == new.path("report/b.txt")  # shared, not copied
    assert [run.read_state()["stages"]["a"]["digest"] for run in (old, new)] == ["old a", "new a"]
    del old
    gc.collect()
    put(tmp_path, "c", "c.txt", "c")
    assert "000001/a.txt" not in stored_files(tmp_path)
    assert new.path("a.txt").read_text() == "new a"


def test_what_is_not_committed_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, "a", "a.txt", "old")
    with pytest.raises(KeyError), drafts.writing(tmp_path) as draft:
        draft.begin_stage()
        write("a.txt", "new")(ClusterConfig(("pictures",)), draft.run_dir, Progress())
        raise KeyError
    del draft  # it holds what it began with
    assert RunDir.open(tmp_path).path("a.txt").read_text() == (tmp_path / "a.txt").read_text() == "old"
    put(tmp_path, "b", "b.txt", "b")
    assert len(stored_files(tmp_path)) == 3  # two files and a record: nothing is left of the one that failed


def test_a_generation_that_is_replaced_while_it_is_opened_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a", "a.txt", "old")
    real = generations.hold
    has_come = []

    def hold(root: Path, number: int) -> object:
        if not has_come:
            has_come.append(True)
            put(tmp_path, "a", "a.txt", "new")
        return real(root, number)

    monkeypatch.setattr(generations, "hold", hold)
    assert RunDir.open(tmp_path).path("a.txt").read_text() == "new"


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a", "a.txt", "old")
    (tmp_path / "generations" / "000001.json").unlink()
    with pytest.raises(RunError, match=r"is not whole: .*000001\.json is missing"):
        RunDir.open(tmp_path)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    put(tmp_path, "a", "a.txt", "old")
    with pytest.raises(RunError, match="open for reading"):
        RunDir.open(tmp_path).new("a.txt")


# -- the root ----------------------------------------------------------------------------------------------------------


def test_the_root_shows_what_is_current_and_leaves_what_is_others(root: Path, source: Path) -> None:
    mine = {"notes.txt": b"mine", "report/mine.html": b"mine", "model/.draft.999999.x.tmp": b"mine"}
    for name, data in mine.items():
        (root / name).write_bytes(data)
    run = cluster(source, root, clusters="4")
    assert run.generation is not None
    current = {name: run.path(name).read_bytes() for name in run.generation.places if not name.startswith("own/")}
    assert seen_at(root) == current | mine
    assert "report/index.html" not in current  # it was of other clusters
    assert run.stage("report") is None


def test_what_a_kill_kept_from_the_root_is_shown_when_the_page_opens(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(draft: Draft) -> RunDir:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Draft, "_after_commit", killed)
        cluster(source, root, clusters="4")
    run = RunDir.open(root)
    assert (root / "clusters.parquet").read_bytes() != run.clusters.read_bytes()
    OpenedRun.open(root)
    assert (root / "clusters.parquet").read_bytes() == run.clusters.read_bytes()


def test_where_there_are_no_hard_links_the_root_has_copies(
    source: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*names: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    root = tmp_path / "run.shoal"
    cluster(source, root, report=True)
    found, expected = seen_at(root), seen_at(made)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} <= {
        "report/index.html"
    }  # it names the run's place
    before = {path: path.stat().st_mtime_ns for path in root.glob("*.parquet")}
    cluster(source, root, report=True)
    assert {path: path.stat().st_mtime_ns for path in root.glob("*.parquet")} == before
    changed = cluster(source, root, clusters="4")
    assert (root / "clusters.parquet").read_bytes() == changed.clusters.read_bytes()


def test_without_locks_a_replaced_generation_stays_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "_lock", lambda descriptor, exclusively: None)
    put(tmp_path, "a", "a.txt", "old")
    put(tmp_path, "a", "a.txt", "new")
    assert "000001/a.txt" in stored_files(tmp_path)
    long_ago = generations.UNLOCKED_SECONDS + 1
    record = tmp_path / "generations" / "000001.json"
    os.utime(record, (record.stat().st_atime, record.stat().st_mtime - long_ago))
    put(tmp_path, "b", "b.txt", "b")
    assert "000001/a.txt" not in stored_files(tmp_path)


def test_the_same_again_makes_nothing_new(root: Path, source: Path) -> None:
    cluster(source, root, report=True)
    before, files = RunDir.open(root).generation, stored_files(root)
    times = {path: path.stat().st_mtime_ns for path in root.glob("*.parquet")}
    assert cluster(source, root, report=True).generation == before
    assert stored_files(root) == files
    assert {path: path.stat().st_mtime_ns for path in root.glob("*.parquet")} == times


@pytest.mark.parametrize("name", ["notes.txt", "report", "lock.txt", ".draft.999999.x.tmp"])
def test_a_folder_that_is_somebody_elses_is_refused_untouched(source: Path, tmp_path: Path, name: str) -> None:
    site = tmp_path / "mysite"
    (site / name).mkdir(parents=True)
    with pytest.raises(RunError, match=f"is no run and holds '{name}'"):
        cluster(source, site)
    assert [path.name for path in site.iterdir()] == [name]


@pytest.mark.parametrize(
    "moment", [(), ("lock",), ("lock", "lock.guard"), ("lock.guard", "lock.part", "run.json.part"), ("generations",)]
)
def test_a_run_killed_at_its_first_moment_goes_on(tmp_path: Path, moment: tuple[str, ...]) -> None:
    for name in moment:
        (tmp_path / name).mkdir() if name == "generations" else (tmp_path / name).write_text("{")
    put(tmp_path, "a", "a.txt", "a")
    assert RunDir.open(tmp_path).path("a.txt").read_text() == "a"


def test_a_run_json_of_something_else_is_refused_untouched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"scripts": {"start": "node"}}')
    with pytest.raises(RunError, match="not readable as a run's state"):
        cluster(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


# -- what is current ---------------------------------------------------------------------------------------------------


def test_a_changed_run_that_stops_half_way_leaves_the_old_one_whole_and_goes_on(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedded with other features, and killed before the clusters: encoder and clusters still belong together."""
    old = seen_at(root)
    with monkeypatch.context() as patched:
        patched.setattr(shoal.cluster.stage, "run", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cluster(source, root, features="logits")
    run = RunDir.open(root)
    assert seen_at(root) == old
    assert run.stage("embed")["facts"]["dim"] == 1280  # type: ignore[index]
    model = Model.open(run, "cpu")
    features = EmbeddingStore.open(run.embeddings).read(np.arange(3))
    assert model.clusters.assign(features).cluster.tolist() == read_corrected(run).cluster[:3].tolist()
    with monkeypatch.context() as patched:
        patched.setattr(shoal.embed.stage, "run", lambda *given: pytest.fail("it was done"))
        changed = cluster(source, root, features="logits")
    assert EmbeddingStore.open(changed.embeddings).dim == 1000
    assert Model.open(changed, "cpu").dim == 1000


def test_an_unfinished_draft_outlives_what_else_is_done_with_the_run(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(shoal.cluster.stage, "run", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cluster(source, root, features="logits")
    config = ClusterConfig((str(source),), clusters="3")
    pipeline.run(config, RunDir(root), pipeline.report_stages(again=True), Progress())
    monkeypatch.setattr(shoal.embed.stage, "run", lambda *given: pytest.fail("it was done"))
    assert EmbeddingStore.open(cluster(source, root, features="logits").embeddings).dim == 1000


def test_the_map_stays_while_the_images_lie_where_they_lay(root: Path, source: Path) -> None:
    before = RunDir.open(root).map
    run = cluster(source, root, clusters="4", method="kmeans")
    assert run.map == before
    assert cluster(source, root, metric="euclidean").stage("map") is None


def test_files_that_somebody_deleted_are_made_again(root: Path, source: Path) -> None:
    before = seen_at(root)
    run = RunDir.open(root)
    for path in (run.clusters, run.neighbours / "ids.npy", root / "map.parquet", root / "choose_k.parquet"):
        path.unlink()
    cluster(source, root, report=True)
    assert seen_at(root) == before


def test_a_duplicate_that_comes_later_has_its_row(source: Path, tmp_path: Path) -> None:
    folder, root = tmp_path / "pictures", tmp_path / "run.shoal"
    shutil.copytree(source, folder)
    cluster(folder, root)
    original = next(folder.rglob("*.png"))
    shutil.copy(original, folder / "copy.png")
    rows = cluster(folder, root).read_clusters(["path", "cluster"]).to_pylist()
    by_path = {row["path"]: row["cluster"] for row in rows}
    assert by_path["copy.png"] == by_path[original.relative_to(folder).as_posix()]
    assert len(rows) == KINDS * EACH + 1


def test_a_source_that_suddenly_lists_nothing_leaves_the_run_as_it_was(source: Path, tmp_path: Path) -> None:
    folder, root = tmp_path / "pictures", tmp_path / "run.shoal"
    shutil.copytree(source, folder)
    cluster(folder, root)
    before = seen_at(root)
    for kind in folder.iterdir():
        shutil.rmtree(kind)
    with pytest.raises(NoImagesError, match=f"{KINDS * EACH} vanished"):
        cluster(folder, root)
    assert seen_at(root) == before
    assert RunDir.open(root).stage("index")["facts"]["ok"] == KINDS * EACH  # type: ignore[index]


def test_of_a_first_run_without_a_usable_image_the_reasons_are_kept(tmp_path: Path) -> None:
    folder, root = tmp_path / "pictures", tmp_path / "run.shoal"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    with pytest.raises(NoImagesError):
        cluster(folder, root)
    assert records.read_table(root / "images.parquet")["reason"].to_pylist() == ["not an image (.txt)"]
    with pytest.raises(
        RunError, match=r"its stage 'cluster' is not done; finish it with: shoal cluster .*pictures --clusters 3 --out"
    ):
        RunDir.open(root).require("cluster")
    paint(folder, each=3)
    assert cluster(folder, root).read_clusters().num_rows == 9


# -- runs without generations ------------------------------------------------------------------------------------------


def test_a_run_of_before_generations_is_read_and_then_written_to(root: Path, source: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.shoal"
    plain.copy(RunDir.open(root), older)
    shutil.rmtree(older / "own")
    state = read_run_json(older)
    for record in state["stages"].values():
        del record["inputs"], record["parts"]
    state["stages"].pop("images")
    write_run_json(older, {**state, "format_version": 1})
    before, files = read_corrected(RunDir.open(older)), seen_at(older)
    assert before.digest == read_corrected(RunDir.open(root)).digest
    assert Model.open(older, "cpu").dim == 1280
    put(older, "mine", "mine.txt", "x")
    run = RunDir.open(older)
    assert run.generation is not None
    assert read_corrected(run).digest == before.digest
    assert seen_at(older) == files | {"mine.txt": b"x"}
    assert cluster(source, older).stage("embed")["seconds"] == state["stages"]["embed"]["seconds"]  # type: ignore[index]


def test_a_copy_is_a_run(root: Path, tmp_path: Path) -> None:
    run = RunDir.open(root)
    plain.copy(run, tmp_path / "copy")
    assert seen_at(tmp_path / "copy").keys() - seen_at(root).keys() == {"own/failures.parquet", "own/listing.parquet"}
    assert "generation" not in json.loads((tmp_path / "copy" / "run.json").read_text())
    assert read_corrected(RunDir.open(tmp_path / "copy")).digest == read_corrected(run).digest


@pytest.mark.parametrize("has_generations", [True, False])
def test_a_copy_is_whole_or_not_there(has_generations: bool, root: Path, tmp_path: Path) -> None:
    """Whichever file the disk is full at; then the same copy can be made."""
    if not has_generations:
        plain.copy(RunDir.open(root), tmp_path / "older")
        root = tmp_path / "older"
    run, places = RunDir.open(root), tmp_path / "copies"
    assert (run.generation is not None) == has_generations
    places.mkdir()
    count = count_writes(places, lambda: plain.copy(run, places / "counted"))
    whole = seen_at(places / "counted")
    assert count > len(whole)
    for write in {*range(0, count, count // 5), count - 1}:
        with failing(places, write, FULL), pytest.raises(DiskSpaceError, match=f"{places / 'copy'} is full"):
            plain.copy(run, places / "copy")
        assert [path.name for path in places.iterdir()] == ["counted"]
    plain.copy(run, places / "copy")
    assert seen_at(places / "copy") == whole
