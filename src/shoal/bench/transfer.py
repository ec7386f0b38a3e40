"""The transfer project's experiment: k-means on a supervised network's features, and the silhouette over K.

Images are squashed to the network's square; features are its last map, flattened or pooled, or the softmax over its
classes ("with top"); K runs from 2 to 10 and on to 3,000. Of each network and kind of features there is a run with its
report, a silhouette picture for every K, the curve over K, and its clusters as a CSV of a column each and as folders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shoal import atomic, pipeline, records
from shoal.bench.benchmarks import TRANSFER
from shoal.bench.request import COUNTS, BenchRequest
from shoal.bench.results import Absence
from shoal.config import FEATURES as CHOICES
from shoal.config import ClusterConfig
from shoal.errors import WeightsError
from shoal.export import export
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir

BACKBONES: Final = ("resnet50", "densenet201")
FEATURES: Final = ("map", "default", "probabilities")
FEATURE_WORDS: Final = {"map": "last map", "default": "pooled", "probabilities": "with top"}
COUNTS_LOOKED_AT: Final = "2-10,20-100:10,200-1000:100,2000,3000"
ALL_FEATURES: Final = (*FEATURES, *(name for name in CHOICES if name not in FEATURES))
FIRST_LOOK: Final = 10  # the project looked up to here first
CURVES: Final = "curves"


@dataclass(frozen=True, slots=True)
class Curve:
    """The mean silhouette for every K looked at, on the features of one network."""

    backbone: str
    features: str
    images: int
    dim: int
    ks: tuple[int, ...]
    silhouettes: tuple[float, ...]
    chosen: int  # by Shoal, which looks at stability too
    seconds: dict[str, float]

    def best(self, most: int | None = None) -> tuple[int, float]:
        """The K with the greatest mean silhouette, and that silhouette; `most` bounds the Ks looked at."""
        known = [pair for pair in zip(self.ks, self.silhouettes, strict=True) if most is None or pair[0] <= most]
        return max(known, key=lambda pair: pair[1])


def run(request: BenchRequest, progress: Progress) -> tuple[int, list[Absence]]:
    """Run what is not there yet; return how many curves there are, and what cannot be had and why."""
    folder = request.own_folders.get(TRANSFER, request.general_folder)
    if folder is None or not folder.exists():
        why = f"{folder} does not exist" if folder else "no images: give --data DIR, or --data transfer=DIR"
        return 0, [Absence(TRANSFER, "", why)]
    done, absences = 0, []
    for backbone in request.backbones or BACKBONES:
        try:
            for features in request.features or FEATURES:
                progress.say(f"transfer: {backbone}, {FEATURE_WORDS.get(features, features)}")
                _run_one(request, str(folder), backbone, features, progress)
                done += 1
        except WeightsError as error:  # then they are missing for other features too: asking a hub takes a minute
            absences.append(Absence(TRANSFER, backbone, str(error)))
            progress.say(f"  not run here: {error}")
    return done, absences


def _run_one(request: BenchRequest, source: str, backbone: str, features: str, progress: Progress) -> None:
    name = f"{backbone.replace('/', '_')}-{features}"
    root = request.out / TRANSFER / name
    run_dir = RunDir(root.with_suffix(".shoal"))
    asked = [text for text in request.clusters if text not in COUNTS]
    config = ClusterConfig(
        source=(source,),
        clusters=",".join(asked) or COUNTS_LOOKED_AT,
        backbone=backbone,
        weights=request.pairs["weights"].get(backbone),
        features=features,
        method="kmeans",
        metric="euclidean",
        device=request.device,
        resize="squash",
        limit=request.limit,
    )
    stages = [
        *pipeline.clustering_stages(open_source(config.source)),
        *pipeline.report_stages(),
        pipeline.figures_stage(),
    ]
    before = _digest(run_dir)
    pipeline.run(config, run_dir, stages, progress)
    curve_file = request.out / TRANSFER / CURVES / f"{name}.json"
    if _digest(run_dir) == before and curve_file.is_file():
        return
    _write_out(run_dir, root, progress)
    atomic.write_json(curve_file, asdict(_curve(run_dir, backbone, features)))


def _digest(run_dir: RunDir) -> str | None:
    record = run_dir.stage("cluster")
    return record["digest"] if record else None


def _write_out(run_dir: RunDir, root: Path, progress: Progress) -> None:
    """The clusters as a wide CSV, and as folders of links."""
    root.mkdir(exist_ok=True)
    (root / "clusters.csv").unlink(missing_ok=True)
    export(run_dir, "csv", root / "clusters.csv", layout="wide", progress=progress)
    export(run_dir, "folders", root / f"{_digest(run_dir)}"[:8], mode="link", progress=progress)


def _curve(run_dir: RunDir, backbone: str, features: str) -> Curve:
    state: dict[str, Any] = run_dir.read_state()["stages"]
    evidence = records.read_table(run_dir.choose_k)
    return Curve(
        backbone=backbone,
        features=features,
        images=state["embed"]["facts"]["images"],
        dim=state["embed"]["facts"]["dim"],
        ks=tuple(evidence["k"].to_pylist()),
        silhouettes=tuple(evidence["silhouette"].to_pylist()),
        chosen=state["cluster"]["facts"]["k"],
        seconds={name: state[name]["seconds"] for name in ("embed", "cluster")},
    )


def read_curves(out: Path) -> list[Curve]:
    """All curves under `out`, by network, and by kind of features in the order of FEATURES."""
    files = sorted((out / TRANSFER / CURVES).glob("*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    curves = [Curve(**{**one, "ks": tuple(one["ks"]), "silhouettes": tuple(one["silhouettes"])}) for one in found]
    return sorted(curves, key=lambda curve: (curve.backbone, ALL_FEATURES.index(curve.features)))


def markdown(curves: Sequence[Curve]) -> str:
    """The K with the greatest silhouette for each network and kind of features, and the curves side by side."""
    heads = ["network", "features", "images", f"best K to {FIRST_LOOK}", "best K of all", "Shoal's choice", "seconds"]
    rows = [heads, ["---", "---", *["---:"] * 5]]
    for curve in curves:
        (first, low), (best, high) = curve.best(FIRST_LOOK), curve.best()
        cells = [curve.backbone, f"{FEATURE_WORDS.get(curve.features, curve.features)} ({curve.dim:,}-d)"]
        cells += [f"{curve.images:,}", f"{first:,} ({low:.3f})", f"{best:,} ({high:.3f})", f"{curve.chosen:,}"]
        rows.append([*cells, f"{sum(curve.seconds.values()):.0f}"])
    tables = [rows, _side_by_side(curves)] if curves else []
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in table) for table in tables)


def _side_by_side(curves: Sequence[Curve]) -> list[list[str]]:
    names = [f"{curve.backbone}, {FEATURE_WORDS.get(curve.features, curve.features)}" for curve in curves]
    rows = [["mean silhouette at K", *names], ["---:", *["---:"] * len(curves)]]
    values = [dict(zip(curve.ks, curve.silhouettes, strict=True)) for curve in curves]
    for k in sorted({k for curve in curves for k in curve.ks}):
        rows.append([f"{k:,}", *(f"{known[k]:.3f}" if k in known else "" for known in values)])
    return rows
