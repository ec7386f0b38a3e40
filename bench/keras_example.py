"""The recipe `keras-example` beside the Keras example itself: the pretext step, and an epoch of clustering.

    python bench/keras_example.py [--rounds 1] [--steps 3]

Keras runs in an environment of its own, made on first use (`tensorflow-cpu` and `keras` from PyPI). The two take turns;
each has all cores, batches of 512 random images of 32×32, and ResNet50V2. An epoch of clustering is of 60,000 images
with 5 neighbours each and the encoder frozen. Keras passes 6 views an image through the encoder in every epoch: its
time is that of a few steps, scaled. Shoal does so once for a few views, and then trains on their features: its epoch
is measured whole, and what the views cost once is told beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import venv
from pathlib import Path
from typing import Any

import torch

import machine
import train_pieces
from photos import WORK
from processes import elsewhere
from shoal.train import recipe
from shoal.train.precision import Precision

PACKAGES = ("tensorflow-cpu==2.21.0", "keras==3.15.1")
IMAGES, BATCH, NEIGHBOURS = 60_000, 512, 5
GOALS = {"pretext": 2.5, "clustering": 200.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="of Keras, in each phase of each round")
    asked = parser.parse_args()
    python = keras_python()
    rounds = [one_round(python, asked.steps) for _ in range(asked.rounds)]
    faster = {name: [round(found["times_faster"][name], 2) for found in rounds] for name in GOALS}
    for name, ratios in faster.items():
        print(f"{name:12s} {ratios} times faster than Keras; the goal is {GOALS[name]:g}")
    machine.write_result(
        "keras_example",
        {"rounds": rounds, "times_faster": faster, "goals": GOALS, "precision": precision(), "packages": PACKAGES},
    )


def one_round(python: Path, steps: int) -> dict[str, Any]:
    """Keras, then Shoal, each in a process of its own."""
    load = os.getloadavg()[0]
    keras = keras_side(python, steps)
    shoal = elsewhere(shoal_side, steps)
    epoch = statistics.median(keras["clustering"]) * math.ceil(IMAGES / BATCH)
    keras_rate = BATCH / statistics.median(keras["pretext"])
    return {
        "load_before": round(load, 2),
        "keras": {
            **keras,
            "pretext_images_per_second": round(keras_rate, 1),
            "clustering_epoch_seconds": round(epoch, 1),
        },
        "shoal": shoal,
        "times_faster": {
            "pretext": shoal["pretext_images_per_second"] / keras_rate,
            "clustering": epoch / shoal["clustering_epoch_seconds"],
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
    """Rates of the recipe's own phases, of median steps as on the other side."""
    config = recipe.load("keras-example")
    pretext = train_pieces.seconds(train_pieces.pretext_work("resnet50v2", 32, BATCH), steps)
    epoch = train_pieces.seconds(train_pieces.scan_work(), 3)
    encode = train_pieces.seconds(train_pieces.encoding_work("resnet50v2", 2048), 2)
    views = config.scan.cached_views
    return {
        "pretext": pretext,
        "pretext_images_per_second": round(BATCH / statistics.median(pretext), 1),
        "clustering_epoch": epoch,
        "clustering_epoch_seconds": round(statistics.median(epoch), 3),
        "cached_views": views,
        "cached_views_seconds": round(views * IMAGES * statistics.median(encode) / 2048, 1),
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
