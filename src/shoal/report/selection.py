"""Which images the report shows: of every cluster, around four anchors, among duplicates and on the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shoal.embeddings import Ids
from shoal.report.findings import Findings
from shoal.report.prototypes import least_sure, prototypes

PROTOTYPES: Final = 8
DOUBTFUL: Final = 7
ANCHORS: Final = 4
ANCHOR_NEIGHBOURS: Final = 8
DUPLICATE_GROUPS: Final = 24
MAP_PICTURES: Final = 1500
MOST_PICTURED: Final = 300  # clusters shown with images, the largest; of the others the page has a line each


@dataclass(frozen=True, slots=True)
class ClusterShown:
    """One cluster, told: ids of its images in `prototypes` and `doubtful`; `copies` counts exact duplicates besides."""

    cluster: int
    size: int
    copies: int
    share: float
    confidence: float
    silhouette: float
    unsure: int
    prototypes: list[int]
    doubtful: list[int]


@dataclass(frozen=True, slots=True)
class AnchorShown:
    """An image and its nearest neighbours, nearest first: (id, cosine similarity)."""

    anchor: int
    neighbours: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Everything that needs a picture. Clusters come largest first."""

    clusters: list[ClusterShown]
    anchors: list[AnchorShown]
    duplicates: list[tuple[int, list[int]]]  # (original, its copies), largest groups first
    on_map: Ids

    @property
    def pictured(self) -> list[ClusterShown]:
        """The clusters whose images are shown."""
        return self.clusters[:MOST_PICTURED]

    @property
    def listed(self) -> list[ClusterShown]:
        """The others, without images."""
        return self.clusters[MOST_PICTURED:]

    def large(self) -> list[int]:
        """Ids shown in the page's rows, ascending."""
        ids = {number for shown in self.pictured for number in (*shown.prototypes, *shown.doubtful)}
        ids |= {number for shown in self.anchors for number in (shown.anchor, *(near for near, _ in shown.neighbours))}
        ids |= {original for original, _ in self.duplicates}
        return sorted(ids)


def select(findings: Findings) -> Selection:
    """Choose by the run's seed: the same run shows the same images."""
    random = np.random.default_rng(findings.seed)
    return Selection(
        clusters=[show(findings, cluster) for cluster in findings.by_size],
        anchors=_anchors(findings, random),
        duplicates=sorted(findings.copies.items(), key=lambda group: (-len(group[1]), group[0]))[:DUPLICATE_GROUPS],
        on_map=np.sort(random.permutation(findings.ids)[:MAP_PICTURES]),
    )


def show(findings: Findings, cluster: int) -> ClusterShown:
    """One cluster, with the images that stand for it."""
    members = findings.members(cluster)
    confidence = findings.confidence[members]
    sure = np.flatnonzero(~findings.unsure[members])
    if not len(sure):
        sure = np.arange(len(members))
    typical = sure[
        prototypes(findings.points[members[sure]], confidence[sure], PROTOTYPES, findings.pinned[members[sure]])
    ]
    doubtful = least_sure(confidence, typical, DOUBTFUL)
    ids = findings.ids[members]
    return ClusterShown(
        cluster=cluster,
        size=len(members),
        copies=sum(len(findings.copies.get(number, ())) for number in ids.tolist()) if findings.copies else 0,
        share=len(members) / len(findings.ids),
        confidence=float(confidence.mean(dtype=np.float64)),
        silhouette=float(findings.silhouette[members].mean(dtype=np.float64)),
        unsure=int(findings.unsure[members].sum()),
        prototypes=ids[typical].tolist(),
        doubtful=ids[doubtful].tolist(),
    )


def _anchors(findings: Findings, random: np.random.Generator) -> list[AnchorShown]:
    neighbours, similarity = findings.neighbours
    with_neighbours = np.flatnonzero((neighbours >= 0).any(axis=1))
    shown = []
    for position in random.permutation(with_neighbours)[:ANCHORS]:
        near = [
            (int(findings.ids[other]), float(score))
            for other, score in zip(neighbours[position], similarity[position], strict=True)
            if other >= 0
        ]
        shown.append(AnchorShown(int(findings.ids[position]), near[:ANCHOR_NEIGHBOURS]))
    return shown
