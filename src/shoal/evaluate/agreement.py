"""Everything that labels say about one clustering, whether of a run or of a benchmark's test images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.evaluate import metrics
from shoal.evaluate.metrics import ClusterRow, Confusion
from shoal.evaluate.reliability import Reliability, reliability

TOP = 5  # as ImageNet's top-5 accuracy

Names = npt.NDArray[np.str_]
Clusters = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sure:
    """The images that the clustering did not mark unsure: how many, their share, and their ACC under the same match."""

    n: int
    share: float
    acc: float | None  # None if there are none


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence against two notions of right: the label matched to the cluster (as in ACC), or its most frequent."""

    matched: Reliability
    majority: Reliability


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Figures over n images that have a cluster and a label. Ratios are from 0 to 1; ARI and AMI may fall below 0.

    Attributes:
        clusters, classes: how many different ones there are among the n.
        acc_top5: share whose label is matched to one of their five likeliest clusters; None if those are not known.
        sure: None if nothing is marked unsure or not.
        calibration: None if there is no confidence.
        matching: the class matched to each cluster for ACC; a cluster may have none.
        table: one row a cluster, in the clusters' order.
    """

    n: int
    clusters: int
    classes: int
    acc: float
    acc_top5: float | None
    nmi: float
    ami: float
    ari: float
    purity: float
    sure: Sure | None
    calibration: Calibration | None
    matching: dict[int, str]
    table: tuple[ClusterRow, ...]
    confusion: Confusion

    def to_json(self) -> dict[str, Any]:
        """JSON values, keys of objects as text; the confusion's `counts` has a row a cluster and a column a class."""
        plain = ("n", "clusters", "classes", "acc", "acc_top5", "nmi", "ami", "ari", "purity")
        return {
            **{name: getattr(self, name) for name in plain},
            "sure": asdict(self.sure) if self.sure else None,
            "calibration": asdict(self.calibration) if self.calibration else None,
            "matching": {str(cluster): label for cluster, label in self.matching.items()},
            "table": [asdict(row) for row in self.table],
            "confusion": {
                "clusters": list(self.confusion.clusters),
                "classes": list(self.confusion.classes),
                "counts": self.confusion.counts.tolist(),
            },
        }


def agreement(
    labels: Names,
    clusters: Clusters,
    *,
    confidence: npt.NDArray[np.float32] | None = None,
    unsure: Flags | None = None,
    ranked: Clusters | None = None,
) -> Agreement:
    """Compare `clusters` int32 [N] with `labels` str [N].

    Args:
        confidence: [N] from 0 to 1, of the cluster.
        unsure: [N].
        ranked: [N, at most 5], each image's likeliest clusters, its own first; -1 for none.

    Raises:
        ValueError: no images, or sequences of different lengths.
    """
    table = metrics.confusion(labels, clusters)
    matching = metrics.matching(table)
    rows = metrics.cluster_table(labels, clusters)
    is_matched = _is_label(labels, clusters, matching)
    is_majority = _is_label(labels, clusters, {row.cluster: row.majority for row in rows})
    return Agreement(
        n=len(labels),
        clusters=len(table.clusters),
        classes=len(table.classes),
        acc=metrics.clustering_accuracy(labels, clusters),
        acc_top5=None if ranked is None else metrics.top_accuracy(labels, ranked),
        nmi=metrics.nmi(labels, clusters),
        ami=metrics.ami(labels, clusters),
        ari=metrics.ari(labels, clusters),
        purity=metrics.purity(labels, clusters),
        sure=None if unsure is None else _sure(is_matched, ~unsure),
        calibration=None
        if confidence is None
        else Calibration(reliability(confidence, is_matched), reliability(confidence, is_majority)),
        matching=matching,
        table=tuple(rows),
        confusion=table,
    )


def _is_label(labels: Names, clusters: Clusters, label_of: dict[Any, Any]) -> Flags:
    """Whether each image has the label that its cluster stands for."""
    names, place = np.unique(clusters, return_inverse=True)
    wanted = [label_of.get(name) for name in names.tolist()]
    meant = np.array([label or "" for label in wanted])[place]
    has_one = np.array([label is not None for label in wanted])[place]
    right: Flags = has_one & (meant == labels)
    return right


def _sure(is_right: Flags, sure: Flags) -> Sure:
    acc = float(is_right[sure].mean()) if sure.any() else None
    return Sure(int(sure.sum()), float(sure.mean()), acc)
