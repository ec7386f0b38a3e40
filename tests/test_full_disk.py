"""A disk that is full, or cannot be written to any more, while a command works: one sentence, and a whole run."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from kills import FULL, READ_ONLY, bury, failing, writes
from pictures import paint
from shoal import atomic, pipeline
from shoal.cli import main
from shoal.config import ClusterConfig
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append, read_log
from shoal.corrections.refit import refit
from shoal.errors import WorkError
from shoal.images.sources import open_source
from shoal.neighbours import stage as neighbours_stage
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.train import decoding
from shoal.train.config import DataConfig

SPREAD = 4  # writes to fail at, besides those around the moment that the work counts
FAULTS = {"full": FULL, "read-only": READ_ONLY}
SENTENCES = {"full": "is full", "read-only": "Read-only file system"}
COMMANDS = {
    "cluster": "cluster {1}/pictures --out {0}/run --clusters 2 --no-report",
    "report": "report {0}/run",
    "evaluate": "evaluate {0}/run",
    "assign": "assign {0}/run {1}/pictures --to {0}/new.csv",
    "csv": "export {0}/run {0}/clusters.csv --to csv",
    "folders": "export {0}/run {0}/sorted --to folders",
    "publish": "publish {0}/run --to {0}/model",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a finished run of them."""
    base = tmp_path_factory.mktemp("made")
    config = ClusterConfig((str(paint(base / "pictures", each=3)),), clusters="3")
    pipeline.run(config, RunDir(base / "run"), pipeline.clustering_stages(open_source(config.source)), Progress())
    return base


def copied(made: Path, target: Path) -> Path:
    """A folder with a copy of the run; the pictures stay where they are."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made / "run", target / "run")
    return target


def give(name: str, base: Path, made: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(COMMANDS[name].format(base, made).split())
    return int(ended.value.code or 0)


def seen(root: Path) -> dict[str, bytes]:
    run = RunDir.open(root)
    assert run.generation is not None
    return {name: run.path(name).read_bytes() for name in run.generation.places}


def moments(made: list[str]) -> list[int]:
    counts = made.index("os.rename run/run.json") if "os.rename run/run.json" in made else len(made) - 1
    return sorted({0, counts, min(counts + 1, len(made) - 1), *range(0, len(made), max(len(made) // SPREAD, 1))})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_in_one_sentence(
    name: str, fault: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = copied(made, tmp_path / "now")
    old = seen(base / "run")
    codes: list[int] = []
    done = writes(base, lambda: codes.append(give(name, base, made)))
    assert codes == [0]
    new = seen(base / "run")
    for write in moments(done):
        base = copied(made, tmp_path / "now")
        capsys.readouterr()
        with failing(base, write, FAULTS[fault]):
            code = give(name, base, made)
        said = capsys.readouterr().err.splitlines()
        files = seen(base / "run")
        assert files == old or set(files) == set(new), done[write]
        if code == 0:  # what was left to do was only tidying
            assert set(files) == set(new), done[write]
            continue
        assert code == 1, done[write]
        lines = [line for line in said if line.startswith("shoal: ")]
        assert len(lines) == 1, said
        assert SENTENCES[fault] in lines[0], done[write]
        assert str(base) in lines[0]
        assert "unexpected" not in lines[0]
        bury(base / "run")  # on a disk that is read only the lock cannot be taken away
        assert give(name, base, made) == 0, done[write]
        assert set(seen(base / "run")) == set(new)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refit_and_an_edit_end_in_one_sentence(fault: str, made: Path, tmp_path: Path) -> None:
    def correct(base: Path) -> RunDir:
        run = RunDir.open(base / "run")
        append(run, lambda log: changes.merge(read_corrected(run), [0, 1]))
        return run

    def apply(base: Path) -> None:
        run = RunDir.open(base / "run")
        refit(run, len(read_log(run)), Progress())

    base = copied(made, tmp_path / "now")
    with failing(base, 1, FAULTS[fault]), pytest.raises(WorkError, match=SENTENCES[fault]):
        correct(base)
    assert not read_log(RunDir.open(base / "run"))
    correct(base)
    old = seen(base / "run")
    done = writes(base, lambda: apply(base))
    new = seen(base / "run")
    for write in moments(done):
        base = copied(made, tmp_path / "now")
        correct(base)
        with failing(base, write, FAULTS[fault]), pytest.raises(WorkError, match=SENTENCES[fault]):
            apply(base)
        assert seen(base / "run") in (old, new), done[write]


def test_what_libraries_say_of_a_full_disk_is_said_as_the_system_does(tmp_path: Path) -> None:
    """safetensors has an error of its own; pyarrow's and Python's own, in the middle of a file, name no file."""
    told = "Error while serializing: I/O error: No space left on device (os error 28)"
    for error in (SafetensorError(told), OSError(errno.ENOSPC, "Error writing bytes to file")):
        with (
            pytest.raises(OSError, match=r"No space left on device: .*/table'") as found,
            atomic.replacing(tmp_path / "table"),
        ):
            raise error
        assert found.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no files")
def test_an_array_that_cannot_be_written_to_its_end_says_why(tmp_path: Path) -> None:
    import resource

    whole = np.arange(12, dtype=np.float16).reshape(3, 4)
    atomic.write_array(tmp_path / "whole.npy", whole)
    np.save(tmp_path / "numpy.npy", whole)
    assert (tmp_path / "whole.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    with atomic.filling_array(tmp_path / "filled.npy", (3, 4), np.float16, -1) as fill:
        fill(np.array([2, 0]), whole[[2, 0]])
        fill(1, whole[1])
    assert (tmp_path / "filled.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/array.npy'"):
            atomic.write_array(tmp_path / "array.npy", np.zeros(100_000))
        with (
            pytest.raises(OSError, match=r"File too large: .*/array.npy'"),
            atomic.filling_array(tmp_path / "array.npy", (100_000,), np.float64),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "array.npy").exists()


@pytest.mark.parametrize("shape", [(3, 4), (5,), (0, 4), (3, 0), (0,)])
def test_an_array_that_nobody_fills_is_of_one_value(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many bytes of it are written at a time."""
    np.save(tmp_path / "numpy.npy", np.full(shape, -1, np.int32))
    for size in (1, 40, 2**20):
        monkeypatch.setattr(atomic, "FILLED_BYTES", size)
        with atomic.filling_array(tmp_path / "filled.npy", shape, np.int32, -1) as fill:
            fill(slice(0, 0), np.empty((0, *shape[1:]), np.int32))
        assert (tmp_path / "filled.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


# -- files that are mapped: Windows neither renames nor removes them ---------------------------------------------------


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were renamed so far; fails if one was mapped then."""
    names, rename = [], Path.replace

    def noting(path: Path, target: Path) -> Path:
        assert not mapped(path)
        names.append(target.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", noting)
    return names


def mapped(path: Path) -> list[str]:
    """What is mapped of a file, or was one when it was removed, as the system lists it."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("the system does not list what is mapped")
    return [line for line in maps.read_text().splitlines() if str(path) in line]


def test_an_array_is_not_mapped_when_it_gets_its_name(tmp_path: Path, renamed: list[str]) -> None:
    with atomic.filling_array(tmp_path / "filled.npy", (3, 4), np.float32) as fill:
        assert mapped(tmp_path)  # the list would tell
        fill(np.arange(3), np.ones((3, 4), np.float32))
    assert renamed == ["filled.npy"]
    with pytest.raises(ValueError, match="closed"):
        fill(0, np.zeros(4, np.float32))
    assert (np.load(tmp_path / "filled.npy") == 1).all()


def test_an_array_is_not_mapped_after_an_error(tmp_path: Path) -> None:
    """Who holds the error holds its frames, and all that these see."""
    with (
        pytest.raises(ValueError, match="broadcast") as found,
        atomic.filling_array(tmp_path / "filled.npy", (3, 4), np.float32) as fill,
    ):
        fill(0, np.zeros(4, np.float32))
        fill(1, np.zeros(7, np.float32))
    assert found.traceback
    assert not mapped(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_file_that_a_stage_makes_is_mapped_when_it_gets_its_name(
    tmp_path: Path, renamed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours found exactly and by pieces, and decoded pictures."""
    config = ClusterConfig((str(paint(tmp_path / "pictures", each=20)),), clusters="3")
    stages = pipeline.clustering_stages(open_source(config.source))
    run_dir = pipeline.run(config, RunDir(tmp_path / "exact"), stages, Progress())
    assert {"ids.npy", "similarity.npy"} <= set(renamed)
    decoding.open_pixels(run_dir, DataConfig(size=12), Progress())
    assert any(name.startswith("pixels-") for name in renamed)
    monkeypatch.setattr(neighbours_stage, "EXACT_UP_TO", 0)
    pipeline.run(config, RunDir(tmp_path / "pieces"), stages, Progress())
    assert "reduced.npy" in renamed
