"""The embedded backbone tuned to CIFAR-10 by its own clusters, beside those clusters: ACC, NMI, ARI, minutes.

    python bench/tune_embedded.py --train cifar10-train.parquet --test cifar10-test.parquet --seeds 0 1 2

First `shoal cluster`, then `shoal train --recipe tune-embedded` in the same run, which goes on from there; both are
measured on the images they were fitted to and on the test images. Labels are read only here, when all is done. Each
seed's result is added to bench/results/tune_embedded.json as it ends; run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
from from_scratch import seconds, told
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.evaluate import metrics
from shoal.evaluate.labels import names_in, read_labels
from shoal.images.sources import open_source
from shoal.progress import TerminalProgress
from shoal.rundir import RunDir
from shoal.train import log, recipe
from shoal.train.outcome import Outcome
from shoal.train.run import TrainRequest, train

RECIPE = "tune-embedded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="Parquet table with path, image, label")
    parser.add_argument("--test", type=Path, required=True, help="the same, of images to report on")
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("tune_embedded"), help="folder of the runs")
    parser.add_argument("--set", action="append", default=[], help="key.sub=value, changes the recipe")
    asked = parser.parse_args()
    items = list(open_source((str(asked.test),)).listed().items())
    truth = np.array([item.label for item in items])
    done = machine.kept_runs("tune_embedded")
    for seed in asked.seeds:
        if f"{asked.train.stem}-seed{seed}" in done:
            continue
        run_dir = RunDir(asked.out / f"{asked.train.stem}-seed{seed}.shoal")
        before = run_dir.root.with_suffix(".before.json")
        if not before.is_file():
            config = ClusterConfig((str(asked.train),), clusters=str(asked.clusters), seed=seed, device="cpu")
            began = time.perf_counter()
            pipeline.run(config, run_dir, pipeline.clustering_stages(open_source(config.source)), TerminalProgress())
            frozen = {"minutes": round((time.perf_counter() - began) / 60, 2), **measured(run_dir, items, truth)}
            before.write_text(json.dumps(frozen), encoding="utf-8")
        request = TrainRequest(
            (str(asked.train),),
            RECIPE,
            tuple(asked.set),
            str(asked.clusters),
            out=run_dir.root,
            seed=seed,
            report=False,
        )
        train(request, TerminalProgress())
        found = {
            "recipe": recipe.load(RECIPE, asked.set).to_json(),
            "frozen": json.loads(before.read_text(encoding="utf-8")),
            "tuned": {"minutes": round(seconds(run_dir) / 60, 2), **measured(run_dir, items, truth)},
            "facts": Outcome.load(run_dir.train / "encoder.safetensors").facts,
            "log": log.read(run_dir.train),
        }
        path = machine.keep_run("tune_embedded", f"{asked.train.stem}-seed{seed}", found)
        print(json.dumps({key: found[key] for key in ("frozen", "tuned", "facts")}, indent=1), f"-> {path}", flush=True)


def measured(run_dir: RunDir, items: list[Any], truth: np.ndarray) -> dict[str, float]:
    """Of the images learned from, and of the others."""
    rows = run_dir.read_clusters(["id", "cluster"])
    labels = names_in(read_labels(run_dir, None).of(rows["id"].to_numpy()))
    acc = metrics.clustering_accuracy(labels, rows["cluster"].to_numpy())
    return {"acc_train": round(acc, 4), **told(run_dir, items, truth)}


if __name__ == "__main__":
    main()
