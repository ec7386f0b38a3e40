"""One method, one seed: clusters of the images fitted on, and of those reported on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal.bench.embedded import Embedded, run_stages, unit_features, usable_ids
from shoal.bench.references import REFERENCES
from shoal.cluster.arrays import Labels
from shoal.cluster.density import NOISE, nearest_cluster
from shoal.config import ClusterConfig
from shoal.corrections.model import CorrectedModel, load_model
from shoal.embeddings import EmbeddingStore, Float32, Ids
from shoal.errors import WorkError
from shoal.evaluate.agreement import TOP
from shoal.evaluate.ranking import led_by, ranked_clusters
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_of


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Clusters of the usable images of one run, by rising id; what a method does not know is None."""

    clusters: Labels
    confidence: Float32 | None = None
    unsure: npt.NDArray[np.bool_] | None = None
    ranked: Labels | None = None  # [n, at most 5], likeliest first, -1 for none

    def digest(self) -> str:
        """To tell whether two placements are the same."""
        known = [self.clusters, self.confidence, self.unsure, self.ranked]
        return digest_of(*(None if values is None else values.tobytes().hex() for values in known))


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one method made with one seed.

    Attributes:
        fitted: of the images fitted on.
        reported: of the images reported on: the same ones where there is no split.
        seconds: to fit, and to place the images reported on.
        facts: what else is worth telling: number of clusters, the method taken, why.
    """

    fitted: Placed
    reported: Placed
    seconds: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


def by_pipeline(embedded: Embedded, config: ClusterConfig) -> Outcome:
    """Cluster the train run as `shoal cluster` does, and place the test images as `shoal assign` does.

    Raises:
        ShoalError: whatever the clustering raises.
    """
    run_stages(config, embedded.train, ("cluster",), Progress())
    record = embedded.train.stage("cluster")
    assert record is not None
    model = load_model(embedded.train.model)
    fitted = _of_run(embedded.train, model)
    began = time.perf_counter()
    reported = fitted if embedded.test is None else _assigned(model, embedded.test)
    seconds = {"fit": record["seconds"], "place": round(time.perf_counter() - began, 3)}
    return Outcome(fitted, reported, seconds, record["facts"])


def by_reference(embedded: Embedded, name: str, count: int | None, seed: int) -> Outcome:
    """Cluster the same features, scaled to unit length, with another package.

    Raises:
        WorkError: whatever the package raises.
    """
    rows = unit_features(embedded.train)
    began = time.perf_counter()
    try:
        found = REFERENCES[name].fit(rows, count, seed)
    except Exception as error:  # another package's trouble is a line of the table, not the end of the bench
        raise WorkError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    fitted = time.perf_counter()
    is_noise = found.labels == NOISE
    labels = found.labels.copy()
    labels[is_noise] = nearest_cluster(rows, found.labels, rows[is_noise])
    reported = labels if embedded.test is None else found.place(unit_features(embedded.test))
    placed = time.perf_counter()
    facts = {
        "k": len(np.unique(labels)),
        "method": name,
        "noise": float(is_noise.mean()),
        "setting": REFERENCES[name].setting,
    }
    seconds = {"fit": round(fitted - began, 3), "place": round(placed - fitted, 3)}
    return Outcome(Placed(labels), Placed(reported), seconds, facts)


def _of_run(run: RunDir, model: CorrectedModel) -> Placed:
    """What clusters.parquet says, without duplicates, and the model's further choices."""
    ids = usable_ids(run)
    rows = run.read_clusters(["id", "cluster", "confidence", "unsure"])
    rows = rows.filter(pc.is_in(rows["id"], value_set=pa.array(ids))).sort_by("id")
    clusters = rows["cluster"].to_numpy()
    ranked = led_by(clusters, _ranked(model, run, ids), TOP)
    return Placed(clusters, rows["confidence"].to_numpy(), rows["unsure"].to_numpy(), ranked)


def _assigned(model: CorrectedModel, run: RunDir) -> Placed:
    ids = usable_ids(run)
    store = EmbeddingStore.open(run.embeddings)
    blocks = [model.assign(features) for _, features in store.blocks(ids)]
    clusters = np.concatenate([block.cluster for block in blocks])
    return Placed(
        clusters,
        np.concatenate([block.confidence for block in blocks]),
        np.concatenate([block.unsure for block in blocks]),
        led_by(clusters, _ranked(model, run, ids), TOP),
    )


def _ranked(model: CorrectedModel, run: RunDir, ids: Ids) -> Labels:
    store = EmbeddingStore.open(run.embeddings)
    return np.concatenate([ranked_clusters(model, features, TOP) for _, features in store.blocks(ids)])
