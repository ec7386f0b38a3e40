"""Does a refit learn from corrections? Of a kind that was merged away, some images are moved out; how many follow?

    python bench/refit.py [--seeds 3]

On the demo's images in 10 clusters: the cluster of the purest kind (by the labels, which only this script reads) is
merged with the two whose centroids lie nearest; then some of its images, drawn at random, are moved to a new cluster
and the corrections applied.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from machine import describe, machine_line, write_result
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append
from shoal.corrections.model import load_model
from shoal.corrections.refit import refit
from shoal.demo import demo_images
from shoal.evaluate.evaluate import evaluate
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir

CLUSTERS = 10
MOVED = (3, 10, 30, 80)


def main() -> None:
    parser = argparse.ArgumentParser(description="How many images follow those that were moved by hand.")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = RunDir(Path(folder) / "made")
        config = ClusterConfig((str(demo_images()),), clusters=str(CLUSTERS))
        pipeline.run(config, made, pipeline.clustering_stages(open_source(config.source)), Progress())
        rows = [
            [_followed(made, Path(folder) / f"{moved}-{seed}", moved, seed) for seed in range(options.seeds)]
            for moved in MOVED
        ]
    table = ["| moved by hand | of the kind | in the new cluster | others in it |", "|---:|---:|---:|---:|"]
    for moved, found in zip(MOVED, rows, strict=True):
        kind, inside, others = (list(column) for column in zip(*found, strict=True))
        table.append(f"| {moved} | {kind[0]} | {_spread(inside)} | {_spread(others)} |")
    write_result("refit", {"moved": list(MOVED), "kind_inside_others": rows})
    print("\n".join([*table, "", machine_line(describe())]))


def _followed(made: RunDir, target: Path, moved: int, seed: int) -> tuple[int, int, int]:
    """Images of the kind, how many of them are in the new cluster after the refit, and how many others are."""
    run = RunDir(Path(shutil.copytree(made.root, target)))
    purest = max(evaluate(run).table, key=lambda row: row.accuracy).cluster
    kind = read_corrected(run).members(int(purest))
    centroids = load_model(run.model).model.centroids
    nearest = np.argsort(-(centroids @ centroids[purest]))[:3].tolist()
    append(run, lambda log: changes.merge(read_corrected(run), nearest))
    drawn = np.random.default_rng(seed).permutation(kind)[:moved].tolist()
    append(run, lambda log: changes.move(read_corrected(run), drawn, None, "moved"))
    refit(run, 2, Progress())
    corrected = read_corrected(run)
    (number,) = (cluster for cluster, name in corrected.names.items() if name == "moved")
    inside = np.isin(corrected.members(number), kind)
    return len(kind), int(inside.sum()), int((~inside).sum())


def _spread(values: list[int]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.0f} ± {deviation:.0f}"


if __name__ == "__main__":
    sys.exit(main())
