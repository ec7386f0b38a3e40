"""What a finished run holds, read into memory once for everything that shows it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.cluster.model import ClusterModel
from shoal.cluster.number import silhouette
from shoal.corrections.base import read_base
from shoal.corrections.corrected import corrected_by, corrected_digest
from shoal.corrections.log import read_log
from shoal.corrections.shown import ShownName, read_shown
from shoal.corrections.why import is_refitted, why
from shoal.embeddings import Float32, Ids
from shoal.images import left_out
from shoal.images.location import valid_text
from shoal.pictures.originals import Original
from shoal.report.evaluation import read_evaluation
from shoal.report.map import known_neighbours
from shoal.report.palette import NOISE, colours_by_number
from shoal.report.space import clustering_space
from shoal.report.tsne import Neighbours
from shoal.rundir import RunDir

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Findings:
    """A run as the report sees it. The n `ok` images are in the order of their ids; arrays named so far are over them.

    Attributes:
        state: run.json.
        images: path, uri, sha256, width, height, status, reason, duplicate_of of every image; its row is its id.
        ids: [n] ids of the ok images.
        cluster, runner_up: [n]; confidence, silhouette: [n]; unsure, pinned (a person put it there): [n].
        places: [n, 2] on the map.
        evidence: rows of choose_k.parquet, by k.
        evaluation: report/evaluation.json, or None.
        noise: number of the cluster that holds the noise, or None.
        names: of clusters that a person named; is_corrected: whether a person changed anything;
            is_refitted: whether the clusters were then fitted to that.
        sentence: why this number of clusters.
        shown: what the clusters are called, by a person or as a guess.
    """

    run_dir: RunDir
    state: dict[str, Any]
    images: pa.Table
    ids: Ids
    cluster: Int32
    runner_up: Int32
    confidence: Float32
    silhouette: Float32
    unsure: npt.NDArray[np.bool_]
    pinned: npt.NDArray[np.bool_]
    places: Float32
    evidence: list[dict[str, Any]]
    evaluation: dict[str, Any] | None
    names: dict[int, str]
    noise: int | None
    is_corrected: bool
    is_refitted: bool
    sentence: str
    shown: dict[int, ShownName]

    @classmethod
    def read(cls, run_dir: RunDir) -> Findings:
        """Raises RunError if the run has no finished clusters."""
        run_dir.require("cluster")
        columns = ["id", "path", "uri", "sha256", "width", "height", "status", "reason", "duplicate_of"]
        images = records.by_id(run_dir.read_images(columns))
        log = read_log(run_dir)
        corrected = corrected_by(run_dir, read_base(run_dir), log)
        is_ok = pc.equal(images["status"].take(pa.array(corrected.ids)), records.OK).to_numpy()
        fields = ("ids", "cluster", "confidence", "unsure", "pinned", "silhouette", "runner_up")
        ok: dict[str, Any] = {name: getattr(corrected, name)[is_ok] for name in fields}
        return cls(
            run_dir=run_dir,
            state=run_dir.read_state(),
            images=images,
            ids=ok["ids"],
            cluster=ok["cluster"],
            runner_up=ok["runner_up"],
            confidence=ok["confidence"],
            silhouette=_measured(run_dir, ok["ids"], ok["cluster"], ok["silhouette"]),
            unsure=ok["unsure"],
            pinned=ok["pinned"],
            places=_read_places(run_dir, ok["ids"]),
            evidence=_read_evidence(run_dir),
            evaluation=_read_evaluation(run_dir),
            names=corrected.names,
            noise=corrected.noise,
            is_corrected=corrected.is_changed,
            is_refitted=is_refitted(log),
            sentence=why(run_dir, corrected, log),
            shown=read_shown(run_dir, corrected),
        )

    @property
    def seed(self) -> int:
        return int(self.asked.get("seed", 0))

    @property
    def asked(self) -> dict[str, Any]:
        """What `shoal cluster` was asked for: ClusterConfig as JSON, names of files as text for people."""
        return {name: _shown(value) for name, value in self.state.get("asked", {}).items()}

    @property
    def name(self) -> str:
        """What the person calls the images."""
        name: str = self.state.get("source", {}).get("name", "") or self.run_dir.root.name
        return name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the cluster stage said of its result."""
        stage = self.state["stages"]["cluster"]
        facts: dict[str, Any] = stage.get("facts", {})
        return facts

    @property
    def left_out(self) -> dict[str, int]:
        """How many folders of each kind were not looked into; {} for runs of before, which do not tell."""
        facts: dict[str, Any] = self.state["stages"].get("index", {}).get("facts", {})
        found: dict[str, int] = facts.get(left_out.FACT, {})
        return found

    @property
    def left_out_sentence(self) -> str:
        return left_out.told(self.left_out)

    @property
    def recall(self) -> float:
        """Share of the true nearest neighbours that were found: 1 where all pairs were compared."""
        stage = self.state["stages"].get("neighbours", {})
        return float(stage.get("facts", {}).get("recall", 1.0))

    @property
    def method(self) -> str:
        """How the clusters were found, and why so where there was something to choose; empty if there was not."""
        why = self.facts.get("why_method", "")  # a trained head's clusters have none
        return f"{self.facts['method']}: {why}" if why else ""

    @property
    def metric(self) -> str:
        metric: str = self.facts.get("metric") or self.asked.get("metric", "cosine")
        return metric

    def image(self, number: int) -> Original:
        """What a picture of an image is made of."""
        columns = ("path", "uri", "sha256", "width", "height")
        return Original(*(self.images[name][number].as_py() for name in columns))

    def path(self, number: int) -> str:
        """The path of an image."""
        path: str = self.images["path"][number].as_py()
        return path

    def position(self, number: int) -> int:
        """The place of an ok image among them."""
        return int(np.searchsorted(self.ids, number))

    def cluster_of(self, number: int) -> int:
        """The cluster of an ok image."""
        return int(self.cluster[self.position(number)])

    def title(self, cluster: int) -> str:
        """What a cluster is called."""
        return self.names.get(cluster) or f"Cluster {cluster}"

    def guess(self, cluster: int) -> ShownName | None:
        """What a cluster may show, where no person named it."""
        shown = self.shown.get(cluster)
        return shown if shown is not None and shown.is_guess else None

    @property
    def chosen_k(self) -> int:
        """The number of clusters that the evidence is about, whatever people made of them."""
        return next((int(row["k"]) for row in self.evidence if row.get("chosen")), self.k)

    @property
    def compared_silhouette(self) -> float | None:
        """The mean silhouette by which the number was chosen: of k-means, which need not have made the clusters."""
        return next((row.get("silhouette") for row in self.evidence if row.get("chosen")), None)

    @cached_property
    def k(self) -> int:
        """One more than the highest number of a cluster."""
        return int(self.cluster.max(initial=-1)) + 1

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Distinct images in each cluster, [K]."""
        return np.bincount(self.cluster, minlength=self.k)

    @cached_property
    def by_size(self) -> list[int]:
        """Clusters that hold an image, largest first."""
        order = np.argsort(-self.sizes, kind="stable")
        return [int(cluster) for cluster in order if self.sizes[cluster]]

    @property
    def count(self) -> int:
        """How many clusters there are; the noise is none."""
        return len(self.by_size) - (self.noise in self.by_size)

    def members(self, cluster: int) -> npt.NDArray[np.intp]:
        """Positions among the ok images of a cluster's members."""
        return self._sorted_positions[self._starts[cluster] : self._starts[cluster + 1]]

    @cached_property
    def colours(self) -> list[str]:
        """A colour for each cluster, [K]."""
        return [NOISE if cluster == self.noise else colour for cluster, colour in enumerate(colours_by_number(self.k))]

    @cached_property
    def counts(self) -> Counter[str]:
        """Images by status."""
        return Counter({pair["values"]: pair["counts"] for pair in self.images["status"].value_counts().to_pylist()})

    @cached_property
    def copies(self) -> dict[int, list[int]]:
        """Ids of exact duplicates by the id of their original."""
        groups: dict[int, list[int]] = {}
        is_copy = pc.and_(pc.equal(self.images["status"], records.DUPLICATE), pc.is_valid(self.images["duplicate_of"]))
        copies = self.images.filter(is_copy)
        for copy, original in zip(copies["id"].to_pylist(), copies["duplicate_of"].to_pylist(), strict=True):
            groups.setdefault(original, []).append(copy)
        return groups

    @cached_property
    def points(self) -> Float32:
        """The vectors that clusters were made of, [n, d]."""
        return clustering_space(self.run_dir, self.ids)

    @cached_property
    def neighbours(self) -> tuple[Neighbours, Float32]:
        """Mined neighbours as positions among the ok images [n, k], -1 for none, and their similarity."""
        return known_neighbours(self.run_dir, self.ids)

    @cached_property
    def _sorted_positions(self) -> npt.NDArray[np.intp]:
        return np.argsort(self.cluster, kind="stable")

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.sizes)])


def _read_places(run_dir: RunDir, ids: Ids) -> Float32:
    """[n, 2]; all at 0 if the run has no map."""
    places = np.zeros((int(ids.max(initial=-1)) + 1, 2), np.float32)
    if run_dir.map.is_file():
        table = records.read_table(run_dir.map)
        rows = table["id"].to_numpy()
        inside = rows < len(places)
        places[rows[inside]] = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])[inside]
    return places[ids]


def _read_evidence(run_dir: RunDir) -> list[dict[str, Any]]:
    """Rows of choose_k.parquet with None for what was not measured."""
    if not run_dir.choose_k.is_file():
        return []
    rows = parquet.in_order(records.read_table(run_dir.choose_k), "k").to_pylist()
    return [{name: _finite(value) for name, value in row.items()} for row in rows]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_evaluation(run_dir: RunDir) -> dict[str, Any] | None:
    """None too if it is of other clusters than the run has now."""
    evaluation = read_evaluation(run_dir.evaluation)
    is_of_these = evaluation is not None and evaluation["clusters_digest"] == corrected_digest(run_dir)
    return evaluation if is_of_these else None


def _measured(run_dir: RunDir, ids: Ids, cluster: Int32, known: Float32) -> Float32:
    """The silhouettes, measured again if people changed clusters."""
    if not np.isnan(known).any():
        return known
    points, metric = clustering_space(run_dir, ids), ClusterModel.load(run_dir.model).space.metric
    labels = np.unique(cluster, return_inverse=True)[1].astype(np.int32)
    if len(np.unique(labels)) < 2:
        return np.zeros(len(ids), np.float32)
    return silhouette.of(points, labels, metric).astype(np.float32)


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(one) for one in value]
    return valid_text(value) if isinstance(value, str) else value
