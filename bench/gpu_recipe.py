"""`scan-cifar10` shortened, from a table of images to clusters judged on others, in a process that may be killed.

    python bench/gpu_recipe.py --data DIR --folder RUN --epochs 60 10 30 [--device cuda] [--images 50000]

It says on standard output when a checkpoint is written, goes on where one of the same settings was left in RUN, and
leaves RUN/judged.json. `bench/gpu.py` runs it, kills it once, and tells the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from shoal import atomic
from shoal.config import ClusterCounts
from shoal.progress import TerminalProgress
from shoal.rundir import RunDir
from shoal.train import checkpoint, encoders, learn_pretext, learn_scan, learn_selflabel, log, recipe
from shoal.train.features import encode
from shoal.train.outcome import Outcome
from shoal.train.pixels import Pictures, Pixels
from shoal.train.precision import Precision
from shoal.train.training import PRETEXT, SCAN, SELFLABEL, Training

TRAIN, TEST = "cifar10-train.parquet", "cifar10-test.parquet"
LEARN = {PRETEXT: learn_pretext.learn, SCAN: learn_scan.learn, SELFLABEL: learn_selflabel.learn}
SECTIONS = tuple(LEARN)
CLUSTERS = 10
NEAREST, TEMPERATURE = 100, 0.1  # of the weighted k-NN
EVENT = "checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {TRAIN} and {TEST}")
    parser.add_argument("--folder", type=Path, required=True, help="of the run")
    parser.add_argument("--epochs", type=int, nargs=3, required=True, metavar=("PRETEXT", "SCAN", "SELFLABEL"))
    parser.add_argument("--images", type=int, default=50_000, help="of the training table, the first")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    tell_checkpoints()
    epochs = [f"{section}.epochs={count}" for section, count in zip(SECTIONS, asked.epochs, strict=True)]
    config = recipe.load("scan-cifar10", [*epochs, *asked.set])
    train, labels, test, test_labels = pictures(asked.data, asked.images)
    training = Training(
        config,
        RunDir(asked.folder),
        0,
        ClusterCounts.parse(str(CLUSTERS)),
        torch.device(asked.device, 0) if asked.device == "cuda" else torch.device(asked.device),
        TerminalProgress(),
        open_pixels=lambda run_dir, data, progress: Pixels(np.arange(len(train)), data, train),
    )
    seconds: dict[str, float] = {}
    for section, learn in LEARN.items():
        if not training.outcome(section).is_file():
            began = time.perf_counter()
            learn(training)
            seconds[section] = round(time.perf_counter() - began, 2)
    found = {section: judged(training, section, labels, test, test_labels) for section in SECTIONS}
    atomic.write_json(
        asked.folder / "judged.json", {"seconds": seconds, "judged": found, "log": log.read(training.folder)}
    )


def tell_checkpoints() -> None:
    """Have a line on standard output for each checkpoint of the last step, as soon as it is whole."""
    save = checkpoint.save

    def saved(folder: Path, name: str, key: str, position: checkpoint.Position, *rest: Any) -> None:
        save(folder, name, key, position, *rest)
        if name == checkpoint.LAST:
            print(EVENT, folder.name, position.epoch, position.step, flush=True)

    checkpoint.save = saved


def pictures(data: Path, count: int) -> tuple[Pictures, np.ndarray, Pictures, np.ndarray]:
    """The first `count` training images, uint8 [n, 32, 32, 3], their classes [n], and those of the test."""
    found: list[Any] = []
    for file in (TRAIN, TEST):
        table = pq.read_table(data / file, columns=["image", "label"])
        order = np.random.default_rng(0).permutation(len(table))[:count]
        rows = table.take(order)
        images = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in rows["image"].to_pylist()]
        found += [np.stack(images), np.unique(rows["label"].to_pylist(), return_inverse=True)[1]]
    return tuple(found)


def judged(training: Training, section: str, labels: np.ndarray, test: Pictures, truth: np.ndarray) -> dict[str, Any]:
    """k-NN of the encoder that a phase left and, if it left a head, how well its clusters tell the test images."""
    outcome, config, device = Outcome.load(training.outcome(section)), training.config, training.device
    encoder = encoders.encoder(dataclasses.replace(config.encoder, weights=None))
    encoder.load_state_dict(outcome.encoder)
    encoder.to(device)
    precision = Precision.of(device, config.pretext.loop.precision)

    def features(pixels: Pixels) -> Tensor:
        return encode(encoder, pixels, torch.arange(len(pixels)), training.plain, precision)

    queries = features(Pixels(np.arange(len(test)), config.data, test))
    right = knn(features(training.pixels).to(device), torch.from_numpy(labels).to(device), queries.to(device))
    found: dict[str, Any] = {"facts": outcome.facts, "knn": round(float((right.cpu().numpy() == truth).mean()), 4)}
    if outcome.head is None:
        return found
    clusters = (queries @ outcome.head.weight + outcome.head.bias).argmax(dim=1).numpy()
    table = np.zeros((CLUSTERS, int(truth.max()) + 1), int)
    np.add.at(table, (clusters, truth), 1)
    return {**found, **figures(truth, clusters), "table": table.tolist()}


def figures(truth: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """ACC, NMI and ARI; none where scipy and scikit-learn are not there: the table of counts tells them elsewhere."""
    try:
        from shoal.evaluate import metrics  # noqa: PLC0415  (see above)
    except ImportError:
        return {}
    wanted: dict[str, Callable[..., float]] = {
        "acc": metrics.clustering_accuracy,
        "nmi": metrics.nmi,
        "ari": metrics.ari,
    }
    return {name: round(tell(truth, clusters), 4) for name, tell in wanted.items()}


def knn(bank: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Classes of `queries` [m, d] by weighted k-NN among `bank` [n, d] (Wu et al., 2018)."""
    bank, queries = (torch.nn.functional.normalize(rows, dim=1) for rows in (bank, queries))
    told = []
    for block in queries.split(1000):
        similarity, nearest = (block @ bank.T).topk(min(NEAREST, len(bank)), dim=1)
        votes = torch.zeros(len(block), int(labels.max()) + 1, device=bank.device)
        votes.scatter_add_(1, labels[nearest], (similarity / TEMPERATURE).exp())
        told.append(votes.argmax(dim=1))
    return torch.cat(told)


if __name__ == "__main__":
    main()
