"""A data set embedded once for all methods and seeds: a run for the images fitted on, one for those reported on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import atomic, pipeline, records
from shoal.bench.data import Splits
from shoal.bench.request import BenchRequest
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows
from shoal.evaluate.labels import names_in, read_labels
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir

TRAIN, TEST = "train", "test"
STEPS = ("index", "embed", "images", "neighbours")
SECONDS = "seconds.json"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embedded images of one data set by one backbone, under `root`.

    `test` is None where there is no split; then figures are over the images that were fitted on.
    """

    root: Path
    train: RunDir
    test: RunDir | None
    splits: Splits

    @property
    def reported(self) -> RunDir:
        return self.test or self.train

    def digest(self) -> list[str]:
        """Of everything that clusters are made from."""
        return [record["digest"] for run in self.runs for record in [run.stage("embed")] if record]

    def seconds(self) -> dict[str, float | None]:
        """Of each step before the clusters, both splits together, the first time that it was done; None: not known."""
        file = self.root / SECONDS
        known: dict[str, float | None] = json.loads(file.read_bytes()) if file.is_file() else {}
        return {name: known.get(name) for name in STEPS}

    def facts(self) -> dict[str, Any]:
        """How many images there are of each kind, and by what they were embedded."""
        embed = self.train.stage("embed")
        assert embed is not None
        told = {name: embed["facts"][name] for name in ("dim", "weights_source", "licence")}
        tested = len(usable_ids(self.test)) if self.test else None
        return {**told, "fitted_on": len(usable_ids(self.train)), "tested_on": tested}

    @property
    def runs(self) -> list[RunDir]:
        return [run for run in (self.train, self.test) if run is not None]


def embed(
    request: BenchRequest, data: str, splits: Splits, backbone: str, features: str, progress: Progress
) -> Embedded:
    """Embed both splits, or only what is not embedded yet.

    Raises:
        ShoalError: whatever the stages raise, such as WeightsError where a backbone's weights are not to be had.
    """
    root = request.out / data / folder_name(request, backbone, features)
    train = RunDir(root / f"{TRAIN}.shoal")
    test = RunDir(root / f"{TEST}.shoal") if splits.test is not None else None
    embedded = Embedded(root, train, test, splits)
    is_first = not any(run.run_json.is_file() for run in embedded.runs)
    run_stages(request.config(splits.train, backbone, features), train, STEPS, progress)
    if test is not None and splits.test is not None:
        run_stages(request.config(splits.test, backbone, features), test, STEPS[:3], progress)
    if is_first:  # where an earlier command was killed, nobody knows how long the whole took
        atomic.write_json(root / SECONDS, _spent(embedded.runs))
    return embedded


def _spent(runs: list[RunDir]) -> dict[str, float]:
    found = {name: [record["seconds"] for run in runs if (record := run.stage(name))] for name in STEPS}
    return {name: round(sum(seconds), 3) for name, seconds in found.items()}


def run_stages(config: ClusterConfig, run: RunDir, names: tuple[str, ...], progress: Progress) -> None:
    """Run some of the pipeline's stages, where they are stale."""
    stages = [stage for stage in pipeline.clustering_stages(open_source(config.source)) if stage.name in names]
    pipeline.run(config, run, stages, progress)


def folder_name(request: BenchRequest, backbone: str, features: str) -> str:
    """What is embedded differently lies apart: backbone, features, resize, limit."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "_", backbone), features]
    parts += [request.resize] if request.resize != "crop" else []
    parts += [f"limit{request.limit}"] if request.limit is not None else []
    return "-".join(parts)


def usable_ids(run: RunDir) -> Ids:
    """Ids of the images that have features, ascending."""
    images = run.read_images(["id", "status"])
    ids: Ids = images.filter(pc.equal(images["status"], records.OK))["id"].to_numpy()
    return ids


def unit_features(run: RunDir) -> Float32:
    """Features of all usable images, scaled to length 1, [n, d]."""
    return normalise_rows(EmbeddingStore.open(run.embeddings).read(usable_ids(run)))


def label_places(
    run: RunDir, labels: str | None, label_of: Mapping[str, str]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Labels of all images that have one, and the place of each (of a duplicate: its original) in `usable_ids`."""
    images = run.read_images(["id", "duplicate_of"])
    originals = pc.coalesce(images["duplicate_of"], images["id"])
    places = pc.index_in(originals, value_set=pa.array(usable_ids(run))).combine_chunks()
    names = read_labels(run, labels).renamed(label_of).of(images["id"].to_numpy())
    has_both = pc.and_(places.is_valid(), names.is_valid())
    return names_in(names.filter(has_both)), places.filter(has_both).to_numpy().astype(np.int64)
