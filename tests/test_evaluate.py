"""Evaluating a run: where labels come from, what counts, what is written."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafted import run_stage
from shoal import pipeline, records
from shoal.config import ClusterConfig
from shoal.corrections import changes
from shoal.corrections.corrected import Corrected, read_corrected
from shoal.corrections.edit import Edit
from shoal.corrections.log import append
from shoal.corrections.model import corrected_model, load_model
from shoal.corrections.refit import refit
from shoal.embeddings import EmbeddingStore
from shoal.errors import RequestError, RunError
from shoal.evaluate import stage
from shoal.evaluate.evaluate import evaluate, keep, write
from shoal.evaluate.labels import Labels, read_labels
from shoal.evaluate.metrics import clustering_accuracy, confusion, matching
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file
from small_run import write_small_run

OK, SKIPPED, DUPLICATE, VANISHED = records.OK, records.SKIPPED, records.DUPLICATE, records.VANISHED
STATUSES = [OK, OK, SKIPPED, OK, DUPLICATE, OK, VANISHED, OK]  # 4 is a duplicate of 3
CLUSTERS = {0: 0, 1: 0, 3: 1, 4: 1, 5: 1, 7: 2}
UNSURE = {5}
PATHS = ["cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png", "copies/dog/4.png", "cat/5.png", "dog/6.png", "7.png"]
CONFIG = ClusterConfig(source=("images",))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run_dir = write_small_run(tmp_path / "run", np.eye(8), STATUSES)
    images = run_dir.read_images()
    records.write_table(run_dir.images, images.set_column(1, "path", pa.array(PATHS)))
    write_clusters(run_dir, CLUSTERS)
    return run_dir


def write_clusters(run_dir: RunDir, clusters: dict[int, int]) -> StageResult:
    columns = {
        "id": list(clusters),
        "path": [PATHS[number] for number in clusters],
        "cluster": list(clusters.values()),
        "confidence": [0.5] * len(clusters),
        "unsure": [number in UNSURE for number in clusters],
        "silhouette": [0.1] * len(clusters),
        "runner_up": [0] * len(clusters),
    }
    records.write_table(run_dir.new("clusters.parquet"), pa.table(columns, schema=records.CLUSTERS))
    return StageResult(digest_file(run_dir.clusters))


def write_labels(run_dir: RunDir, labels: dict[int, str]) -> None:
    table = pa.table({"id": list(labels), "label": list(labels.values())}, schema=records.LABELS)
    records.write_table(run_dir.labels, table)


def test_figures_over_images_that_are_ok_or_duplicates(run: RunDir) -> None:
    found = evaluate(run, "folders")
    # cat cat | dog dog(duplicate) cat; 7.png is at the top and has no label; 2 is skipped and 6 vanished
    assert (found.n, found.clusters, found.classes, found.unlabelled) == (5, 3, 2, 1)
    assert found.acc == found.purity == pytest.approx(4 / 5)
    assert found.matching == {0: "cat", 1: "dog"}
    assert [(row.cluster, row.size, row.majority) for row in found.table] == [(0, 2, "cat"), (1, 3, "dog")]
    assert (found.sure.n, found.sure.share, found.sure.acc) == (4, pytest.approx(4 / 5), 1)


def test_labels_of_the_source_are_the_default(run: RunDir) -> None:
    write_labels(run, {number: "even" if number % 2 == 0 else "odd" for number in range(8)})
    found = evaluate(run)
    assert found.labels == "source"
    assert found.n == 6
    assert found.acc == clustering_accuracy([n % 2 for n in CLUSTERS], list(CLUSTERS.values()))


def test_no_labels_says_how_to_give_them(run: RunDir) -> None:
    with pytest.raises(RequestError, match=r"--labels folders .* --labels FILE.csv"):
        evaluate(run)


def test_a_run_without_clusters_is_unfinished(run: RunDir) -> None:
    run.clusters.unlink()
    with pytest.raises(RunError, match="no clusters yet"):
        evaluate(run, "folders")


def test_folders_without_any_folder(run: RunDir) -> None:
    images = run.read_images()
    records.write_table(run.images, images.set_column(1, "path", pa.array([f"{n}.png" for n in range(8)])))
    with pytest.raises(RequestError, match="not one of the 6 images has a label from folders") as refused:
        evaluate(run, "folders")
    assert "--labels folders" not in str(refused.value)
    assert "--labels FILE.csv" in str(refused.value)


def by_id(labels: Labels) -> dict[int, str]:
    return dict(zip(labels.table["id"].to_pylist(), labels.table["label"].to_pylist(), strict=True))


LABELLED = [("cat/0.png", "A"), ("dog/3.png", "B"), ("./copies/dog/4.png", "C"), ("gone.png", "D"), ("7.png", "")]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_file_is_matched_by_path(run: RunDir, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"labels{suffix}"
    write_label_file(file, LABELLED)
    labels = read_labels(run, str(file))
    assert by_id(labels) == {0: "A", 3: "B", 4: "C"}
    assert labels.unmatched == 1
    assert evaluate(run, str(file)).unlabelled == 3


def test_a_file_is_matched_by_name_if_no_path_matches(run: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    write_label_file(file, [("/elsewhere/0.png", "A"), ("/elsewhere/3.png", "B"), ("/elsewhere/9.png", "C")])
    labels = read_labels(run, str(file))
    assert by_id(labels) == {0: "A", 3: "B"}
    assert labels.unmatched == 1
    assert labels.source.endswith("(by file name)")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_a_file_may_spell_paths_as_other_programs_do(run: RunDir, tmp_path: Path, encoding: str) -> None:
    paths = [unicodedata.normalize("NFD", f"Kätzchen/{number}.png") for number in range(6)] + [
        "caf%E9.png",
        "caf\xe9.png",
    ]
    images = run.read_images()
    records.write_table(run.images, images.set_column(1, "path", pa.array(paths)))
    rows = ["Kätzchen\\0.png,Süß", " .\\Kätzchen\\3.png ,B", "'Kätzchen/4.png',C", "café.png,D", "weg.png,E"]
    file = tmp_path / "labels.csv"
    file.write_bytes("\r\n".join(["path,label", *rows]).encode(encoding))
    labels = read_labels(run, str(file))
    assert by_id(labels) == {0: "Süß", 3: "B", 4: "C", 7: "D"}
    assert labels.unmatched == 1


def test_names_that_are_not_unique_are_not_guessed_at(run: RunDir, tmp_path: Path) -> None:
    images = run.read_images()
    records.write_table(run.images, images.set_column(1, "path", pa.array([f"{n}/x.png" for n in range(8)])))
    file = tmp_path / "labels.csv"
    write_label_file(file, [("elsewhere/x.png", "A")])
    with pytest.raises(RequestError, match=r"it has 'elsewhere/x.png', the run has '0/x.png'.*'x.png' are not unique"):
        read_labels(run, str(file))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "path,label\n", "expected 'folders' or a .csv, .tsv or .parquet file"),
        ("labels.csv", "what,label\na,b\n", "has no column 'path' but what, label"),
        ("labels.csv", "path,kind\na,b\n", "has no column 'label' but path, kind"),
        ("labels.csv", "", "has no column 'path' but none"),
        ("labels.csv", "path,label\ncat/0.png,A\ncat/0.png,B\n", "gives 'cat/0.png' two labels, 'A' and 'B'"),
        ("labels.csv", "path,label\n\xff,A\n", "not one of the 6 images has a label"),
        ("labels.parquet", "no parquet", "cannot be read"),
        ("labels.csv", "path,label\nnowhere.png,A\n", "not one of the 6 images .*: none of the 1 paths in it is one"),
        ("labels.csv", "path,label\n", "not one of the 6 images .*, which gives none"),
    ],
)
def test_a_file_that_will_not_do(run: RunDir, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match=message):
        read_labels(run, str(tmp_path / name))


def test_a_file_that_is_not_there(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="which is not there"):
        read_labels(run, str(tmp_path / "none.csv"))


def test_numbers_from_parquet_and_a_byte_order_mark_are_read(run: RunDir, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["cat/0.png"], "label": [3], "more": [None]}), tmp_path / "labels.parquet")
    assert by_id(read_labels(run, str(tmp_path / "labels.parquet"))) == {0: "3"}
    (tmp_path / "labels.csv").write_text("\ufeffpath,label\r\ncat/0.png,ä\r\n", encoding="utf-8")
    assert by_id(read_labels(run, str(tmp_path / "labels.csv"))) == {0: "ä"}


@pytest.mark.parametrize(
    "data", [b"File;Class\r\ncat/0.png;A;x\r\ncat/1.png\r\n", "path\tlabel\ncat/0.png\tA\n".encode("utf-16")]
)
def test_spreadsheets_of_other_countries(run: RunDir, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(data)
    assert by_id(read_labels(run, str(tmp_path / "labels.csv"))) == {0: "A"}


KINDS, EACH = 9, 40


@pytest.fixture
def grouped(tmp_path: Path) -> RunDir:
    """360 images of nine kinds that run into each other, in nine clusters; every tenth is a copy of the one before."""
    generator = np.random.default_rng(5)
    kinds = np.repeat(np.arange(KINDS), EACH)
    vectors = 3 + 4 * np.eye(KINDS, 24)[kinds] + 1.6 * generator.standard_normal((len(kinds), 24))
    statuses = [DUPLICATE if number % 10 == 9 else OK for number in range(len(kinds))]
    run_dir = write_small_run(tmp_path / "grouped", vectors, statuses)
    images = run_dir.read_images()
    paths = [f"kind{kind}/{number}.png" for number, kind in enumerate(kinds)]
    records.write_table(run_dir.images, images.set_column(1, "path", pa.array(paths)))
    (tmp_path / "images").mkdir()
    config = ClusterConfig((str(tmp_path / "images"),), clusters=str(KINDS))
    pipeline.run(config, run_dir, [one for one in pipeline.stages_of_images() if one.name == "cluster"], Progress())
    return run_dir


def correct(run_dir: RunDir, make: Callable[..., Edit], *arguments: object) -> Corrected:
    append(run_dir, lambda log: make(read_corrected(run_dir), *arguments))
    return read_corrected(run_dir)


def literal_top5(run_dir: RunDir) -> float:
    """For each image its own cluster, then the others by the sum of their centroids' posteriors."""
    corrected = read_corrected(run_dir)
    model = corrected_model(run_dir, corrected)
    points = model.model.space.transform(EmbeddingStore.open(run_dir.embeddings).read(np.arange(KINDS * EACH)))
    labels = [path.split("/")[0] for path in run_dir.read_images()["path"].to_pylist()]
    match = matching(confusion(labels, corrected.cluster))
    hits = 0
    for image, (label, own) in enumerate(zip(labels, corrected.cluster.tolist(), strict=True)):
        point = points[corrected.original[image]].astype(np.float64)
        shares = dict.fromkeys(model.numbers.tolist(), 0.0)
        for number, centroid in zip(model.numbers.tolist(), model.model.centroids, strict=True):
            shares[number] += math.exp(model.model.concentration * (float(point @ centroid) - 1))
        others = sorted(set(shares) - {own}, key=lambda number: -shares[number])
        hits += label in {match.get(number) for number in [own, *others][:5]}
    return hits / len(labels)


def test_top_five_are_of_the_clusters_as_people_corrected_them(grouped: RunDir) -> None:
    found = [evaluate(grouped, "folders").acc_top5]
    assert found[-1] == pytest.approx(literal_top5(grouped))
    merged = correct(grouped, changes.merge, [1, 4])
    merged = correct(grouped, changes.merge, [0, 7, 8])
    assert merged.numbers == [0, 1, 2, 3, 5, 6]
    found.append(evaluate(grouped, "folders").acc_top5)
    assert found[-1] == pytest.approx(literal_top5(grouped))
    correct(grouped, changes.mark_noise, merged.members(2)[:20].tolist())
    halves = np.array_split(merged.members(3), 2)
    correct(grouped, changes.split, 3, halves)
    correct(grouped, changes.move, merged.members(5)[:9].tolist(), None)
    found.append(evaluate(grouped, "folders").acc_top5)
    assert found[-1] == pytest.approx(literal_top5(grouped))
    refit(grouped, read_corrected(grouped).version, Progress())
    assert len(load_model(grouped.model).numbers) > len(set(load_model(grouped.model).numbers.tolist()))
    found.append(evaluate(grouped, "folders").acc_top5)
    assert found[-1] == pytest.approx(literal_top5(grouped))
    correct(grouped, changes.merge, [0, 2])
    found.append(evaluate(grouped, "folders").acc_top5)
    assert found[-1] == pytest.approx(literal_top5(grouped))
    assert all(0 < one < 1 for one in found if one is not None)
    assert len(set(found)) == len(found)


def test_where_there_are_fewer_than_five_the_noise_takes_no_place_from_another(grouped: RunDir) -> None:
    merged = correct(grouped, changes.merge, [0, 1, 2, 3, 4, 5])
    correct(grouped, changes.mark_noise, merged.members(6).tolist())
    assert read_corrected(grouped).numbers == [0, 7, 8, 9]
    found = evaluate(grouped, "folders")
    assert found.acc_top5 == pytest.approx(literal_top5(grouped))
    assert found.acc_top5 > found.acc


def test_where_all_is_noise_only_the_noise_is_ranked(grouped: RunDir) -> None:
    correct(grouped, changes.mark_noise, list(range(KINDS * EACH)))
    found = evaluate(grouped, "folders")
    assert found.acc_top5 == found.acc == pytest.approx(1 / KINDS)


def test_neighbour_purity_leaves_duplicates_out(run: RunDir) -> None:
    neighbours = np.full((8, 2), -1, dtype=np.int32)
    neighbours[0], neighbours[1], neighbours[3], neighbours[5], neighbours[7] = (1, 5), (0, 3), (1, 5), (3, 7), (0, 1)
    (run.root / "neighbours").mkdir()
    np.save(run.neighbours / "ids.npy", neighbours)
    # at 1: 0 and 1 agree, 3 and 5 do not; 4, a duplicate, has no neighbours and 7 no label
    assert evaluate(run, "folders").neighbour_purity == {1: 0.5}


def test_what_is_written_is_what_was_found(run: RunDir) -> None:
    found = evaluate(run, "folders")
    write(run, found)
    back = json.loads(run.evaluation.read_text(encoding="utf-8"))
    assert back == json.loads(json.dumps(found.to_json()))
    assert {"n", "clusters", "acc", "nmi", "ari", "purity"} <= set(back)
    assert back["confusion"] == {"clusters": [0, 1], "classes": ["cat", "dog"], "counts": [[2, 0], [1, 2]]}
    assert back["table"][1] == {"cluster": 1, "size": 3, "majority": "dog", "accuracy": pytest.approx(2 / 3)}


def test_text_has_the_figures_and_a_line_a_cluster(run: RunDir) -> None:
    lines = evaluate(run, "folders").text().splitlines()
    assert lines[0].startswith("ACC 0.800")
    assert [line.split() for line in lines[-2:]] == [["1", "3", "0.667", "dog"], ["0", "2", "1.000", "cat"]]


def test_stage_evaluates_only_against_labels_of_the_source(run: RunDir) -> None:
    stage.run(CONFIG, run, Progress())
    assert not run.evaluation.exists()
    write_labels(run, dict.fromkeys(range(8), "same"))
    assert stage.run(CONFIG, run, Progress()).facts == {}  # facts go into run.json, where labels must not
    assert json.loads(run.evaluation.read_text())["acc"] == pytest.approx(3 / 6)


def test_stage_keeps_what_was_asked_by_hand_until_the_clusters_change(run: RunDir) -> None:
    run_stage(run.root, "cluster", lambda config, made, progress: write_clusters(made, CLUSTERS), CONFIG)
    keep(run.root, evaluate(RunDir.open(run.root), "folders"))
    by_hand = RunDir.open(run.root).evaluation.read_bytes()
    run_stage(run.root, "evaluate", stage.run, CONFIG)
    assert RunDir.open(run.root).evaluation.read_bytes() == by_hand
    run_stage(run.root, "cluster", lambda config, made, progress: write_clusters(made, {**CLUSTERS, 0: 2}), CONFIG)
    run_stage(run.root, "evaluate", stage.run, CONFIG)
    assert not RunDir.open(run.root).evaluation.exists()
    assert not run.evaluation.exists()


def test_stage_passes_over_labels_of_other_images(run: RunDir) -> None:
    write_labels(run, {2: "only a skipped image"})
    assert stage.run(CONFIG, run, Progress()).digest == "none"
    assert not run.evaluation.exists()


def write_label_file(file: Path, pairs: list[tuple[str, str]]) -> None:
    if file.suffix == ".parquet":
        paths, labels = zip(*pairs, strict=True)
        pq.write_table(pa.table({"path": paths, "label": labels}), file)
        return
    delimiter = "," if file.suffix == ".csv" else "\t"
    lines = [delimiter.join(pair) for pair in (("path", "label"), *pairs)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files")
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_labels_come_from_files_alone(run: RunDir, tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name, why in (("pipe", "FIFO"), ("zero", "device")):
        with pytest.raises(RequestError, match=rf"cannot be read: not a regular file \({why}\)"):
            read_labels(run, str(tmp_path / f"{name}.{suffix}"))
