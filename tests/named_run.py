"""A small run whose images show known kinds, as the encoder's own classifier has it, for tests of names and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafted import run_stage
from shoal import atomic, records
from shoal.cluster import stage as clustering
from shoal.config import ClusterConfig
from shoal.encoder.classifier import Layer
from shoal.names import classes, naming
from shoal.names.classifier import POOLED, Classifier
from shoal.names.kinds import Vocabulary, vocabulary
from shoal.rundir import RunDir
from shoal.runfiles import HEAD, write_run_json
from small_run import write_small_run

KINDS = ("goldfish", "hourglass", "banana", "Chihuahua", "komondor", "pug")
EACH = 24
DIM = 64


def known() -> Vocabulary:
    found = vocabulary()
    assert found is not None
    return found


def layer() -> Layer:
    """A classifier of ImageNet-1k that is sure of features which are ten times one of its rows."""
    random = np.random.default_rng(0)
    weight = random.normal(0, 1 / np.sqrt(DIM), (1000, DIM)).astype(np.float32)
    return Layer(weight, np.zeros(1000, np.float32))


def features(kinds: Sequence[str]) -> npt.NDArray[np.float32]:
    """Features of one image of each kind, [n, DIM]."""
    said = [known().said[place] for place in known().classes.tolist()]
    noise = np.random.default_rng(1).normal(0, 0.4, (len(kinds), DIM))
    rows: npt.NDArray[np.float32] = (12 * layer().weight[[said.index(kind) for kind in kinds]] + noise).astype(
        np.float32
    )
    return rows


def config(clusters: int = len(KINDS)) -> ClusterConfig:
    return ClusterConfig(source=("memory://folder",), clusters=str(clusters))


def named_run(root: Path, kinds: Sequence[str] = KINDS, each: int = EACH, has_classifier: bool = True) -> RunDir:
    """`each` images of every kind, one kind after the other; then one that was skipped, and a copy of the first."""
    shown = [kind for kind in kinds for _ in range(each)]
    rows = np.concatenate([features(shown), np.zeros((2, DIM))])
    statuses = [*[records.OK] * len(shown), records.SKIPPED, records.DUPLICATE]
    run = write_small_run(root, rows, statuses, {len(shown) + 1: 0})
    atomic.write_json(run.model / "config.json", {"format_version": 1, "encoder": None})
    write_run_json(root, {**run.read_state(), "asked": config(len(kinds)).to_json()})
    if has_classifier:
        Classifier(1000, POOLED, layer()).save(run.model / HEAD)
    run_stage(root, "classes", classes.run, config())
    run_stage(root, "cluster", clustering.run, config(len(kinds)))
    run_stage(root, "names", naming.run, config())
    return RunDir.open(root)
