"""Benchmarks from images to tables: protocol, resuming, labels that leak nowhere, other packages, absent data."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import normalized_mutual_info_score, silhouette_score

from pictures import paint
from shoal import cli
from shoal.assign import AssignSummary, assign
from shoal.bench import bench, results, table, transfer
from shoal.bench.references import REFERENCES, Reference
from shoal.bench.request import BenchRequest
from shoal.bench.results import Absence, Task
from shoal.bench.tables import SCHEMA
from shoal.cluster.density import nearest_cluster
from shoal.embeddings import EmbeddingStore, normalise_rows
from shoal.errors import RequestError
from shoal.evaluate.metrics import clustering_accuracy
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import Progress
from shoal.rundir import RunDir

KINDS, EACH = 3, {"train": 16, "test": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cifar10-train.parquet and cifar10-test.parquet with 3 kinds of pictures; the test images hold a duplicate."""
    root = tmp_path_factory.mktemp("data")
    for seed, (split, each) in enumerate(EACH.items()):
        painted = paint(root / split, KINDS, each, seed)
        files = sorted(painted.glob("*/*.png"))
        rows = [{"path": f"{f.parent.name}/{f.name}", "image": f.read_bytes(), "label": f.parent.name} for f in files]
        if split == "test":
            rows.append({**rows[0], "path": "kind0/again.png"})
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), root / f"cifar10-{split}.parquet")
    return root


def asked(folder: Path, out: Path, **more: Any) -> BenchRequest:
    given = {"methods": ("kmeans", "sklearn-kmeans"), "seeds": 2, "clusters": ("3",), **more}
    return BenchRequest(names=("cifar10",), out=out, data=(str(folder),), **given)


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bench of 2 methods and 2 seeds."""
    root = tmp_path_factory.mktemp("bench") / "out"
    assert bench.run(asked(folder, root), Progress()).results == 4
    return root


def result_of(out: Path, method: str, seed: int = 0) -> dict[str, Any]:
    return next(
        found for found in results.read_all(out) if found["task"]["method"] == method and found["task"]["seed"] == seed
    )


# -- the protocol ----------------------------------------------------------------------------------------------------


def test_test_images_are_reported_on_as_assign_places_them(folder: Path, out: Path) -> None:
    found = result_of(out, "kmeans", seed=1)  # the run holds the clusters of the last seed
    source = open_source([str(folder / "cifar10-test.parquet")])
    run = out / "cifar10" / "efficientnet_lite0-default" / "train.shoal"
    placed = pa.Table.from_batches(assign(Model.open(run), source, AssignSummary(), Progress()))
    labels = [path.split("/")[0] for path in placed["path"].to_pylist()]
    clusters = placed["cluster"].to_pylist()
    assert found["reported"]["n"] == placed.num_rows == KINDS * EACH["test"] + 1  # the duplicate counts
    assert found["reported"]["acc"] == pytest.approx(clustering_accuracy(labels, clusters))
    assert found["reported"]["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert found["reported"]["confidence"] == pytest.approx(np.mean(placed["confidence"]), abs=1e-3)
    assert found["reported"]["acc_top5"] == 1  # there are but 3 clusters
    assert found["images"]["fitted_on"] == KINDS * EACH["train"]
    assert found["fitted"]["n"] == KINDS * EACH["train"]


def test_scikit_learn_gets_unit_rows_of_the_same_features(out: Path) -> None:
    from sklearn.cluster import KMeans

    run = RunDir(out / "cifar10" / "efficientnet_lite0-default" / "train.shoal")
    rows = normalise_rows(EmbeddingStore.open(run.embeddings).read(np.arange(KINDS * EACH["train"])))
    expected = KMeans(n_clusters=3, n_init=10, random_state=1).fit_predict(rows)
    labels = [path.split("/")[0] for path in run.read_images(["path"])["path"].to_pylist()]
    found = result_of(out, "sklearn-kmeans", seed=1)["fitted"]
    assert found["acc"] == pytest.approx(clustering_accuracy(labels, expected))


def test_each_result_tells_what_it_took_and_how_good_its_neighbours_are(out: Path) -> None:
    found = result_of(out, "kmeans")
    assert set(found["seconds"]) == {"index", "embed", "images", "neighbours", "fit", "place"}
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    assert set(found["neighbour_purity"]) == {"1", "5", "10", "20"}  # 47 others: not 50
    assert found["details"]["calibration"]["matched"]["error"] == found["reported"]["calibration_error"]
    assert np.sum(found["details"]["confusion"]["counts"]) == found["reported"]["n"]


# -- labels ----------------------------------------------------------------------------------------------------------


def without_metrics(found: dict[str, Any]) -> dict[str, Any]:
    """What labels must not change; times differ from run to run anyway."""
    kept = copy.deepcopy(found)
    for name in ("fitted", "reported", "details", "neighbour_purity", "seconds"):
        del kept[name]
    del kept["inputs"]["labels"]
    return kept


def test_permuted_labels_change_nothing_but_metrics(folder: Path, out: Path, tmp_path: Path) -> None:
    permuted = tmp_path / "permuted"
    permuted.mkdir()
    for split in EACH:
        rows = pq.read_table(folder / f"cifar10-{split}.parquet")
        labels = np.random.default_rng(5).permutation(np.array(rows["label"].to_pylist()))
        pq.write_table(rows.set_column(2, "label", pa.array(labels)), permuted / f"cifar10-{split}.parquet")
    bench.run(asked(permuted, tmp_path / "out"), Progress())
    pairs = list(zip(results.read_all(out), results.read_all(tmp_path / "out"), strict=True))
    assert len(pairs) == 4
    for true, false in pairs:
        assert without_metrics(true) == without_metrics(false)
        assert true["reported"]["acc"] > false["reported"]["acc"]
    runs = [root / "cifar10" / "efficientnet_lite0-default" / "train.shoal" for root in (out, tmp_path / "out")]
    for name in ("clusters.parquet", "choose_k.parquet", "levels.parquet", "neighbours/ids.npy"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


# -- resuming --------------------------------------------------------------------------------------------------------


def test_a_second_command_makes_only_what_is_missing(folder: Path, out: Path) -> None:
    files = sorted(out.glob("*/*/results/*/*.json"))
    before = {file: (file.stat().st_mtime_ns, json.loads(file.read_bytes())) for file in files}
    gone = files[0]
    gone.unlink()
    assert bench.run(asked(folder, out), Progress()).results == 4
    for file, (changed, values) in before.items():
        again = json.loads(file.read_bytes())
        assert {**again, "seconds": 0} == {**values, "seconds": 0}
        assert (file.stat().st_mtime_ns == changed) == (file != gone)


def test_results_of_other_labels_are_made_anew(out: Path, folder: Path, tmp_path: Path) -> None:
    found = result_of(out, "kmeans")
    task = Task(**found["task"])
    root = out / "cifar10" / "efficientnet_lite0-default"
    assert results.read(root, task, found["inputs"]) == found
    assert results.read(root, task, {**found["inputs"], "labels": ["others"]}) is None
    assert results.read(root, replace(task, seed=99), found["inputs"]) is None


def test_a_result_cut_short_is_made_anew(tmp_path: Path) -> None:
    task = Task("cifar10", "b", "default", "crop", None, "kmeans", "auto", 0)
    results.write(tmp_path, task, {"inputs": {}})
    assert results.read(tmp_path, task, {}) is not None
    task.file(tmp_path).write_text(task.file(tmp_path).read_text()[:20])
    assert results.read(tmp_path, task, {}) is None


# -- what cannot be had ----------------------------------------------------------------------------------------------


def test_a_package_that_is_not_installed_is_a_line_with_the_reason(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Reference("no_such_package_at_all", REFERENCES["evoc"].fit, True, True, True, "")
    monkeypatch.setitem(REFERENCES, "evoc", absent)
    tally = bench.run(asked(folder, out, methods=("evoc",)), Progress())
    assert tally.results == 0
    assert [absence.why for absence in tally.absences] == [
        "package no_such_package_at_all is not installed (pip install no_such_package_at_all)"
    ]
    assert "evoc: *not run here*: package no_such_package_at_all" in table.write(out)


def test_a_method_that_fails_is_a_line_with_the_reason(folder: Path, out: Path) -> None:
    tally = bench.run(asked(folder, out, methods=("kmeans",), clusters=("3", "5000")), Progress())
    assert tally.results == 2
    (absence,) = tally.absences
    assert absence.failed
    assert "asks for 5000 clusters, but the source has only 48" in absence.why


def test_weights_that_do_not_fit_leave_the_other_backbones(folder: Path, out: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "empty.bin"
    wrong.write_bytes(b"")
    request = asked(
        folder, out, backbones=("resnet18", "efficientnet_lite0"), weights=(f"resnet18={wrong}",), methods=("kmeans",)
    )
    tally = bench.run(request, Progress())
    assert tally.results == 2
    assert [absence.what for absence in tally.absences] == ["resnet18"]


# -- other packages --------------------------------------------------------------------------------------------------


def test_noise_and_new_images_get_the_cluster_of_their_nearest_clustered_image() -> None:
    generator = np.random.default_rng(0)
    rows = normalise_rows(generator.standard_normal((60, 5)).astype(np.float32))
    labels = generator.integers(-1, 4, 60).astype(np.int32)
    new = normalise_rows(generator.standard_normal((30, 5)).astype(np.float32))
    expected = []
    for one in new:
        best = max((row for row in range(60) if labels[row] >= 0), key=lambda row: float(one @ rows[row]))
        expected.append(labels[best])
    assert nearest_cluster(rows, labels, new).tolist() == expected
    assert nearest_cluster(rows, np.full(60, -1, np.int32), new).tolist() == [0] * 30


def blobs(each: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    kinds = np.repeat(np.arange(4), each)
    centres = 6 * np.eye(4, 12)
    return normalise_rows((centres[kinds] + generator.standard_normal((4 * each, 12))).astype(np.float32)), kinds


@pytest.mark.parametrize("name", ["sklearn-kmeans", "hdbscan"])  # evoc compiles for half a minute first
def test_references_find_clusters_that_anyone_would(name: str) -> None:
    reference = REFERENCES[name]
    if not reference.is_installed:
        pytest.skip(f"{name} is not installed")
    rows, kinds = blobs()
    found = reference.fit(rows, 4 if reference.with_count else None, 0)
    placed = found.place(rows)
    assert clustering_accuracy(kinds, placed) > 0.9
    assert placed.dtype == found.labels.dtype == np.int32


def test_trouble_in_another_package_is_told_not_thrown(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(rows: Any, count: int | None, seed: int) -> Any:
        raise KeyError("deep inside")

    monkeypatch.setitem(REFERENCES, "evoc", Reference("numpy", fit, True, True, True, ""))
    tally = bench.run(asked(folder, out, methods=("evoc",)), Progress())
    assert [absence.why for absence in tally.absences] == ["KeyError: 'deep inside'"]


# -- tables ----------------------------------------------------------------------------------------------------------


def made_result(method: str, seed: int, acc: float, clusters: str = "true", k: int = 10) -> dict[str, Any]:
    figures = dict.fromkeys(results.FIGURES, acc) | {"n": 100, "clusters": k, "classes": 10}
    return {
        "task": {
            "benchmark": "cifar10",
            "backbone": "b",
            "features": "default",
            "resize": "crop",
            "limit": None,
            "method": method,
            "clusters": clusters,
            "seed": seed,
        },
        "images": {"fitted_on": 500, "tested_on": 100, "dim": 8},
        "classes": 10,
        "neighbour_purity": {"1": 0.5, "20": 0.25},
        "seconds": {"index": 1.0, "embed": None, "neighbours": 2.0, "fit": 3.0, "place": 0.1},
        "cores": 2,
        "facts": {"k": k, "method": method},
        "fitted": figures,
        "reported": figures,
    }


MADE = [
    *(made_result("sklearn-kmeans", seed, acc) for seed, acc in enumerate((0.4, 0.5, 0.6))),
    *(made_result("auto", seed, acc) for seed, acc in enumerate((0.6, 0.62))),
    *(made_result("auto", seed, 0.55, "auto", k) for seed, k in enumerate((9, 12))),
]


def test_lines_have_the_mean_and_the_spread_over_seeds() -> None:
    made = table.lines(MADE)
    assert [(line.task.method, line.task.clusters, len(line.runs)) for line in made] == [
        ("auto", "true", 2),
        ("auto", "auto", 2),
        ("sklearn-kmeans", "true", 3),
    ]
    spread = made[2].spread("acc")
    assert spread is not None
    assert spread.mean == pytest.approx(0.5)
    assert spread.deviation == pytest.approx(np.std([0.4, 0.5, 0.6], ddof=1))
    rows = table.to_parquet(made).to_pylist()
    assert rows[2]["acc"] == pytest.approx(0.5)
    assert rows[2]["acc_std"] == pytest.approx(0.1)
    assert rows[1]["k"] == [9, 12]


def test_the_table_says_how_many_fewer_are_wrong_and_what_was_published() -> None:
    text = table.markdown(table.lines(MADE), [Absence("cifar10", "evoc", "it is not there")])
    auto = next(row for row in text.splitlines() if row.startswith("| auto | as many"))
    assert "61.0 ± 1.4" in auto
    assert "+22.0 %" in auto  # 50 wrong of 100 against 39
    assert "| 9–12 |" in text
    assert "**train+test**" in text
    assert "81.6 | 71.5 | 66.5" in text
    assert "- evoc: *not run here*: it is not there" in text
    assert "Fitted on 500 training images, reported on 100 test images, 10 classes." in text


def test_everything_is_written_for_programs_too(out: Path) -> None:
    text = table.write(out)
    assert (out / "table.md").read_text(encoding="utf-8") == text
    runs = pq.read_table(out / "runs.parquet").to_pylist()
    assert {(row["method"], row["seed"]) for row in runs} == {
        (name, n) for name in ("kmeans", "sklearn-kmeans") for n in (0, 1)
    }
    lines = pq.read_table(out / "table.parquet").to_pylist()
    for line in lines:
        own = [row["acc"] for row in runs if row["method"] == line["method"]]
        assert line["acc"] == pytest.approx(np.mean(own))
        assert line["runs"] == 2


# -- transfer --------------------------------------------------------------------------------------------------------


def test_transfer_has_the_silhouette_over_k_of_squashed_images(folder: Path, tmp_path: Path) -> None:
    request = replace(
        asked(folder / "train", tmp_path, clusters=("2-4",), backbones=("efficientnet_lite0",), features=("default",)),
        names=("transfer",),
    )
    assert bench.run(request, Progress()).results == 1
    (curve,) = transfer.read_curves(tmp_path)
    assert curve.ks == (2, 3, 4)
    run = RunDir(tmp_path / "transfer" / "efficientnet_lite0-default.shoal")
    assert run.read_state()["asked"]["resize"] == "squash"
    features = EmbeddingStore.open(run.embeddings).read(np.arange(KINDS * EACH["train"]))
    looked = pq.read_table(run.root / "sweep.parquet")
    for k, value in zip(curve.ks, curve.silhouettes, strict=True):
        expected = silhouette_score(features, looked[f"k{k}"].to_numpy())
        assert value == pytest.approx(expected, abs=2e-3)
        assert (run.report / f"silhouette-k{k:05d}.png").is_file()
    header = (tmp_path / "transfer" / "efficientnet_lite0-default" / "clusters.csv").read_text().splitlines()[0]
    assert len(header.split(",")) == curve.chosen
    assert f"| {curve.best()[0]} (" in table.write(tmp_path)


def test_transfer_without_images_says_so(tmp_path: Path) -> None:
    tally = bench.run(BenchRequest(names=("transfer",), out=tmp_path), Progress())
    assert "give --data DIR" in tally.absences[0].why
    assert "*not run here*: no images" in table.write(tmp_path)


def test_a_folder_of_somebody_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("mine")
    with pytest.raises(RequestError, match=r"has not written \(such as 'table.md'\)"):
        bench.run(asked(folder, tmp_path), Progress())
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


# -- the command -----------------------------------------------------------------------------------------------------


def run_command(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *words])
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cifar11"], "NAME has value 'cifar11'; expected one or more of cifar10, cifar100"),
        (["cifar10", "--method", "magic"], "--method has value 'magic'; expected one of auto, kmeans"),
        (["cifar10", "--seeds", "0"], "--seeds has value 0"),
        (["cifar10", "--clusters", "some"], "--clusters has value 'some'"),
        (["cifar10", "--weights", "file.pth"], "--weights has value 'file.pth'; expected BACKBONE=FILE"),
        (["cifar10", "--limit", "0"], "--limit has value 0"),
    ],
)
def test_wrong_requests_are_refused_at_once(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*words, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_here_is_a_row_and_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("cifar100", "--data", str(tmp_path), "--out", str(tmp_path / "out")) == 1
    told = capsys.readouterr()
    assert "*not run here*" in told.out
    assert "nothing was measured" in told.err


def test_the_command_prints_the_table(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(folder), "--out", str(out), "--clusters", "3", "--seeds", "2", "--method", "kmeans"]
    assert run_command("cifar10", *words) == 0
    assert "| kmeans | 3 | 3 | 2 |" in capsys.readouterr().out
