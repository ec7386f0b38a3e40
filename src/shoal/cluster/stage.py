"""The clustering stage: embeddings become clusters, with the evidence for their number and a model for new images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.cluster import kmeans, levels
from shoal.cluster.choose_k import Choice, automatic_counts, choose
from shoal.cluster.kmeans import EUCLIDEAN, Clustering
from shoal.cluster.model import Assignment, fit_model
from shoal.cluster.space import centroids_of, cluster_points, fit_space
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.errors import ConfigError
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file, digest_of

RUNNERS_UP = 3


def key(config: ClusterConfig) -> dict[str, Any]:
    """The options that make the clusters stale. Raises ConfigError if the method is not one of this version's."""
    if config.method == "learned":
        raise ConfigError("--method has value 'learned'; this version has only kmeans (which auto takes)")
    return {"clusters": config.counts.values, "method": config.method, "metric": config.metric, "seed": config.seed}


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write clusters, choose_k, sweep, levels and the model.

    Raises:
        TooFewImagesError: fewer usable images than clusters, or fewer than two.
    """
    images = run_dir.read_images(["id", "path", "status", "duplicate_of"])
    ids = images.filter(pc.equal(images["status"], records.OK))["id"].to_numpy()
    store = EmbeddingStore.open(run_dir.embeddings)
    space = fit_space(store, ids, config.metric, np.random.default_rng([config.seed, 3]))
    points, lengths = cluster_points(space, store, ids)
    numbers = len(config.counts.values or automatic_counts(len(ids)))
    with progress.task("Clustering", numbers, "numbers of clusters") as task:
        choice = choose(points, config.counts, config.seed, metric=config.metric, watch=lambda _: task.advance())
    if left_out := [k for k in config.counts.values if k > len(ids)]:
        progress.say(f"--clusters: left out {len(left_out)} numbers above the {len(ids)} usable images")
    found = _numbered(choice, points, config.metric)
    model = fit_model(space, found, points, lengths, config.seed)
    rows = _Rows.of(images, ids)
    columns = _describe(choice, found, model.assign_points(points, lengths))
    records.write_table(run_dir.clusters, rows.table(columns, records.CLUSTERS))
    nested = levels.nested(points, found.labels, found.centroids, config.seed, config.metric)
    records.write_table(
        run_dir.levels, rows.table({"coarse": nested.coarse, "medium": nested.medium, "fine": nested.fine})
    )
    looked_at = {f"k{item.k}": item.clustering.labels for item in choice.candidates}
    records.write_table(run_dir.root / "sweep.parquet", rows.table(looked_at))
    records.write_table(run_dir.choose_k, _evidence(choice))
    if config.metric == EUCLIDEAN:  # the points may be other coordinates than those of new images
        model = replace(model, centroids=centroids_of(space, store, ids, found.labels, choice.chosen.k))
    model.save(run_dir.model)
    digest = digest_of(*(digest_file(path) for path in (run_dir.clusters, run_dir.choose_k)))
    return StageResult(digest, {"metric": config.metric, **_facts(choice, found, columns["unsure"])})


def _numbered(choice: Choice, points: Float32, metric: str) -> Clustering:
    """The chosen clustering with its clusters numbered by size, and its centroids in the space of `points`."""
    labels, _ = kmeans.number_by_size(choice.chosen.clustering.labels, choice.chosen.k)
    sums, counts = kmeans.cluster_sums(points, labels, choice.chosen.k)
    centroids = (sums / counts[:, None]).astype(np.float32)
    if metric != EUCLIDEAN:
        normalise_rows(centroids)
    return Clustering(labels, centroids, choice.chosen.clustering.inertia, choice.chosen.clustering.iterations)


def _describe(choice: Choice, found: Clustering, assignment: Assignment) -> dict[str, npt.NDArray[Any]]:
    """The columns of clusters.parquet but for id and path."""
    # Where two centroids are equally near, k-means and assignment may differ; what k-means said stands.
    other = np.where(assignment.runner_up == found.labels, assignment.cluster, assignment.runner_up)
    return {
        "cluster": found.labels,
        "confidence": assignment.confidence,
        "unsure": assignment.unsure | (choice.silhouettes < 0),
        "silhouette": choice.silhouettes.astype(np.float32),
        "runner_up": other.astype(np.int32),
    }


@dataclass(frozen=True, slots=True)
class _Rows:
    """One row for every usable image and every duplicate of one, by rising id."""

    ids: list[int]
    paths: list[str]
    source: npt.NDArray[np.int64]  # [rows], position among the usable images

    @classmethod
    def of(cls, images: pa.Table, usable: Ids) -> _Rows:
        place = {int(image): number for number, image in enumerate(usable)}
        rows = []
        for image in images.to_pylist():
            original = image["duplicate_of"] if image["status"] == records.DUPLICATE else image["id"]
            if original in place:
                rows.append((image["id"], image["path"], place[original]))
        rows.sort()
        ids, paths, source = zip(*rows, strict=True)
        return cls(list(ids), list(paths), np.array(source, dtype=np.int64))

    def table(self, columns: dict[str, npt.NDArray[Any]], schema: pa.Schema | None = None) -> pa.Table:
        """A table with id, with path if `schema` has it, and each column [usable images] spread over the rows."""
        head: dict[str, Any] = {"id": pa.array(self.ids, pa.int64())}
        if schema is not None and "path" in schema.names:
            head["path"] = self.paths
        return pa.table({**head, **{name: values[self.source] for name, values in columns.items()}}, schema=schema)


def _evidence(choice: Choice) -> pa.Table:
    """One row for each number of clusters looked at."""
    rows = choice.candidates
    return pa.table(
        {
            "k": pa.array([row.k for row in rows], pa.int32()),
            "silhouette": pa.array([row.silhouette for row in rows], pa.float64()),
            "stability": pa.array([row.stability.rand for row in rows], pa.float64()),
            "inertia": pa.array([row.clustering.inertia for row in rows], pa.float64()),
            "smallest": pa.array([row.smallest for row in rows], pa.int32()),
            "chosen": pa.array([row is choice.chosen for row in rows], pa.bool_()),
        }
    )


def _facts(choice: Choice, found: Clustering, unsure: npt.NDArray[np.bool_]) -> dict[str, Any]:
    ranked = sorted(choice.candidates, key=lambda item: -item.score)
    return {
        "k": choice.chosen.k,
        "sentence": choice.sentence,
        "method": "kmeans",
        "sizes": np.bincount(found.labels, minlength=choice.chosen.k).tolist(),
        "n_unsure": int(unsure.sum()),
        "runners_up": [item.k for item in ranked if item is not choice.chosen][:RUNNERS_UP],
        "silhouette": round(choice.chosen.silhouette, 6),
    }
