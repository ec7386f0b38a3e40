"""The names stage: guesses of what the clusters show, in the model's `guesses.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shoal import atomic, records
from shoal.config import ClusterConfig
from shoal.embeddings import Float32, Ids
from shoal.errors import RunError
from shoal.names import classes
from shoal.names.guesses import ClusterGuess, guess
from shoal.names.guesses_file import LEVELS, Guesses
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file
from shoal.runfiles import GUESSES

Numbers = npt.NDArray[np.integer]


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write the guesses for the run's clusters and for the levels around them."""
    return write(run_dir)


def write(run_dir: RunDir) -> StageResult:
    """Write model/guesses.json for the clusters as they lie there; nothing where the run has no classes."""
    table = records.read_table(run_dir.clusters, ["id", "cluster", "confidence"])
    levels = records.read_table(run_dir.levels, ["id", *LEVELS])
    if not table["id"].equals(levels["id"]):
        raise RunError(f"{run_dir.levels} is of other images than {run_dir.clusters}; run the same shoal cluster again")
    numbers = {level: levels[level].to_numpy() for level in LEVELS}
    found = guesses_of(run_dir, table["id"].to_numpy(), numbers, table["confidence"].to_numpy())
    if found is None:
        return StageResult(classes.NONE)
    path = run_dir.new(f"model/{GUESSES}")
    atomic.write_json(path, found.to_json())
    return StageResult(digest_file(path), {"named": sum(one.name is not None for one in found.medium)})


def guesses_of(
    run_dir: RunDir, ids: Ids, numbers: Mapping[str, Numbers], confidence: npt.NDArray[np.floating]
) -> Guesses | None:
    """Guesses for clusterings of a run's images; None where the run has no classes.

    Args:
        ids: [n] of images; copies of others, which have no classes of their own, count for nothing.
        numbers: the cluster of each [n] at some of the levels.
        confidence: [n], 0 to 1, in the clusters that are called medium.
    """
    known = classes.read(run_dir)
    if known is None:
        return None
    likeliest, words = known
    is_seen = ids < len(likeliest)  # a copy that came later has no row
    is_seen[is_seen] = likeliest.probabilities[ids[is_seen], 0] > 0
    rows = ids[is_seen]
    is_all = np.array_equal(rows, np.arange(len(likeliest)))  # then the memory maps need not be copied
    seen = likeliest if is_all else likeliest.of(rows)
    weights: Float32 = np.nan_to_num(confidence[is_seen]).astype(np.float32)
    found = {}
    for level, labels in numbers.items():
        present, places = np.unique(labels[is_seen], return_inverse=True)
        told = {int(present[one.cluster]): one for one in guess(seen, places, weights, words)}
        found[level] = tuple(
            replace(told[number], cluster=number) if number in told else ClusterGuess(number, None, 0.0, None, ())
            for number in range(int(labels.max(initial=-1)) + 1)
        )
    return Guesses(words.name, **found)
