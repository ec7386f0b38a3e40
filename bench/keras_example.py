"""The recipe `keras-example` beside the Keras example itself: the pretext step, and an epoch of clustering.

    python bench/keras_example.py [--rounds 1] [--steps 3]

Keras runs in an environment of its own, made on first use (`tensorflow-cpu` and `keras` from PyPI). The two take turns;
each has all cores, batches of 512 random images of 32×32, and ResNet50V2. An epoch of clustering is of 60,000 images
with 5 neighbours each and the encoder frozen. Keras passes 6 views an image through the encoder in every epoch: its
time is that of a few steps, scaled. Shoal does so once for a few views, and then trains on their features: its epoch
is measured whole, and what the views cost once is told beside it. Beside the clock stands processor time, which other
processes on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import venv
from pathlib import Path
from statistics import median
from typing import Any

import torch

import machine
import train_pieces
from photos import WORK
from processes import elsewhere
from shoal.train import recipe
from shoal.train.precision import Precision

PACKAGES = ("tensorflow-cpu==2.21.0", "keras==3.15.1")
IMAGES, BATCH, ENCODED = 60_000, 512, 1024
CLOCKS = ("wall", "processor")
GOALS = {"pretext": 2.5, "clustering": 200.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="in each phase of each round")
    asked = parser.parse_args()
    python = keras_python()
    rounds = [one_round(python, asked.steps) for _ in range(asked.rounds)]
    faster = {phase: {clock: [ratios(one)[phase][clock] for one in rounds] for clock in CLOCKS} for phase in GOALS}
    for phase, found in faster.items():
        print(f"{phase:12s} times faster than Keras: {found}; the goal is {GOALS[phase]:g}")
    machine.write_result(
        "keras_example",
        {"rounds": rounds, "times_faster": faster, "goals": GOALS, "precision": precision(), "packages": PACKAGES},
    )


def one_round(python: Path, steps: int) -> dict[str, Any]:
    """Keras, then Shoal, each in a process of its own."""
    load = round(os.getloadavg()[0], 2)
    return {"load_before": load, "keras": keras_side(python, steps), "shoal": elsewhere(shoal_side, steps)}


def ratios(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times faster than Keras, by the clock and by processor time."""
    keras, shoal = found["keras"], found["shoal"]
    steps = math.ceil(IMAGES / BATCH)
    return {
        "pretext": {
            clock: round(median(keras["pretext"][clock]) / median(shoal["pretext"][clock]), 2) for clock in CLOCKS
        },
        "clustering": {
            clock: round(steps * median(keras["clustering"][clock]) / median(shoal["clustering_epoch"][clock]), 1)
            for clock in CLOCKS
        },
    }


def keras_side(python: Path, steps: int) -> dict[str, Any]:
    script = Path(__file__).with_name("keras_side.py")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [python, script, str(steps), str(steps)], check=True, capture_output=True, text=True, env=environment
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def shoal_side(steps: int) -> dict[str, Any]:
    """The recipe's own phases: seconds of steps and of an epoch, and what the views cost once."""
    encode = train_pieces.seconds(train_pieces.encoding_work("resnet50v2", ENCODED), 1)
    views = recipe.load("keras-example").scan.cached_views
    return {
        "threads": torch.get_num_threads(),
        "pretext": train_pieces.seconds(train_pieces.pretext_work("resnet50v2", 32, BATCH), steps),
        "clustering_epoch": train_pieces.seconds(train_pieces.scan_work(), steps),
        "cached_views": views,
        "cached_views_once": {clock: round(views * IMAGES * encode[clock][0] / ENCODED, 1) for clock in CLOCKS},
    }


def precision() -> str:
    return str(Precision.of(torch.device("cpu"), "auto").dtype).removeprefix("torch.")


def keras_python() -> Path:
    """The interpreter of Keras's own environment."""
    folder = WORK / "keras"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "done").touch()
    return python


if __name__ == "__main__":
    main()
