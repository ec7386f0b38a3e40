"""The user's cache folders: what cannot be written there goes to a temporary folder, and the person is told once."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from pictures import paint
from shoal import cache
from shoal.encoder.convert import TorchMakeable
from shoal.encoder.prepared import prepare
from shoal.errors import CacheError
from shoal.progress import Progress
from shoal.rundir import RunDir


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a process that has kept nothing yet."""
    monkeypatch.setattr(cache, "_stand_in", cache._StandIn())
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that not even root can write: it would lie in a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "file" / "cache"))
    return tmp_path / "file" / "cache"


def kept(text: str) -> Callable[[Path], Path]:
    """Writes `text` as a file of that name, into a folder that need not be there."""

    def make(place: Path) -> Path:
        with cache.writing():
            place.mkdir(parents=True, exist_ok=True)
            (place / text).write_text(text)
        return place / text

    return make


def weights(folder: Path) -> Path:
    """A file of weights of timm's smallest network."""
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def test_what_is_kept_is_found_by_the_next_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "new" / "cache"))
    assert cache.find("thing") is None
    assert cache.keep(kept("thing")) == tmp_path / "new" / "cache" / "thing"
    monkeypatch.setattr(cache, "_stand_in", cache._StandIn())
    assert cache.find("thing") == tmp_path / "new" / "cache" / "thing"


def test_a_cache_that_cannot_be_is_replaced_and_the_person_told_once(
    nowhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = cache.keep(kept("one")), cache.keep(kept("two"))
    assert one.read_text() == "one"
    assert one.parent == two.parent
    assert (cache.find("one"), cache.find("two"), cache.find("three")) == (one, two, None)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{nowhere} cannot be written (Not a directory): ")
    assert "SHOAL_CACHE" in told
    assert "\n" not in told


def test_a_disk_that_runs_full_meanwhile_is_replaced_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "full"))

    def make(place: Path) -> Path:
        with cache.writing():
            if place == tmp_path / "full":
                raise OSError(errno.ENOSPC, "No space left on device")
        return kept("thing")(place)

    first = cache.keep(make)
    assert first.read_text() == "thing"
    assert cache.keep(kept("other")).parent == first.parent
    assert not (tmp_path / "full").exists()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "(No space left on device)" in caplog.text


def test_without_any_room_the_work_fails_in_one_line(nowhere: Path) -> None:
    def make(place: Path) -> Path:
        with cache.writing():
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CacheError, match=r"shoal-cache-.* \(No space left on device\) either; .*TMPDIR"):
        cache.keep(make)


def test_other_troubles_are_not_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))

    def make(place: Path) -> Path:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "weights.pth")

    with pytest.raises(FileNotFoundError):
        cache.keep(make)
    assert caplog.records == []


def test_without_a_home_there_is_no_cache_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("SHOAL_CACHE", "~/cache")
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.chdir(tmp_path)
    cache.keep(kept("thing"))
    assert not (tmp_path / "~").exists()
    assert "(there is no home folder)" in caplog.text


def test_a_cache_that_may_only_be_read_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = str(weights(tmp_path))
    wanted = ("test_resnet", file, "default", "crop", Progress())
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    prepared = prepare(*wanted)
    assert prepared.folder.is_relative_to(tmp_path / "cache")
    monkeypatch.setattr(cache, "why_unwritable", lambda place: "Read-only file system")
    assert prepare(*wanted) == prepared
    other = prepare("test_resnet", file, "default", "squash", Progress())
    assert not other.folder.is_relative_to(tmp_path / "cache")
    assert prepare("test_resnet", file, "default", "squash", Progress()) == other
    assert prepare(*wanted) == prepared


def test_a_model_that_openvino_could_not_write_is_not_taken_for_one_that_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = False

    def write_half(made: TorchMakeable, target: Path) -> None:
        nonlocal full
        full = True
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(TorchMakeable, "convert", write_half)
    monkeypatch.setattr(cache, "why_unwritable", lambda place: "No space left on device" if full else None)
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CacheError, match="No space left on device"):
        prepare("test_resnet", str(weights(tmp_path)), "default", "crop", Progress())
    assert not list(tmp_path.rglob("spec.json"))


# -- the command -------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "temporary").mkdir(exist_ok=True)
    (tmp_path / "file").touch()
    kept_ones = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SHOAL_", "MPL"))}
    return subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**kept_ones, "TMPDIR": str(tmp_path / "temporary"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_home_that_cannot_be_written_costs_one_sentence(tmp_path: Path) -> None:
    paint(tmp_path / "pictures")
    home = str(tmp_path / "file" / "home")
    done = run(tmp_path, "-m", "shoal", "cluster", "pictures", "--clusters", "3", HOME=home)
    assert done.returncode == 0, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if not line.startswith(("Preparing ", "ACC "))]
    assert told.startswith(f"{home}/.cache/shoal cannot be written (Not a directory)")
    assert RunDir(tmp_path / "pictures.shoal").read_state()["stages"]["report"]["state"] == "done"
    assert list((tmp_path / "temporary").iterdir()) == []  # removed at the end
    done = run(tmp_path, "-m", "shoal", "doctor", HOME=home)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [variable in line for variable, line in zip(("SHOAL_CACHE", "HF_HOME", "MPLCONFIGDIR"), failed, strict=True)]
    assert all("cannot be written (Not a directory)" in line for line in failed)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_matplotlib_needs_no_home(tmp_path: Path) -> None:
    draw = (
        "from shoal.report.figures import canvas, png; figure, _ = canvas(2, 2, (0, 0, 1, 1)); print(len(png(figure)))"
    )
    done = run(tmp_path, "-c", draw, HOME=str(tmp_path / "file"), SHOAL_CACHE=str(tmp_path / "cache"))
    assert int(done.stdout) > 100
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"{tmp_path}/file/.config/matplotlib cannot be written (Not a directory)")
    assert "MPLCONFIGDIR" in told
    assert list((tmp_path / "temporary").iterdir()) == []
