"""Atomic writing, the lock, and the run's state."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shoal import atomic, lock
from shoal.cli.making import cluster
from shoal.config import ClusterConfig
from shoal.disk import require_free
from shoal.errors import DiskSpaceError, RunError, RunLockedError
from shoal.process import lives
from shoal.rundir import RunDir, digest_of
from shoal.runfiles import FORMAT_VERSION


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "table.json"
    atomic.write_json(target, {"a": 1})
    with pytest.raises(KeyError), atomic.replacing(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_who_may_read_a_file_does_not_depend_on_what_wrote_it(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "private") as temporary:
        temporary.touch(mode=0o600)
    atomic.write_json(tmp_path / "usual", {})
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_json_is_the_same_bytes_for_the_same_value(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "one", {"b": [1.5, None], "a": "é"})
    atomic.write_json(tmp_path / "two", {"a": "é", "b": [1.5, None]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with run.writing(), pytest.raises(RunLockedError, match=f"process {os.getpid()}"), run.writing():
        pass
    with run.writing():
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_a_dead_owners_lock_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import os, pathlib; from shoal.rundir import RunDir\n"
        f"with RunDir(pathlib.Path({str(tmp_path)!r})).writing(): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert (tmp_path / "lock").exists()
    with RunDir(tmp_path).writing():
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.fixture
def zombie(tmp_path: Path) -> Iterator[int]:
    """A process that was killed while it wrote `tmp_path`, and whose parent has not asked how it ended."""
    script = (
        "import pathlib; from shoal.rundir import RunDir\n"
        f"with RunDir(pathlib.Path({str(tmp_path)!r})).writing(): print(flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it holds the lock
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        yield child.pid


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="no process of this system outlives its end")
def test_a_zombies_lock_is_taken_over(zombie: int, tmp_path: Path) -> None:
    assert json.loads((tmp_path / "lock").read_text())["pid"] == zombie
    assert psutil.Process(zombie).status() == psutil.STATUS_ZOMBIE
    assert lock.writer(tmp_path / "lock") is None
    with RunDir(tmp_path).writing():
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_process_that_nobody_may_look_at_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "status", refuse)
    assert lives(os.getpid(), 0.0)


@pytest.mark.parametrize("change", [{"boot": "another"}, {"started": 1.0}, {"pid": 2**22 + 1}])
def test_a_lock_of_another_boot_or_of_a_reused_pid_is_taken_over(change: dict[str, object], tmp_path: Path) -> None:
    me = lock.Owner.this_process()
    atomic.write_json(
        tmp_path / "lock", {"host": me.host, "boot": me.boot, "pid": me.pid, "started": me.started, **change}
    )
    with RunDir(tmp_path).writing():
        assert json.loads((tmp_path / "lock").read_text())["started"] == me.started


def test_a_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "lock", {"host": "elsewhere", "boot": "b", "pid": 1, "started": 1.0})
    with pytest.raises(RunLockedError, match="process 1 on elsewhere"), RunDir(tmp_path).writing():
        pass


def test_a_torn_lock_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"host": "he')
    with RunDir(tmp_path).writing():
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_neither_holds_nor_releases_the_lock(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with run.writing():
        child = multiprocessing.get_context("fork").Process(target=_leave_block, args=(tmp_path,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert (tmp_path / "lock").exists()


def _leave_block(folder: Path) -> None:
    with pytest.raises(RunLockedError), RunDir(folder).writing():
        pass


def test_a_newer_run_is_refused_with_both_versions(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "run.json", {"format_version": FORMAT_VERSION + 1, "stages": {}})
    with pytest.raises(RunError, match=f"format_version {FORMAT_VERSION + 1}.*reads up to {FORMAT_VERSION}"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stages": {}}', '{"format_version": "x"}'])
def test_an_unreadable_state_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match="not readable"):
        RunDir.open(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a Shoal run"):
        RunDir.open(tmp_path)


def test_an_unfinished_stage_is_named(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "run.json", {"format_version": 1, "stages": {"embed": {"state": "stale"}}})
    with pytest.raises(RunError, match="'embed' is not done"):
        RunDir.open(tmp_path).require("embed")


def test_a_run_that_is_being_written_says_by_whom(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "run.json", {"format_version": 1, "stages": {}})
    atomic.write_json(tmp_path / "lock", {"host": "elsewhere", "boot": "b", "pid": 4711, "started": 1.0})
    with pytest.raises(RunError, match="process 4711 on elsewhere is writing it"):
        RunDir.open(tmp_path).require("embed")


def test_a_full_disk_is_told_before_the_work(tmp_path: Path) -> None:
    require_free(tmp_path / "not" / "there" / "yet", 1, "a test")
    with pytest.raises(DiskSpaceError, match=r"a test needs 1,099,511,627,840 MiB \(64 of them to spare\)"):
        require_free(tmp_path / "not" / "there" / "yet", 2**60, "a test")


def test_digests_tell_values_apart() -> None:
    assert digest_of("a", [1, 2]) == digest_of("a", [1, 2])
    assert digest_of("a", [1, 2]) != digest_of("a", [1], 2)


def test_the_command_that_goes_on_has_every_option(tmp_path: Path) -> None:
    config = ClusterConfig(
        ("/photos of mine",),
        clusters="5-40",
        backbone="/models/my net.onnx",
        metric="euclidean",
        method="kmeans",
        seed=3,
        resize="squash",
        limit=7,
        input_mean=(0.5, 0.25, 0.125),
        input_size=96,
        output="features",
    )
    state = {"format_version": 2, "stages": {}, "asked": config.to_json()}
    (tmp_path / "run.json").write_text(json.dumps(state))
    words = shlex.split(RunDir.open(tmp_path).how_to_cluster())
    context = cluster.make_context("cluster", words[2:])
    options = {
        name: value for name, value in context.params.items() if name not in ("out", "no_report", "ray", "mixed")
    }
    assert words[:2] == ["shoal", "cluster"]
    assert context.params["out"] == tmp_path
    assert ClusterConfig(**options) == config


def test_options_that_nobody_chose_are_not_told(tmp_path: Path) -> None:
    state = {"format_version": 2, "stages": {}, "asked": ClusterConfig(("/photos",)).to_json()}
    (tmp_path / "run.json").write_text(json.dumps(state))
    assert RunDir.open(tmp_path).how_to_cluster() == f"shoal cluster /photos --out {tmp_path}"
