"""Every number of clusters that was looked at: silhouettes of all images, and what the page needs to draw them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal import records
from shoal.cluster import threads
from shoal.cluster.kmeans import EUCLIDEAN
from shoal.cluster.number import silhouette
from shoal.cluster.sample import LOOKED_AT, sample_of
from shoal.embeddings import Float32
from shoal.report.findings import Findings, Int32

MOST_IMAGES: Final = 2000  # drawn for each K
MOST_VALUES: Final = 400_000  # images times numbers of clusters that the page carries


@dataclass(frozen=True, slots=True)
class Look:
    """One number of clusters.

    Attributes:
        labels, silhouettes: [m], over the explorer's images.
        mean: the mean silhouette.
        centres: [k, 2] means of the first two features; NaN where a cluster is empty.
    """

    k: int
    labels: Int32
    silhouettes: Float32
    mean: float
    centres: Float32


@dataclass(frozen=True, slots=True)
class Explorer:
    """All looks of a run, made one at a time, over m images: all of them, or a sample of very many."""

    findings: Findings
    positions: npt.NDArray[np.intp]  # [m] among the ok images
    labellings: dict[int, Int32]  # by k, [m]

    @classmethod
    def of(cls, findings: Findings) -> Explorer:
        """The chosen clusters always count as looked at, with the run's own numbers for them."""
        positions = sample_of(findings.ids, LOOKED_AT, findings.seed)
        labellings = {k: labels[positions] for k, labels in _sweep(findings).items()}
        labellings[findings.k] = findings.cluster[positions]
        return cls(findings, positions, dict(sorted(labellings.items())))

    @property
    def is_exact(self) -> bool:
        return len(self.positions) == len(self.findings.ids)

    @property
    def points(self) -> Float32:
        """[m, d], where the clusters were made."""
        return self.findings.points if self.is_exact else self.findings.points[self.positions]

    @property
    def features(self) -> Float32:
        """The first two features of that space, [m, 2]; a missing second one is 0."""
        first = self.points[:, :2]
        return np.pad(first, ((0, 0), (0, 2 - first.shape[1])))

    def looks(self, ks: list[int] | None = None) -> Iterator[Look]:
        """The looks at `ks` (at all), ascending. Those that were never looked at are passed over."""
        wanted = [k for k in self.labellings if ks is None or k in ks]
        points, features = self.points, self.features
        labellings = [self.labellings[k] for k in wanted]
        if self.findings.metric == EUCLIDEAN and wanted:
            found = iter(silhouette.euclidean(points, labellings))  # distances are the cost: all labellings share them
        else:
            found = threads.each(lambda labels: silhouette.cosine(points, labels, int(labels.max()) + 1), labellings)
        for k, labels, values in zip(wanted, labellings, found, strict=True):
            yield Look(k, labels, values.astype(np.float32), float(values.mean()), _centres(features, labels, k))


def _sweep(findings: Findings) -> dict[int, Int32]:
    """The labels at each K looked at, over the ok images."""
    path = findings.run_dir.sweep
    if not path.is_file():
        return {}
    table = records.by_id(records.read_table(path))
    rows = np.searchsorted(table["id"].to_numpy(), findings.ids)
    names = [name for name in table.column_names if name.startswith("k") and name[1:].isdigit()]
    return {int(name[1:]): table[name].to_numpy()[rows].astype(np.int32) for name in names}


def _centres(features: Float32, labels: Int32, clusters: int) -> Float32:
    sizes = np.bincount(labels, minlength=clusters)
    sums = np.column_stack([np.bincount(labels, features[:, axis], minlength=clusters) for axis in (0, 1)])
    centres = np.full((clusters, 2), np.nan, np.float32)
    np.divide(sums, sizes[:, None], out=centres, where=sizes[:, None] > 0, casting="unsafe")
    return centres


def drawn(explorer: Explorer) -> npt.NDArray[np.intp]:
    """Which of the explorer's images the page draws: all, or a sample so that the page stays small."""
    count = len(explorer.positions)
    most = min(MOST_IMAGES, max(300, MOST_VALUES // max(len(explorer.labellings), 1)))
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(explorer.findings.seed).choice(count, most, replace=False))
