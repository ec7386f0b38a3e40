"""What each step of learning adds, at a size that a CPU can do: pretext tasks, SCAN, self-labelling.

    python bench/train_ablation.py --train cifar10-train.parquet            # --tasks NAME … for some of them

CIFAR-10's training images only: 6,000 to learn from, 10,000 others to report on. Encoder `cpu-small`, not whitened, so
that all tasks leave their features as they are; every task is shown as many views, however an epoch counts them. Beside
them the embedded backbone at 96 pixels, and as `tune-embedded` tunes it: from its clusters at its own size. Both ways
of self-labelling take as many steps. Labels are read only to report. Each row is kept in
bench/results/train_ablation.json as it ends; those there are not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import machine
from from_scratch import weighted_knn
from shoal.cluster import SphericalKMeans
from shoal.evaluate import metrics
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import TerminalProgress
from shoal.rundir import RunDir
from shoal.train import checkpoint
from shoal.train.outcome import Outcome
from shoal.train.run import TrainRequest, train

IMAGES, REPORTED = 6_000, 10_000
CLUSTERS = 10
TASKS = {  # recipe, and changes to it
    "simclr": ("cpu-small", "encoder.name=cpu-small", "pretext.epochs=12"),
    "rotnet": (  # four views of an image, not two
        "cpu-small",
        "encoder.name=cpu-small",
        "pretext.task=rotnet",
        "pretext.loss=standard",
        "pretext.epochs=6",
    ),
    "moco": (
        "cpu-small",
        "encoder.name=cpu-small",
        "pretext.task=moco",
        "pretext.loss=standard",
        "pretext.epochs=12",
        "pretext.queue=4096",
    ),
    "embedded": ("tune-embedded",),
    "simclr, twice the epochs": ("cpu-small", "encoder.name=cpu-small", "pretext.epochs=24"),
}
FROZEN = ("scan.epochs=30",)
TUNED = ("scan.epochs=5", "scan.tune_encoder=true", "scan.heads=1", "scan.optimiser.rate=1e-4", "scan.loop.batch=256")
SELF, NOT_SELF = ("selflabel.epochs=3", "selflabel.loop.batch=64"), ("selflabel.epochs=0",)
FEATURES, TAUGHT = "learned heads", "learned heads + self-labelling"
CLUSTERINGS = {
    FEATURES: ("scan.epochs=0", *NOT_SELF),
    TAUGHT: ("scan.epochs=0", "selflabel.epochs=6", "selflabel.loop.batch=64"),
    "SCAN": (*FROZEN, *NOT_SELF),
    "SCAN + self-labelling": (*FROZEN, *SELF),
}
MORE = {  # of simclr only
    "SCAN + self-labelling, threshold 0.9": (*FROZEN, *SELF, "selflabel.quota=0", "selflabel.threshold=0.9"),
    "SCAN + self-labelling, threshold 0.99": (*FROZEN, *SELF, "selflabel.quota=0", "selflabel.threshold=0.99"),
    "SCAN tuned": (*TUNED, *NOT_SELF),
    "SCAN tuned + self-labelling": (*TUNED, *SELF),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="Parquet table with path, image, label")
    parser.add_argument("--out", type=Path, default=Path("train_ablation"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    asked = parser.parse_args()
    learn, report = tables(asked.train, asked.out)
    items = list(open_source((str(report),)).listed().items())
    truth = np.array([item.label for item in items])
    rows = [
        (task, name, changes)
        for task in asked.tasks
        for name, changes in CLUSTERINGS.items()
        if task != "embedded" or name in (FEATURES, TAUGHT)
    ]
    rows += [("simclr", name, changes) for name, changes in MORE.items() if "simclr" in asked.tasks]
    for task, name, changes in rows:
        key = f"{task}, {name}, seed {asked.seed}"
        if key in kept():
            continue
        recipe, *settings = (*TASKS[task], *changes)
        began = time.process_time()
        run = trained(learn, asked.out / f"{task}.shoal", recipe, settings, asked.seed)
        found = told(run, items, truth)
        if name == FEATURES:
            found |= of_features(run, learn, items, truth, asked.seed)
        found["processor_seconds"] = round(time.process_time() - began)
        write(key, {"recipe": recipe, "set": settings, **found})
        print(key, json.dumps(found), flush=True)


def trained(table: Path, out: Path, recipe: str, settings: list[str], seed: int) -> RunDir:
    """A run with these settings; phases that an earlier row has done are not done again."""
    request = TrainRequest(
        (str(table),), recipe, tuple(settings), str(CLUSTERS), out=out, seed=seed, device="cpu", report=False
    )
    return train(request, TerminalProgress())[0]


def told(run: RunDir, items: list[Any], truth: np.ndarray) -> dict[str, Any]:
    """ACC, NMI, ARI of the run's clusters on images it has not seen, and what self-labelling was judged by."""
    model = Model.open(run.root, "cpu")
    found = scores(truth, np.concatenate([model.assign(new).cluster for new in model.embed(items)]))
    facts = Outcome.load(run.train / "encoder.safetensors").facts
    return found | {name: facts[name] for name in ("agreement_before", "agreement", "kept") if name in facts}


def of_features(run: RunDir, learn: Path, items: list[Any], truth: np.ndarray, seed: int) -> dict[str, Any]:
    """k-NN accuracy of the features that the pretext task left, and k-means on them."""
    features = checkpoint.read_tensors(run.train / "features.safetensors")["features"].numpy()
    new = np.concatenate([part.features for part in Model.open(run.root, "cpu").embed(items)])
    labels = np.array([item.label for item in open_source((str(learn),)).listed().items()])
    clusters = SphericalKMeans(CLUSTERS, random_state=seed).fit(features).predict(new)
    return {"knn": weighted_knn(features, labels, new, truth), "k-means": scores(truth, clusters)}


def scores(truth: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    measures = {"acc": metrics.clustering_accuracy, "nmi": metrics.nmi, "ari": metrics.ari}
    return {name: round(100 * measure(truth, clusters), 1) for name, measure in measures.items()}


def tables(table: Path, out: Path) -> tuple[Path, Path]:
    out.mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(table)
    order = np.random.default_rng(0).permutation(len(rows))
    paths = out / "learn.parquet", out / "report.parquet"
    for path, chosen in zip(paths, (order[:IMAGES], order[IMAGES : IMAGES + REPORTED]), strict=True):
        pq.write_table(rows.take(pa.array(np.sort(chosen))), path, compression="none")
    return paths


def kept() -> dict[str, Any]:
    file = machine.RESULTS / "train_ablation.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["rows"]) if file.is_file() else {}


def write(key: str, found: dict[str, Any]) -> None:
    machine.write_result("train_ablation", {"rows": {**kept(), key: found}})


if __name__ == "__main__":
    main()
