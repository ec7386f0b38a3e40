"""`evaluate`: a run's clusters beside labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import atomic
from shoal.edits.corrected import corrected_digest, corrected_table, read_corrected
from shoal.evaluate import metrics
from shoal.evaluate.labels import read_labels
from shoal.evaluate.metrics import ClusterRow, Confusion
from shoal.rundir import RunDir

NEIGHBOUR_IDS = "ids.npy"  # in neighbours/: [N, K] int32, row = id, -1 for none


@dataclass(frozen=True, slots=True)
class Sure:
    """The images that the clustering did not mark unsure: how many, their share, and their ACC under the same match."""

    n: int
    share: float
    acc: float | None  # None if there are none


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What labels say about a run. Ratios are between 0 and 1; ARI and AMI may fall below 0.

    Attributes:
        n: images that have a cluster and a label, duplicates included; every figure is over these.
        clusters: clusters of the run.
        classes: distinct labels among the n.
        unlabelled: images that have a cluster, but no label.
        unmatched: labels given for images that the run does not have.
        labels: where the labels come from.
        clusters_digest: of the clusters that were compared, edits and all, to tell whether this is still true.
        matching: the class matched to each cluster for ACC; a cluster may have none.
        table: one row a cluster, in the clusters' order.
        neighbour_purity: at k = 1, 5, 20, 50, as far as the run's neighbours go; empty if it has none.
    """

    n: int
    clusters: int
    classes: int
    acc: float
    nmi: float
    ami: float
    ari: float
    purity: float
    unlabelled: int
    unmatched: int
    labels: str
    clusters_digest: str
    sure: Sure
    neighbour_purity: dict[int, float]
    matching: dict[int, str]
    table: tuple[ClusterRow, ...]
    confusion: Confusion

    def summary_line(self) -> str:
        return (
            f"ACC {self.acc:.3f}  NMI {self.nmi:.3f}  ARI {self.ari:.3f}  purity {self.purity:.3f}  "
            f"({self.n:,} images, {self.clusters:,} clusters, {self.classes:,} labels from {self.labels})"
        )

    def text(self) -> str:
        """Lines for a terminal: the figures, and one line a cluster, largest first."""
        lines = [self.summary_line(), f"AMI {self.ami:.3f}  {self._sure_words()}"]
        if self.neighbour_purity:
            shares = "  ".join(f"{value:.3f} at {k}" for k, value in self.neighbour_purity.items())
            lines.append(f"neighbours with the same label: {shares}")
        if self.unlabelled or self.unmatched:
            lines.append(f"{self.unlabelled:,} images have no label; {self.unmatched:,} labels have no image")
        lines += ["", "cluster     size  accuracy  majority label"]
        for row in sorted(self.table, key=lambda row: -row.size):
            lines.append(f"{row.cluster:7d} {row.size:8,d}  {row.accuracy:8.3f}  {row.majority}")
        return "\n".join(lines)

    def _sure_words(self) -> str:
        if self.sure.acc is None:
            return "every image is unsure"
        return f"sure images: {self.sure.share:.1%}, ACC {self.sure.acc:.3f}"

    def to_json(self) -> dict[str, Any]:
        """JSON values, keys of objects as text; the confusion's `counts` has a row a cluster and a column a class."""
        return {
            **{
                name: getattr(self, name) for name in ("n", "clusters", "classes", "acc", "nmi", "ami", "ari", "purity")
            },
            **{name: getattr(self, name) for name in ("unlabelled", "unmatched", "labels", "clusters_digest")},
            "labelled": self.n,
            "sure": asdict(self.sure),
            "neighbour_purity": {str(k): value for k, value in self.neighbour_purity.items()},
            "matching": {str(cluster): label for cluster, label in self.matching.items()},
            "table": [asdict(row) for row in self.table],
            "confusion": {
                "clusters": list(self.confusion.clusters),
                "classes": list(self.confusion.classes),
                "counts": self.confusion.counts.tolist(),
            },
        }


def evaluate(run_dir: RunDir, labels: str | None = None) -> Evaluation:
    """Compare a run's clusters with labels. Writes nothing.

    Args:
        labels: see `read_labels`.

    Raises:
        RunError: the run has no clusters yet.
        RequestError: there are no labels, or they are not as expected.
    """
    rows = corrected_table(run_dir, read_corrected(run_dir))
    found = read_labels(run_dir, labels)
    is_labelled = np.array([number in found.by_id for number in rows["id"].to_pylist()], dtype=bool)
    labelled = rows.filter(pa.array(is_labelled))
    names = np.array([found.by_id[number] for number in labelled["id"].to_pylist()])
    clusters = labelled["cluster"].to_numpy()
    table = metrics.confusion(names, clusters)
    matching = metrics.matching(table)
    return Evaluation(
        n=len(names),
        clusters=len(pc.unique(rows["cluster"])),
        classes=len(table.classes),
        acc=metrics.clustering_accuracy(names, clusters),
        nmi=metrics.nmi(names, clusters),
        ami=metrics.ami(names, clusters),
        ari=metrics.ari(names, clusters),
        purity=metrics.purity(names, clusters),
        unlabelled=len(rows) - len(names),
        unmatched=found.unmatched,
        labels=found.source,
        clusters_digest=corrected_digest(run_dir),
        sure=_sure(names, clusters, labelled["unsure"].to_numpy(), matching),
        neighbour_purity=_neighbour_purity(run_dir, found.by_id),
        matching=matching,
        table=tuple(metrics.cluster_table(names, clusters)),
        confusion=table,
    )


def write(run_dir: RunDir, evaluation: Evaluation) -> None:
    """Write report/evaluation.json, atomically; the report shows it."""
    atomic.write_json(run_dir.evaluation, evaluation.to_json())


def _sure(
    names: npt.NDArray[np.str_],
    clusters: npt.NDArray[np.int32],
    unsure: npt.NDArray[np.bool_],
    matching: dict[int, str],
) -> Sure:
    is_right = np.array([matching.get(cluster) == name for cluster, name in zip(clusters.tolist(), names, strict=True)])
    sure = ~unsure
    acc = float(is_right[sure].mean()) if sure.any() else None
    return Sure(int(sure.sum()), float(sure.mean()), acc)


def _neighbour_purity(run_dir: RunDir, by_id: dict[int, str]) -> dict[int, float]:
    file = run_dir.neighbours / NEIGHBOUR_IDS
    if not file.is_file():
        return {}
    neighbours = np.load(file, mmap_mode="r")
    ids = np.fromiter(by_id, dtype=np.int64)
    classes = np.full(max(len(neighbours), ids.max() + 1), -1)
    classes[ids] = np.unique(np.array(list(by_id.values())), return_inverse=True)[1]
    return metrics.neighbour_purity(classes[: len(neighbours)], neighbours)
