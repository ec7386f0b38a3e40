"""Nothing crashes it: a folder of every kind of bad and odd file, clustered, exported and assigned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from messy import OK, make_messy_folder
from shoal import pipeline, records
from shoal.assign import AssignSummary, assign
from shoal.config import ClusterConfig
from shoal.export import export
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import Progress
from shoal.rundir import RunDir


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir, Mapping[str, str]]:
    base = tmp_path_factory.mktemp("messy")
    expected = make_messy_folder(base / "pictures")
    run = RunDir(base / "run.shoal")
    config = ClusterConfig((str(base / "pictures"),), clusters="2-4")
    pipeline.run(
        config, run, [*pipeline.clustering_stages(open_source(config.source)), *pipeline.report_stages()], Progress()
    )
    return base / "pictures", run, expected


def test_every_file_is_an_image_or_has_its_reason(messy: tuple[Path, RunDir, Mapping[str, str]]) -> None:
    _, run, expected = messy
    found = {row["path"]: row for row in run.read_images().to_pylist()}
    wrong = {}
    for path, outcome in expected.items():
        row = found.get(path)
        good = row is not None and (
            row["status"] in (records.OK, records.DUPLICATE) if outcome == OK else outcome in (row["reason"] or "")
        )
        if not good:
            wrong[path] = (outcome, row and (row["status"], row["reason"]))
    assert not wrong
    assert sum(outcome != OK for outcome in expected.values()) >= 20


def test_every_usable_image_has_a_cluster(messy: tuple[Path, RunDir, Mapping[str, str]]) -> None:
    _, run, _ = messy
    usable = {row["id"] for row in run.read_images().to_pylist() if row["status"] in (records.OK, records.DUPLICATE)}
    assert set(run.read_clusters()["id"].to_pylist()) == usable


def test_the_report_counts_what_was_skipped(messy: tuple[Path, RunDir, Mapping[str, str]]) -> None:
    _, run, _ = messy
    skipped = sum(row["status"] == records.SKIPPED for row in run.read_images().to_pylist())
    assert json.loads((run.report / "summary.json").read_text())["by_status"]["skipped"] == skipped


def test_the_same_folder_can_be_assigned_and_exported(
    messy: tuple[Path, RunDir, Mapping[str, str]], tmp_path: Path
) -> None:
    pictures, run, _ = messy
    summary = AssignSummary()
    clusters = dict(zip(*(run.read_clusters()[name].to_pylist() for name in ("path", "cluster")), strict=True))
    assigned = {
        image["path"]: image["cluster"]
        for batch in assign(Model.open(run.root), open_source((str(pictures),)), summary, Progress())
        for image in batch.to_pylist()
    }
    assert assigned == clusters
    assert summary.skipped
    assert export(run, "folders", tmp_path / "out").written == len(clusters)
