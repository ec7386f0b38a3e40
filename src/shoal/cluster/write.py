"""Writing a clustering: the tables and the model that every maker of clusters leaves, all of them together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shoal import records
from shoal.cluster.arrays import Labels
from shoal.cluster.levels import Levels
from shoal.cluster.model import Assignment, ClusterModel
from shoal.cluster.rows import ImageRows
from shoal.cluster.space import ClusterSpace
from shoal.embeddings import Float32
from shoal.rundir import RunDir, StageResult, digest_file, digest_of

CHOOSE_K: Final = pa.schema(
    [
        ("k", pa.int32()),
        ("silhouette", pa.float64()),
        ("stability", pa.float64()),
        ("coding_length", pa.float64()),
        ("inertia", pa.float64()),
        ("smallest", pa.int32()),
        ("images", pa.int32()),
        ("chosen", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """What was seen at one number of clusters, `k`: a row of choose_k.parquet.

    Attributes:
        silhouette: mean over the images, from -1 to 1.
        inertia: as `Clustering` has it.
        smallest: images in the smallest cluster.
        images: how many were looked at.
        chosen: whether this is the number.
        stability: adjusted Rand index of resamples; coding_length: bits an image. None: not measured.
    """

    k: int
    silhouette: float
    inertia: float
    smallest: int
    images: int
    chosen: bool
    stability: float | None = None
    coding_length: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was looked at to choose the number of clusters.

    Attributes:
        table: a row for each number, as choose_k.parquet has it.
        sweep: the cluster of every usable image at each, by `k<K>`.
    """

    table: pa.Table
    sweep: Mapping[str, Labels]

    @classmethod
    def of(cls, rows: Sequence[EvidenceRow], sweep: Mapping[str, Labels]) -> Evidence:
        """Evidence from a row for each number."""
        return cls(pa.Table.from_pylist([asdict(row) for row in rows], schema=CHOOSE_K), sweep)


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """A clustering of the n usable images of a run, by rising id, ready to be written.

    Attributes:
        rows: the images, and the copies that follow them.
        cluster: int32 [n] from 0; confidence, silhouette: float32 [n]; unsure: bool [n]; runner_up: int32 [n].
        levels: coarser and finer clusters.
        model: what assigns new images; `numbers` int32 [M] are the clusters of its centroids if several belong to one.
        names: of clusters that people named.
        evidence: None where the number was not chosen now, so that what was known before stands.
        facts: worth telling (JSON values): k, sentence, method, ….
    """

    rows: ImageRows
    cluster: Labels
    confidence: Float32
    unsure: npt.NDArray[np.bool_]
    silhouette: Float32
    runner_up: Labels
    levels: Levels
    model: ClusterModel
    evidence: Evidence | None
    facts: dict[str, Any]
    numbers: Labels | None = None
    names: Mapping[int, str] = field(default_factory=dict)


def runner_up(labels: Labels, assignment: Assignment) -> Labels:
    """The likeliest other cluster, int32 [n]: where assignment puts an image elsewhere than `labels` do, that is it."""
    other = np.where(assignment.runner_up == labels, assignment.cluster, assignment.runner_up)
    return other.astype(np.int32)


def write(run_dir: RunDir, found: Clusters) -> StageResult:
    """Write clusters.parquet, levels.parquet, choose_k.parquet, sweep.parquet and the clusters of model/."""
    columns: dict[str, npt.NDArray[Any]] = {
        "cluster": found.cluster,
        "confidence": found.confidence,
        "unsure": found.unsure,
        "silhouette": found.silhouette.astype(np.float32),
        "runner_up": found.runner_up,
    }
    levels = {"coarse": found.levels.coarse, "medium": found.levels.medium, "fine": found.levels.fine}
    records.write_table(run_dir.new("clusters.parquet"), found.rows.table(columns, records.CLUSTERS))
    records.write_table(run_dir.new("levels.parquet"), found.rows.table(levels))
    if found.evidence is None:
        run_dir.keep("choose_k.parquet")
        run_dir.keep("sweep.parquet")
    else:
        records.write_table(run_dir.new("choose_k.parquet"), found.evidence.table)
        records.write_table(run_dir.new("sweep.parquet"), found.rows.table(dict(found.evidence.sweep)))
    found.model.save(run_dir.new_in("model"), found.numbers, found.names)
    facts = {
        **found.facts,
        "n_unsure": int(found.unsure.sum()),
        "silhouette": round(float(found.silhouette.mean(dtype=np.float64)), 6),
    }
    digest = digest_of(*(digest_file(path) for path in (run_dir.clusters, run_dir.choose_k)))
    return StageResult(digest, facts, {"space": _digest_of_space(found.model.space.plain)})


def _digest_of_space(space: ClusterSpace) -> str:
    """A digest of where the images lie, whatever the clusters."""
    state = hashlib.sha256(space.metric.encode())
    for array in (space.mean, space.basis, space.scales):
        state.update(b"none" if array is None else np.ascontiguousarray(array, "<f4").tobytes())
    return state.hexdigest()
