"""Nothing is lost: a run killed at any write is all old or all new, and the same call again ends as if it never was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kills import bury, count_writes, kill, writes
from pictures import paint
from shoal import draft as drafts
from shoal import generations, pipeline
from shoal.config import ClusterConfig
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.edit import REFIT
from shoal.corrections.log import append, read_log
from shoal.corrections.model import load_model
from shoal.corrections.refit import refit
from shoal.demo import demo_images
from shoal.embeddings import PART_ROWS, EmbeddingStore
from shoal.errors import RunError
from shoal.evaluate.evaluate import evaluate, keep
from shoal.images.sources import open_source
from shoal.pipeline import Stage
from shoal.progress import Progress
from shoal.relink import relink
from shoal.rundir import RunDir, StageResult, digest_of

Work = Callable[[], object]
Files = dict[str, bytes]
OWN = ("generations", "run.json", "run.json.part", "lock", "lock.part", "lock.guard", "edits.lock")  # no finished file
TOOK = re.compile(rb"<caption>Seconds</caption>.*?</tbody>", re.DOTALL)  # a report tells how long things took
SPREAD = 5  # writes of a long work to die at, besides those around the moment it counts


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead process has written is there for others; only the machine's own death would need more."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def seen(root: Path) -> Files | None:
    """All files of a run as its readers see them; None if there are none yet."""
    try:
        run = RunDir.open(root)
    except RunError:
        return None
    if run.generation is None:
        return None
    return {name: TOOK.sub(b"", run.path(name).read_bytes()) for name in run.generation.places}


def shown(root: Path) -> Files:
    """What programs from outside see."""
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in OWN]
    return {path.relative_to(root).as_posix(): TOOK.sub(b"", path.read_bytes()) for path in files}


def visible(files: Files) -> Files:
    return {name: data for name, data in files.items() if not name.startswith(generations.OWN)}


def require_no_leftovers(root: Path) -> None:
    """Under generations/ there is the current one, with what it keeps, and nothing else."""
    generation = RunDir.open(root).generation
    assert generation is not None
    places = [*generation.files.values(), *generation.kept.values()]
    wanted = {generations.stored(root, name, number) for of_one in places for name, number in of_one.items()}
    wanted.add(generations.record_of(root, generation.number))
    assert {path for path in (root / generations.FOLDER).rglob("*") if path.is_file()} == wanted
    assert not (root / "lock").exists()


# -- every write, of stages that only write ----------------------------------------------------------------------------

# What each stage leaves: changed, the same, taken away and new from the first to the second.
FIRST = {
    "index": {"own/listing.parquet": "1", "labels.parquet": "1"},
    "embed": {"embeddings/part-00000.npy": "1", "model/encoder.safetensors": "same", "own/failures.parquet": "1"},
    "cluster": {"clusters.parquet": "1", "model/clusters.json": "1", "levels.parquet": "1"},
    "report": {"report/index.html": "1"},
}
SECOND = {
    "index": {"own/listing.parquet": "2"},
    "embed": {"embeddings/part-00000.npy": "2", "model/encoder.safetensors": "same", "own/failures.parquet": "1"},
    "cluster": {"clusters.parquet": "2", "model/clusters.json": "2", "sweep.parquet": "2"},
}


def write_all(root: Path, stages: dict[str, dict[str, str]]) -> None:
    """Run stages that write such files, from the start, and make them current."""

    def stage(name: str, files: dict[str, str], after: tuple[str, ...]) -> Stage:
        def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
            for file, text in files.items():
                run_dir.new(file).parent.mkdir(parents=True, exist_ok=True)
                run_dir.new(file).write_text(text)
            return StageResult(digest_of(files))

        return Stage(name, run, lambda config: files, after)

    names = list(stages)
    chain = [stage(name, files, tuple(names[:number][-1:])) for number, (name, files) in enumerate(stages.items())]
    with drafts.writing(root, from_start=True) as draft:
        pipeline.advance(draft, ClusterConfig(("nowhere",)), chain, Progress())
        draft.commit()


def bytes_of(stages: dict[str, dict[str, str]]) -> Files:
    return {name: text.encode() for files in stages.values() for name, text in files.items()}


@pytest.mark.parametrize("torn", [False, True], ids=["before", "torn"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "changed"])
def test_a_death_at_any_write_leaves_all_old_or_all_new(is_first: bool, torn: bool, tmp_path: Path) -> None:
    old, new = (None, FIRST) if is_first else (FIRST, SECOND)
    allowed = [None if old is None else bytes_of(old), bytes_of(new)]

    def start(name: str) -> Path:
        root = tmp_path / name
        if old is not None:
            write_all(root, old)
        return root

    root = start("whole")
    count = count_writes(root, lambda: write_all(root, new))
    assert shown(root) == visible(bytes_of(new))
    for write in range(count):
        root = start(f"killed-{write}")
        kill(root, write, lambda root=root: write_all(root, new), torn=torn)
        bury(root)
        assert seen(root) in allowed, f"write {write}"
        for name, data in shown(root).items():
            assert data in [files[name] for files in allowed if files and name in files], f"write {write}: {name}"
        write_all(root, new)
        assert seen(root) == bytes_of(new), f"write {write}"
        assert shown(root) == visible(bytes_of(new)), f"write {write}"
        require_no_leftovers(root)


def test_who_dies_twice_ends_as_well(tmp_path: Path) -> None:
    write_all(tmp_path / "counted", FIRST)
    count = count_writes(tmp_path / "counted", lambda: write_all(tmp_path / "counted", SECOND))
    for first in range(0, count, 9):
        for second in range(0, 12, 4):
            root = tmp_path / f"{first}-{second}"
            write_all(root, FIRST)
            for write, stages in ((first, SECOND), (second, FIRST)):  # and changes their mind in between
                kill(root, write, lambda root=root, stages=stages: write_all(root, stages))
                bury(root)
                assert seen(root) in (bytes_of(FIRST), bytes_of(SECOND))
            write_all(root, SECOND)
            assert seen(root) == bytes_of(SECOND)
            assert shown(root) == visible(bytes_of(SECOND))
            require_no_leftovers(root)


def test_what_is_read_stays_until_nobody_reads_it(tmp_path: Path) -> None:
    write_all(tmp_path, FIRST)
    reader = RunDir.open(tmp_path)
    for stages in (SECOND, FIRST, SECOND):
        write_all(tmp_path, stages)
        assert {name: reader.path(name).read_bytes() for name in bytes_of(FIRST)} == bytes_of(FIRST)
    del reader
    write_all(tmp_path, FIRST)
    require_no_leftovers(tmp_path)


# -- real stages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A run's folder, and its source beside it."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "run"

    @property
    def pictures(self) -> Path:
        return self.base / "pictures"

    def cluster(self, clusters: str = "3") -> None:
        config = ClusterConfig((str(self.pictures),), clusters=clusters)
        pipeline.run(config, RunDir(self.root), pipeline.clustering_stages(open_source(config.source)), Progress())

    def report(self) -> None:
        config = ClusterConfig((str(self.pictures),))
        pipeline.run(config, RunDir(self.root), pipeline.report_stages(), Progress())

    def keep_evaluation(self) -> None:
        keep(self.root, evaluate(RunDir.open(self.root), "folders"))

    def change_images(self) -> None:
        (self.pictures / "kind0" / "0.png").unlink()
        new = (paint(self.base / "more", each=1, seed=5) / "kind1" / "0.png").rename(
            self.pictures / "kind1" / "new.png"
        )
        os.utime(new, (10**9, 10**9))

    def correct(self) -> None:
        run = RunDir.open(self.root)
        append(run, lambda log: changes.merge(read_corrected(run), [0, 1]))

    def refit(self) -> None:
        """Apply the corrections, if that is not done."""
        run = RunDir.open(self.root)
        if read_log(run)[-1].op != REFIT:
            refit(run, len(read_log(run)), Progress())
        else:  # whoever writes next finishes what programs from outside see
            with drafts.writing(self.root):
                pass

    def move(self) -> None:
        self.pictures.rename(self.base / "moved")

    def relink(self) -> None:
        relink(self.root, (str(self.base / "moved"),), Progress())


Step = Callable[[Place], None]
WORKS: dict[str, tuple[list[Step], Step]] = {
    "first run": ([], Place.cluster),
    "another K": ([Place.cluster], lambda place: place.cluster("2")),
    "other images": ([Place.cluster, Place.change_images], Place.cluster),
    "report": ([Place.cluster], Place.report),
    "report of other clusters": ([Place.cluster, Place.report, lambda place: place.cluster("2")], Place.report),
    "evaluate": ([Place.cluster], Place.keep_evaluation),
    "refit": ([Place.cluster, Place.correct], Place.refit),
    "relink": ([Place.cluster, Place.move], Place.relink),
}


@pytest.fixture
def place(tmp_path: Path) -> Callable[[list[Step]], Place]:
    """Makes a place, always at the same path, for a run tells where its source is."""
    made = 0

    def make(before: list[Step]) -> Place:
        nonlocal made
        at = Place(tmp_path / "now")
        if at.base.exists():
            at.base.rename(tmp_path / f"earlier-{made}")
            made += 1
        paint(at.pictures, each=3)
        for file in at.pictures.rglob("*.png"):
            os.utime(file, (10**9, 10**9))
        for step in before:
            step(at)
        return at

    return make


@pytest.mark.parametrize("name", WORKS)
def test_a_death_in_the_middle_of_real_work(name: str, place: Callable[[list[Step]], Place]) -> None:
    before, work = WORKS[name]
    at = place(before)
    old = seen(at.root)
    made = writes(at.root, lambda: work(at))
    new = seen(at.root)
    assert new is not None
    counts = made.index("os.rename run.json") if old is not None else len(made) - made[::-1].index("os.rename run.json")
    last = len(made) - 1
    moments = {*range(counts - 2, counts + 3), *range(0, last, max(last // SPREAD, 1)), last}
    for write in sorted(moment for moment in moments if 0 <= moment <= last):
        at = place(before)
        kill(at.root, write, lambda at=at: work(at))
        bury(at.root)
        now = seen(at.root)
        assert now in (old, new), f"before write {write}, {made[write]}"
        if now is not None:
            require_one_set(at.root)
        work(at)
        assert seen(at.root) == new, f"after write {write}, {made[write]}"
        assert visible(new).items() <= shown(at.root).items()
        require_one_set(at.root)


def require_one_set(root: Path) -> None:
    """Clusters, images, embeddings, model and edits belong together."""
    run = RunDir.open(root)
    if run.stage("cluster") is None:
        return
    corrected = read_corrected(run)
    assert set(corrected.ids.tolist()) <= set(run.read_images(["id"])["id"].to_pylist())
    assert EmbeddingStore.open(run.embeddings).dim == load_model(run.model).model.space.dim
    assert not corrected.conflicts


# -- a real process ----------------------------------------------------------------------------------------------------

DIES = """
import os, signal, sys
from shoal.cli import main
from shoal.embed.parts import PartsWriter
close = PartsWriter._close
def close_and_die(self, part):
    close(self, part)
    os.kill(os.getpid(), signal.SIGKILL)
PartsWriter._close = close_and_die
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_killed_between_two_parts_embeds_only_the_other(tmp_path: Path) -> None:
    def words(run: Path) -> list[str]:
        limit = str(PART_ROWS + 36)
        return ["cluster", str(demo_images()), "--out", str(run), "--limit", limit, "--clusters", "8", "--no-report"]

    def promised(run: Path) -> Files:
        names = ("embeddings/", "neighbours/", "clusters.parquet", "choose_k.parquet")
        return {name: data for name, data in shown(run).items() if name.startswith(names)}

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    dead = subprocess.run([sys.executable, "-c", DIES, *words(killed)], capture_output=True, check=False, timeout=300)
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    for run in (killed, whole):
        subprocess.run([sys.executable, "-m", "shoal", *words(run)], check=True, capture_output=True, timeout=300)
    embedded = [RunDir.open(run).stage("embed")["facts"]["embedded_now"] for run in (killed, whole)]
    assert embedded == [36, PART_ROWS + 36]
    assert promised(killed) == promised(whole)
    assert not list(killed.rglob("*.tmp"))
