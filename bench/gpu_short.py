"""The part of `gpu.py` that trains: a recipe with as many epochs as there is time for, killed once and judged."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_recipe
from gpu_bench import Bench
from gpu_subjects import phase_of, step_of
from shoal.train import recipe

PRETEXT_SECONDS = 240.0
SHARES = (0.62, 0.19, 0.19)  # of the time for the phases
SPARE = 60.0  # seconds of it for starting twice, neighbours and judging
PAPER = {  # Van Gansbeke et al., 2020, best runs of its repository: 500, 50 and 200 epochs
    "scan": {"acc": 0.816, "nmi": 0.715, "ari": 0.665},
    "selflabel": {"acc": 0.883, "nmi": 0.797, "ari": 0.772},
}


def short_recipe(bench: Bench) -> dict[str, Any]:
    """`scan-cifar10` with as many epochs as there is time for, killed at a checkpoint and gone on with, judged."""
    images = 50_000 if bench.on_gpu else 120
    changes = [] if bench.on_gpu else ["encoder.name=cpu-small", "pretext.loop.batch=40", "selflabel.loop.batch=60"]
    if not bench.on_gpu:  # what a CPU does natively OpenVINO would have to tell
        changes += [f"{section}.loop.precision=fp32" for section in gpu_recipe.SECTIONS]
    epochs = fitting_epochs(bench, images) if bench.on_gpu else (3, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, str(Path(gpu_recipe.__file__)), "--data", str(bench.data), "--folder", folder),
            *("--device", bench.device.type, "--images", str(images), "--epochs", *map(str, epochs)),
            *(word for change in changes for word in ("--set", change)),
        ]
        killed_at = until_checkpoint(command)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the second process ended with {done.returncode}: {done.stdout[-500:]}")
        went_on = [line for line in done.stdout.splitlines() if line.startswith(gpu_recipe.EVENT)]
        told = json.loads((Path(folder) / "judged.json").read_text(encoding="utf-8"))
    seen = [line["epoch"] for line in told["log"] if line["phase"] == "pretext"]
    return {
        "images": images,
        "epochs": dict(zip(gpu_recipe.SECTIONS, epochs, strict=True)),
        "changes": changes,
        "killed_at": killed_at,
        "went_on_with": went_on[0],
        "every_epoch_once": seen == list(range(epochs[0])),
        **told,
        "paper": PAPER,
    }


def until_checkpoint(command: Sequence[str]) -> str:
    """Start, kill as soon as a checkpoint is written, and say which it was."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(gpu_recipe.EVENT):
                return line.strip()
        raise RuntimeError(f"the first process ended with {process.wait()} before any checkpoint")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def fitting_epochs(bench: Bench, images: int) -> tuple[int, int, int]:
    """Of the three phases, by the time that a step of each takes here."""
    time_left = min(bench.left - SPARE, PRETEXT_SECONDS / SHARES[0])
    found = []
    config = recipe.load("scan-cifar10")
    for share, kind, name in zip(SHARES, ("simclr", "scan", "selflabel"), gpu_recipe.SECTIONS, strict=True):
        section = getattr(config, name)
        batch = section.loop.batch
        phase = phase_of(kind, 4 * batch, bench.precision, batch)
        rate = bench.rate(step_of(bench, phase, section, batch), batch)["median"]
        found.append(max(2, int(share * time_left * 0.9 * rate / images)))
    first, second, third = found
    return min(first, 500), min(second, 50), min(third, 200)
