"""How far to whiten what an encoder gives: neighbours and clusters against labels, by the power of the whitening.

    python bench/whitening.py RUN          # a run of shoal train, recipe cpu-small, on CIFAR-10's training images

The run's features are whitened by half. That is undone (power 0), and done to other powers: 1 makes every variance 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from from_scratch import weighted_knn
from machine import write_result
from shoal.bench.embedded import label_places, usable_ids
from shoal.cluster.learned import learning
from shoal.cluster.space import ArrayRows
from shoal.embeddings import EmbeddingStore, Float32, normalise_rows
from shoal.encoder.architectures import RIDGE
from shoal.evaluate import metrics
from shoal.rundir import RunDir
from shoal.train.outcome import Outcome

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
AT = (1, 20, 100)
QUERIES = 5_000  # for neighbours; all the others are asked
COUNTS = (10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    run = RunDir(asked.run)
    labels, places = label_places(run, None, {})
    features = unwhitened(run, EmbeddingStore.open(run.embeddings).read(usable_ids(run)[places]))
    order = np.random.default_rng(asked.seed).permutation(len(labels))
    queries, bank = order[:QUERIES], order[QUERIES:]
    found = {}
    for power in POWERS:
        rows = whitened(features, power)
        told = {"knn": weighted_knn(rows[bank], labels[bank], rows[queries], labels[queries])}
        told |= purity(rows, labels, queries, bank)
        for k in COUNTS:
            clusters = learning.learn(ArrayRows(rows), np.arange(len(rows)), k, asked.seed).placed.found.labels
            told |= {
                f"acc_{k}": metrics.clustering_accuracy(labels, clusters),
                f"nmi_{k}": metrics.nmi(labels, clusters),
                f"purity_{k}": metrics.purity(labels, clusters),
            }
        found[str(power)] = {name: round(100 * value, 1) for name, value in told.items()}
        print(power, found[str(power)], flush=True)
    write_result("whitening", {"seed": asked.seed, "powers": found})


def unwhitened(run: RunDir, features: Float32) -> Float32:
    """What the run's encoder gave before its features were whitened."""
    encoder = Outcome.load(run.train / "encoder.safetensors").encoder
    turn, mean = encoder["whitening.turn"].double().numpy(), encoder["whitening.mean"].numpy()
    return np.asarray(np.linalg.solve(turn.T, features.T.astype(np.float64)).T + mean, np.float32)


def whitened(features: Float32, power: float) -> Float32:
    """Each principal direction, centred, divided by its standard deviation to this power; 0 leaves all as it is."""
    if power == 0:
        return features
    centred = features - features.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    scales = (np.maximum(variances, 0) + RIDGE * variances.mean()) ** (-power / 2)
    return np.ascontiguousarray(centred @ (directions * scales) @ directions.T, np.float32)


def purity(
    rows: Float32, labels: npt.NDArray[np.str_], queries: npt.NDArray[np.int64], bank: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Share of each query's nearest that have its label."""
    unit = normalise_rows(rows.copy())
    shares = []
    for block in np.array_split(queries, max(1, len(queries) // 500)):
        nearest = np.argsort(-(unit[block] @ unit[bank].T), axis=1)[:, : max(AT)]
        shares.append(labels[bank][nearest] == labels[block][:, None])
    right = np.concatenate(shares)
    return {f"purity_at_{k}": float(right[:, :k].mean()) for k in AT}


if __name__ == "__main__":
    main()
