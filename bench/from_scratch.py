"""From random weights on a CPU: k-NN, purity of 20 clusters, and ACC, NMI, ARI at 10 clusters; CIFAR-10, Fashion-MNIST.

Everything is learned from the training images; labels are read only here, when all is done. Resumable: run it again and
it goes on where it stopped. Each seed's result is added to bench/results/from_scratch.json as it ends, with its log,
its seconds by the clock and of processor time: on a machine busy with something else only the latter mean anything.

    python bench/from_scratch.py --train cifar10-train.parquet --on dev            # choose settings: 40,000 to 10,000
    python bench/from_scratch.py --train cifar10-train.parquet --test cifar10-test.parquet --on test --seeds 0 1 2
    python bench/from_scratch.py --train fashion-mnist-train.parquet --test fashion-mnist-test.parquet --on test \
        --name fashion --set pretext.epochs=8

`--set key.sub=value` changes the recipe (`cpu-small` unless --recipe says otherwise). `--continues RUN …` names runs
that left the weights this one starts from, one after another: their epochs are counted too. `shoal bench` leaves tables
of Fashion-MNIST in bench.out/data/.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import machine
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32
from shoal.encoder.names import full_name
from shoal.evaluate import metrics
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import TerminalProgress
from shoal.rundir import RunDir
from shoal.train import log, recipe
from shoal.train.run import TrainRequest, train

DEV_TEST = 10_000  # of the training images, put aside to choose settings by
FINE = 20  # clusters of the Keras example


def main() -> None:
    asked = _arguments()
    table, test = (asked.train, asked.test) if asked.on == "test" else _dev_split(asked.train, asked.out)
    if test is None:
        raise SystemExit("--on test needs --test FILE")
    for seed in asked.seeds:
        request = _request(asked, table, seed)
        found = one_seed(asked, request, test)
        path = machine.keep_run("from_scratch", _name(asked, seed), found)
        print(json.dumps({key: value for key, value in found.items() if not isinstance(value, (list, dict))}, indent=1))
        print(f"-> {path}")
        train(replace(request, report=True), TerminalProgress())  # to look at; it takes no part in the figures


def _name(asked: argparse.Namespace, seed: int) -> str:
    return f"{asked.name or asked.on}-seed{seed}"


def _request(asked: argparse.Namespace, table: Path, seed: int) -> TrainRequest:
    return TrainRequest(
        (str(table),),
        asked.recipe,
        tuple(asked.set),
        clusters="10",
        out=asked.out / f"{_name(asked, seed)}.shoal",
        seed=seed,
        device="cpu",
        report=False,
    )


def one_seed(asked: argparse.Namespace, request: TrainRequest, test: Path) -> dict[str, Any]:
    """Train, then measure."""
    config = recipe.load(request.recipe, request.changes)
    assert request.out is not None
    run_dir, table, seed = RunDir(request.out), Path(request.source[0]), request.seed
    began, finished = time.process_time(), _processor_seconds(log.read(run_dir.train))
    train(request, TerminalProgress())
    fine = _fine_clusters(run_dir, table, full_name(config.encoder.name), seed)
    test_items = list(open_source((str(test),)).listed().items())
    test_labels = np.array([item.label for item in test_items])
    labels = _labels(fine)
    bank, known = _embedded(fine)
    bank_labels = np.array([labels[image] for image in known.tolist()])
    queries = _features(Model.open(fine.root, "cpu"), test_items)
    lines = log.read(run_dir.train)
    before = [line for run in asked.continues for line in log.read(run / "train")]
    # What was not an epoch counts only where it was done in this session.
    beside = time.process_time() - began - (_processor_seconds(lines) - finished)
    return {
        "on": asked.on,
        "seed": seed,
        "recipe": _without_folders(config.to_json()),
        "minutes": round((seconds(run_dir) + sum(line["seconds"] for line in before)) / 60, 2),
        "processor_minutes": round((_processor_seconds(before + lines) + beside) / 60, 2),
        "knn": round(weighted_knn(bank, bank_labels, queries, test_labels), 4),
        "purity_20_train": round(_purity(fine, labels), 4),
        **told(run_dir, test_items, test_labels),
        "log_before": before,
        "log": lines,
    }


def _without_folders(config: dict[str, Any]) -> dict[str, Any]:
    """The recipe without the place that its weights lay in."""
    weights = config["encoder"]["weights"]
    return {**config, "encoder": {**config["encoder"], "weights": weights and Path(weights).name}}


def _processor_seconds(lines: Sequence[dict[str, Any]]) -> float:
    return float(sum(line["processor_seconds"] for line in lines))


def told(run_dir: RunDir, items: Sequence[Any], labels: np.ndarray) -> dict[str, float]:
    """ACC, NMI and ARI of the run's clusters on images it has not seen."""
    model = Model.open(run_dir.root, "cpu")
    clusters = np.concatenate([model.assign(new).cluster for new in model.embed(items)])
    return {
        "acc": round(metrics.clustering_accuracy(labels, clusters), 4),
        "nmi": round(metrics.nmi(labels, clusters), 4),
        "ari": round(metrics.ari(labels, clusters), 4),
    }


def _fine_clusters(run_dir: RunDir, table: Path, backbone: str, seed: int) -> RunDir:
    """20 clusters of the features that the pretext task left, as `shoal cluster` makes them, in a run of their own."""
    weights = run_dir.train / "pretext" / "outcome.safetensors"
    fine = RunDir(run_dir.root.with_suffix(".k20.shoal"))
    config = ClusterConfig(
        (str(table),), clusters=str(FINE), backbone=backbone, weights=str(weights), seed=seed, device="cpu"
    )
    pipeline.run(config, fine, pipeline.clustering_stages(open_source(config.source)), TerminalProgress())
    return fine


def _labels(run_dir: RunDir) -> dict[int, str]:
    table = pq.read_table(run_dir.labels)
    return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


def _purity(run_dir: RunDir, labels: dict[int, str]) -> float:
    rows = run_dir.read_clusters(["id", "cluster"])
    names = np.array([labels[image] for image in rows["id"].to_pylist()])
    return metrics.purity(names, rows["cluster"].to_numpy())


def _embedded(run_dir: RunDir) -> tuple[Float32, np.ndarray]:
    images = run_dir.read_images(["id", "status"])
    ids = images["id"].to_numpy()[images["status"].to_numpy(zero_copy_only=False) == "ok"]
    return EmbeddingStore.open(run_dir.embeddings).read(ids), ids


def _features(model: Model, items: Sequence[Any]) -> Float32:
    return np.concatenate([new.features for new in model.embed(items)])


def weighted_knn(
    bank: Float32, bank_labels: np.ndarray, queries: Float32, labels: np.ndarray, k: int = 100, temperature: float = 0.1
) -> float:
    """Weighted k-NN, train to test (Wu et al., 2018)."""
    classes, targets = np.unique(bank_labels, return_inverse=True)
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    right = 0
    for start in range(0, len(queries), 1000):
        block = queries[start : start + 1000]
        similarity = (block / np.linalg.norm(block, axis=1, keepdims=True)) @ unit.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        votes = np.zeros((len(block), len(classes)))
        np.add.at(votes, (np.arange(len(block))[:, None], targets[nearest]), weights)
        right += int((classes[votes.argmax(axis=1)] == labels[start : start + 1000]).sum())
    return right / len(queries)


def seconds(run_dir: RunDir) -> float:
    """Of all the work: each epoch's from the log, which counts resumed ones too, and of the other stages."""
    epochs: dict[str, float] = {}
    for line in log.read(run_dir.train):
        epochs[line["phase"]] = epochs.get(line["phase"], 0.0) + line["seconds"]
    stages = run_dir.read_state()["stages"]
    return sum(max(record.get("seconds", 0.0), epochs.get(name, 0.0)) for name, record in stages.items())


def _dev_split(table: Path, out: Path) -> tuple[Path, Path]:
    """The training images in two: to learn from, and to choose settings by."""
    out.mkdir(parents=True, exist_ok=True)
    parts = out / "dev-train.parquet", out / "dev-test.parquet"
    if not all(path.is_file() for path in parts):
        rows = pq.read_table(table)
        order = np.random.default_rng(0).permutation(len(rows))
        for path, chosen in zip(parts, (order[DEV_TEST:], order[:DEV_TEST]), strict=True):
            pq.write_table(rows.take(pa.array(np.sort(chosen))), path, compression="none")
    return parts


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="Parquet table with path, image, label")
    parser.add_argument("--test", type=Path, help="the same, for --on test")
    parser.add_argument("--on", choices=("dev", "test"), default="dev")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("from_scratch"), help="folder of the runs")
    parser.add_argument("--recipe", default="cpu-small")
    parser.add_argument("--name", help="of the results and runs, to keep several settings apart")
    parser.add_argument("--continues", type=Path, metavar="RUN", nargs="*", default=[])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
