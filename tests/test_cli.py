"""The command line as a person meets it: whole processes, real images, exit codes, one-line errors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from patience import PATIENCE
from pictures import paint
from shoal.distributed import address
from shoal.doctor import OPTIONAL, State, findings
from shoal.encoder import needs
from shoal.errors import ConfigError

COMMANDS = (
    *("assign", "bench", "browse", "cluster", "demo", "doctor", "evaluate"),
    *("export", "publish", "report", "similar", "train", "undo"),
)


# A run that is interrupted, as by Ctrl-C, when it is about to write its first embeddings. A test run that was itself
# started in the background has SIGINT ignored, and children inherit that.
INTERRUPTED = """
import signal, sys
from shoal.cli import main

def interrupt(event, arguments):
    global coming
    if coming and event == "open" and "embeddings" in str(arguments[0]) and set(str(arguments[1])) & set("wx"):
        coming = False
        signal.raise_signal(signal.SIGINT)

coming = True
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(interrupt)
main()
"""


def shoal(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of painted pictures: (run directory, source)."""
    base = tmp_path_factory.mktemp("finished")
    source = paint(base / "pictures")
    done = shoal("cluster", source, "--clusters", "2-5", "--out", base / "run.shoal")
    assert done.returncode == 0, done.stderr
    return base / "run.shoal", source


def test_a_folder_becomes_clusters_and_a_report(finished: tuple[Path, Path]) -> None:
    run, _ = finished
    clusters = pq.read_table(run / "clusters.parquet").to_pandas()
    truth = clusters["path"].str.split("/").str[0]
    assert len(clusters) == 24
    assert clusters.groupby(truth)["cluster"].nunique().tolist() == [1, 1, 1]
    assert clusters["cluster"].nunique() == 3
    assert clusters["confidence"].between(0, 1).all()
    assert (run / "report" / "index.html").stat().st_size > 10_000
    assert set(pq.read_table(run / "choose_k.parquet")["k"].to_pylist()) == {2, 3, 4, 5}


def test_evaluate_prints_one_json_object(finished: tuple[Path, Path]) -> None:
    done = shoal("evaluate", finished[0], "--json")
    found = json.loads(done.stdout)
    assert (found["n"], found["clusters"], found["acc"], found["nmi"], found["purity"]) == (24, 3, 1.0, 1.0, 1.0)


def test_new_images_are_assigned_and_strangers_unknown(finished: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = finished
    paint(tmp_path / "new", each=2, seed=9)
    (tmp_path / "new" / "kind0" / "broken.jpg").write_bytes(b"\xff\xd8\xff no")
    done = shoal("assign", run, tmp_path / "new", "--to", tmp_path / "new.csv")
    assert done.returncode == 0, done.stderr
    assert "skipped kind0/broken.jpg" in done.stderr
    lines = [line.split(",") for line in (tmp_path / "new.csv").read_text().splitlines()]
    assert lines[0][:4] == ["path", "cluster", "confidence", "unknown"]
    by_kind = {line[0].split("/")[0]: line[1] for line in lines[1:]}
    assert len(lines) == 7
    assert len(set(by_kind.values())) == 3


def test_assign_overwrites_no_file(finished: tuple[Path, Path], tmp_path: Path) -> None:
    run, source = finished
    mine = tmp_path / "mine.csv"
    mine.write_text("path,my notes\n")
    done = shoal("assign", run, source, "--to", mine)
    assert (done.returncode, mine.read_text()) == (2, "path,my notes\n")
    assert f"--to has value {str(mine)!r}, which is there already" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv"]
    for _ in range(2):  # the same again is no other
        assert shoal("assign", run, source, "--to", tmp_path / "new.csv").returncode == 0
    before = (tmp_path / "new.csv").read_bytes()
    done = shoal("assign", run, source / "kind1", "--to", tmp_path / "new.csv")
    assert (done.returncode, (tmp_path / "new.csv").read_bytes()) == (2, before)
    assert "which holds another assignment" in done.stderr


def test_similar_lists_the_same_kind_first(finished: tuple[Path, Path]) -> None:
    run, source = finished
    done = shoal("similar", run, source / "kind1" / "3.png", "-n", "5")
    paths = [line.split()[-1] for line in done.stdout.splitlines()[1:]]
    assert len(paths) == 5
    assert all(path.startswith("kind1/") for path in paths)
    assert "kind1/3.png" not in paths


def test_the_same_command_again_changes_nothing(finished: tuple[Path, Path]) -> None:
    run, source = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    done = shoal("cluster", source, "--clusters", "2-5", "--out", run)
    assert done.returncode == 0
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed <= {"images.parquet", "labels.parquet"}


def test_a_report_of_earlier_clusters_is_not_named(tmp_path: Path) -> None:
    paint(tmp_path / "pictures", each=4)
    assert "Report:" in shoal("cluster", "pictures", "--clusters", "3", cwd=tmp_path).stdout
    assert "Report:" not in shoal("cluster", "pictures", "--clusters", "2", "--no-report", cwd=tmp_path).stdout


def test_another_source_in_the_same_run_is_refused(finished: tuple[Path, Path], tmp_path: Path) -> None:
    paint(tmp_path / "other")
    done = shoal("cluster", tmp_path / "other", "--out", finished[0])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "expected the same source" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("cluster", "no-such-folder"), 2, "no-such-folder"),
        (("cluster", "."), 1, "no usable image"),
        (("cluster", ".", "--clusters", "1"), 2, "--clusters has value '1'"),
        (("cluster", ".", "--features", "pooled"), 2, "pooled"),
        (("cluster", ".", "--seed", "-1"), 2, "--seed has value -1"),
        (("cluster", ".", "--backbone", "no_such_net", "--weights", "w.pth"), 2, "w.pth"),
        (("cluster", ".", "--colour", "red"), 2, "--colour"),
        (("cluster", ".", "--out", ""), 2, "--out has value '.', which holds the source"),
        (("cluster", "empty", "--out", "."), 2, "--out has value '.', which holds the source"),
        (("cluster", ".", "--out", "a-file"), 2, "--out has value 'a-file', which is a file"),
        (("cluster",), 2, "SOURCE"),
        (("paint",), 2, "paint"),
        (("report", "nothing.shoal"), 2, "not a Shoal run"),
        (("assign", "nothing.shoal", "."), 2, "not a Shoal run"),
        (("evaluate", "nothing.shoal"), 2, "not a Shoal run"),
        (("browse", "nothing.shoal"), 2, "not a Shoal run"),
        (("export", "nothing.shoal", "--to", "csv", "x.csv"), 2, "not a Shoal run"),
        (("publish", "nothing.shoal", "--to", "model"), 2, "not a Shoal run"),
        (("similar", "nothing.shoal", "x.jpg"), 2, "not a Shoal run"),
    ],
)
def test_wrong_requests_end_with_one_line_and_their_code(
    arguments: tuple[str, ...], code: int, named: str, tmp_path: Path
) -> None:
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "empty").mkdir()
    done = shoal(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert code == 1 or {path.name for path in tmp_path.iterdir()} == {"a-file", "empty"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--backbone", "resnet5"), "did you mean resnet50"),
        (("--backbone", "test_resnet"), "could not be fetched from the hub"),
        (("--device", "mps" if sys.platform == "linux" else "cuda"), "this machine has only"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_refused_before_any_image_is_read(
    options: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    paint(tmp_path / "pictures", each=2)
    done = shoal("cluster", "pictures", *options, cwd=tmp_path)
    told = [line for line in done.stderr.splitlines() if not line.startswith("Preparing ")]
    assert (done.returncode, len(told)) == (2, 1), done.stderr  # no line of the hub's client, no second try
    assert named in told[0]
    assert not (tmp_path / "pictures.shoal").exists()


def test_more_clusters_than_images_is_work_that_fails(tmp_path: Path) -> None:
    paint(tmp_path / "few", each=1)
    done = shoal("cluster", tmp_path / "few", "--clusters", "10", "--out", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--clusters asks for 10 clusters, but the source has only 3 usable images" in done.stderr
    (left,) = (tmp_path / "run").rglob("draft.json")
    assert list(json.loads(left.read_bytes())["records"]) == ["index"]  # nothing was embedded for it
    done = shoal("evaluate", tmp_path / "run")
    assert f"finish it with: shoal cluster {tmp_path / 'few'} --clusters 10 --out {tmp_path / 'run'}" in done.stderr


def test_a_command_that_fails_before_it_has_made_anything_leaves_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "pictures", each=1)
    np.save(tmp_path / "short.npy", np.ones((2, 8), np.float32))
    for words in (("empty",), ("pictures", "--embeddings", "short.npy")):
        done = shoal("cluster", *words, "--out", "run.shoal", cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert not (tmp_path / "run.shoal").exists()
    (tmp_path / "mine.shoal").mkdir()
    assert shoal("cluster", "empty", "--out", "mine.shoal", cwd=tmp_path).returncode == 1
    assert (tmp_path / "mine.shoal").is_dir()  # it was there before


def test_an_error_tells_a_name_as_it_is(tmp_path: Path) -> None:
    assert "two  blanks does not exist" in shoal("cluster", "two  blanks", cwd=tmp_path).stderr


def test_debug_shows_a_traceback(tmp_path: Path) -> None:
    done = shoal("cluster", "no-such-folder", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = shoal(command, "--help")
    assert done.returncode == 0
    assert command in ("demo", "doctor") or f"shoal {command} " in done.stdout


def test_the_doctor_and_the_option_say_the_same_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(address, "find_spec", lambda name: None if name in ("ray", "grpc") else known(name))
    with pytest.raises(ConfigError, match="which are not installed: ") as refused:
        address.check("auto")
    how = str(refused.value).partition("not installed: ")[2]
    assert (State.ABSENT, f"ray: not installed; {how} adds --ray: many machines") in findings()


def test_the_doctor_marks_what_is_absent_and_optional_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "is_there", lambda package: package == "s3fs")
    told = {line.partition(":")[0]: state for state, line in findings()}
    assert {told[package] for package in OPTIONAL if package != "s3fs"} == {State.ABSENT}
    assert told["s3fs"] is State.WELL
    assert State.FAILED not in told.values()


def test_the_default_run_name_is_the_sources(tmp_path: Path) -> None:
    paint(tmp_path / "pictures", each=3)
    assert shoal("cluster", "pictures", "--no-report", cwd=tmp_path).returncode == 0
    assert (tmp_path / "pictures.shoal" / "run.json").is_file()
    assert not (tmp_path / "pictures.shoal" / "report").exists()


def test_an_interrupted_run_says_so_and_goes_on(tmp_path: Path) -> None:
    paint(tmp_path / "pictures", each=10)
    command = [sys.executable, "-c", INTERRUPTED, "cluster", "pictures", "--no-report", "--clusters", "3"]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith("shoal: interrupted")
    assert not (tmp_path / "pictures.shoal" / "clusters.parquet").exists()
    assert shoal("cluster", "pictures", "--no-report", "--clusters", "3", cwd=tmp_path).returncode == 0
