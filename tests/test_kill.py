"""Nothing is lost: a run killed with SIGKILL in every stage, and resumed each time, ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.demo import demo_images

OPTIONS = ("--limit", "1060", "--clusters", "8-12")  # more images than one part holds
PROMISED = ("embeddings", "neighbours", "clusters.parquet", "choose_k.parquet")
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "index": lambda run: (run / "lock").exists(),
    "embed": lambda run: (run / "images.parquet").exists(),
    "embed, one part done": lambda run: (run / "embeddings" / "part-00000.json").exists(),
    "neighbours": lambda run: (run / "embeddings" / "manifest.json").exists(),
    "cluster": lambda run: (run / "neighbours" / "manifest.json").exists(),
    "cluster, writing": lambda run: (run / "clusters.parquet").exists(),
    "map": lambda run: (run / "model" / "clusters.json").exists(),
    "report": lambda run: (run / "map.parquet").exists(),
}


def command(run: Path) -> list[str]:
    return [sys.executable, "-m", "shoal", "cluster", str(demo_images()), "--out", str(run), *OPTIONS]


def content(run: Path) -> dict[str, bytes]:
    files = [file for name in PROMISED for file in ([run / name] if (run / name).is_file() else (run / name).iterdir())]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True, timeout=300)
    run = tmp_path / "killed"
    for stage, has_come in MOMENTS.items():
        running = subprocess.Popen(command(run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not has_come(run):
            assert running.poll() is None, f"ended before it could be killed in {stage}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL, f"ended before it could be killed in {stage}"
    subprocess.run(command(run), check=True, capture_output=True, timeout=300)
    assert content(run) == content(tmp_path / "whole")
    assert not list(run.rglob("*.tmp"))
