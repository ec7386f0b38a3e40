"""Names and words in a run: what the classifier says of images, what clusters are called, and where that is seen."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drafted import run_stage
from named_run import DIM, EACH, KINDS, config, features, known, layer, named_run
from pictures import paint
from shoal import ImageClusterer
from shoal.cli import main
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append, read_log
from shoal.corrections.model import corrected_model
from shoal.corrections.refit import refit
from shoal.corrections.shown import ShownName, read_shown
from shoal.encoder import classifier as classifiers
from shoal.errors import RequestError, RunError
from shoal.evaluate.evaluate import evaluate
from shoal.export import export
from shoal.export.rows import read_rows
from shoal.find import LEAST_FIT, NONE_FITS, find, opened_finder
from shoal.names import classes, guesses_file
from shoal.names.classifier import LOGITS, MAP, POOLED, PROBABILITIES, Classifier, words_of
from shoal.names.kinds import vocabulary
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.runfiles import GUESSES, HEAD
from shoal.summary import cluster_summary


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Nobody changes it."""
    return named_run(tmp_path_factory.mktemp("named") / "run.shoal")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return named_run(tmp_path / "run.shoal")


def shoal(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return int(done.value.code or 0)


def names(run: RunDir) -> dict[int, str]:
    return {number: shown.name for number, shown in read_shown(run, read_corrected(run)).items()}


def do(run: RunDir, make: object, *arguments: object) -> None:
    append(run, lambda log: make(read_corrected(run), *arguments))  # type: ignore[operator]


def cluster_named(run: RunDir, name: str) -> int:
    (number,) = [number for number, shown in names(run).items() if shown == name]
    return number


def ids_of_kind(kind: str) -> list[int]:
    start = KINDS.index(kind) * EACH
    return list(range(start, start + EACH))


# -- the classifier ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes", [POOLED, MAP, LOGITS, PROBABILITIES])
def test_all_features_of_a_classifier_tell_the_same_classes(takes: str, tmp_path: Path) -> None:
    pooled = features(["Chihuahua", "goldfish", "Chihuahua"])
    logits = pooled @ layer().weight.T
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    around = np.random.default_rng(2).normal(0, 1, (3, 4, DIM)).astype(np.float32)
    places = pooled[:, None] + around - around.mean(axis=1, keepdims=True)  # [images, places, d]
    stored = {POOLED: pooled, MAP: places.reshape(3, -1), LOGITS: logits, PROBABILITIES: softmax}[takes]
    Classifier(1000, takes, layer() if takes in (POOLED, MAP) else None).save(tmp_path / HEAD)
    read = Classifier.read(tmp_path / HEAD, stored.shape[1])
    assert read is not None
    found = read.likeliest(stored)
    for row in range(3):
        order = np.argsort(-softmax[row], kind="stable")[:5]
        assert found.classes[row, :5].tolist() == order.tolist()
        np.testing.assert_allclose(found.probabilities[row, :5], softmax[row, order], rtol=3e-3)
    assert (words_of(tmp_path / HEAD) or known()).name == "ImageNet-1k"


def test_a_model_without_a_classifier_has_none(tmp_path: Path) -> None:
    assert Classifier.read(tmp_path / HEAD, DIM) is None
    assert words_of(tmp_path / HEAD) is None


def test_a_classifier_of_other_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / HEAD
    Classifier(1000, POOLED, layer()).save(path)
    with pytest.raises(RunError, match="weight"):
        Classifier.read(path, DIM + 1)
    Classifier(1000, MAP, layer()).save(path)
    with pytest.raises(RunError, match="expected a part of 65"):
        Classifier.read(path, DIM + 1)
    Classifier(1000, LOGITS, None).save(path)
    with pytest.raises(RunError, match="1,000 classes"):
        Classifier.read(path, DIM)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (b'\\"format_version\\": 1', b'\\"format_version\\": 2', "format_version has value 2"),
        (b"ImageNet-1k", b"ImageNet-2k", "vocabulary has value 'ImageNet-2k'"),
        (b"pooled", b"boiled", "takes has value 'boiled'"),
        (b'"shoal"', b'"whale"', "expected the key 'shoal'"),
        (b'{"', b"{,", "no readable classifier"),
    ],
)
def test_a_classifier_from_elsewhere_is_looked_at(before: bytes, after: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / HEAD
    Classifier(1000, POOLED, layer()).save(path)
    data = path.read_bytes()
    assert before in data
    path.write_bytes(data.replace(before, after, 1))
    with pytest.raises(RunError) as caught:
        Classifier.read(path, DIM)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_joined_networks_have_the_mean_of_their_logits() -> None:
    joined = classifiers.embedded("best", None)
    assert joined is not None
    random, parts, logits = np.random.default_rng(3), [], []
    for one, path in classifiers.weight_files.embedded_files("best"):
        unit = np.abs(random.normal(size=1280))
        unit /= np.linalg.norm(unit)
        own = classifiers.of_network(one.architecture, path)
        parts.append(unit)
        logits.append(own.weight @ (classifiers.LENGTHS[one.architecture] * unit) + own.bias)
    np.testing.assert_allclose(joined.weight @ np.concatenate(parts) + joined.bias, np.mean(logits, axis=0), atol=1e-3)


# -- classes of images -------------------------------------------------------------------------------------------------


def test_classes_are_kept_by_image_and_what_has_no_features_has_none(kept: RunDir) -> None:
    found = classes.read(kept)
    assert found is not None
    likeliest, words = found
    said = [words.said[place] for place in words.classes.tolist()]
    for kind in KINDS:
        assert {said[one] for one in likeliest.classes[ids_of_kind(kind), 0]} == {kind}
    assert (likeliest.probabilities[: len(KINDS) * EACH, 0] > 0.5).all()
    assert not likeliest.probabilities[len(KINDS) * EACH :].any()  # skipped, and a copy


def test_classes_do_not_depend_on_blocks(kept: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "BLOCK", 4 * DIM * 7)
    other = named_run(tmp_path / "run.shoal")
    for name in (classes.IDS, classes.PROBABILITIES):
        one, two = np.load(kept.path(name)), np.load(other.path(name))
        np.testing.assert_allclose(one.astype(np.float32), two.astype(np.float32), rtol=1e-3)


def test_classes_of_another_run_are_refused(run: RunDir) -> None:
    np.save(run.path(classes.IDS), np.full((3, 32), 1000, np.uint16))
    np.save(run.path(classes.PROBABILITIES), np.ones((3, 32), np.float16))
    with pytest.raises(RunError, match="expected classes below 1,000"):
        classes.read(run)


# -- names -------------------------------------------------------------------------------------------------------------


def test_clusters_are_called_by_what_they_show(kept: RunDir) -> None:
    assert set(names(kept).values()) == set(KINDS)
    for kind in KINDS:
        assert set(read_corrected(kept).members(cluster_named(kept, kind))) >= set(ids_of_kind(kind))


def test_levels_have_names_of_their_own(kept: RunDir) -> None:
    found = guesses_file.read(kept.model / GUESSES)
    assert found is not None
    levels = pd.read_parquet(kept.levels)
    for level in ("coarse", "medium", "fine"):
        assert len(getattr(found, level)) == levels[level].nunique()
        said = [one.name for one in getattr(found, level) if one.name is not None]
        assert len(set(said)) == len(said)


def test_nothing_is_said_without_a_classifier(tmp_path: Path) -> None:
    run = named_run(tmp_path / "run.shoal", has_classifier=False)
    assert names(run) == {}
    assert not (run.root / "classes").exists()
    assert not (run.model / GUESSES).is_file()
    assert "Names" not in cluster_summary(run)
    assert evaluate_with(run, tmp_path, KINDS).names is None


def test_a_name_that_a_person_gave_wins(run: RunDir) -> None:
    chihuahua = cluster_named(run, "Chihuahua")
    do(run, changes.rename, chihuahua, "mine")
    shown = read_shown(run, read_corrected(run))
    assert shown[chihuahua] == ShownName("mine")
    assert not shown[chihuahua].is_guess
    assert {one.name for number, one in shown.items() if number != chihuahua} == set(KINDS) - {"Chihuahua"}
    assert corrected_model(run, read_corrected(run)).shown == shown


def test_merged_clusters_get_a_word_for_both(run: RunDir) -> None:
    dogs = [cluster_named(run, kind) for kind in ("Chihuahua", "komondor", "pug")]
    do(run, changes.merge, dogs)
    assert names(run)[dogs[0]] == "dog"
    assert not set(dogs[1:]) & set(names(run))


def test_a_new_cluster_of_moved_images_gets_a_name(run: RunDir) -> None:
    chihuahua, komondor = cluster_named(run, "Chihuahua"), cluster_named(run, "komondor")
    do(run, changes.merge, [chihuahua, komondor])
    do(run, changes.move, ids_of_kind("komondor"), None)
    assert set(names(run).values()) == set(KINDS)


def test_clusters_that_were_made_anew_are_named_anew_and_undone_names_come_back(run: RunDir) -> None:
    before = names(run)
    do(run, changes.merge, [cluster_named(run, "Chihuahua"), cluster_named(run, "komondor")])
    merged = set(names(run).values())
    refit(RunDir.open(run.root), len(read_log(run)), Progress())
    again = RunDir.open(run.root)
    assert set(names(again).values()) == merged
    found = guesses_file.read(again.model / GUESSES)
    assert found is not None
    assert len(found.medium) == len(KINDS) - 1
    append(again, lambda log: changes.undo(read_corrected(again), log))
    append(again, lambda log: changes.undo(read_corrected(again), log))
    assert names(again) == before


# -- where they are seen -----------------------------------------------------------------------------------------------


def test_tables_have_names_and_strengths(run: RunDir, tmp_path: Path) -> None:
    chihuahua = cluster_named(run, "Chihuahua")
    do(run, changes.rename, chihuahua, "mine")
    export(run, "csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"path", "cluster", "confidence"} <= set(rows[0])
    shown = read_shown(run, read_corrected(run))
    for row in rows:
        told = shown[int(row["cluster"])]
        assert row["name"] == told.name
        assert row["name_strength"] == "" if told.strength is None else float(row["name_strength"]) > 0
    export(run, "parquet", tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet")
    clusters = ImageClusterer.load(run.root).clusters_
    assert table["name"].tolist() == clusters["name"].tolist() == [row["name"] for row in rows]
    pd.testing.assert_series_equal(table["name_strength"], clusters["name_strength"])
    assert clusters.loc[clusters["cluster"] == chihuahua, "name_strength"].isna().all()


@pytest.mark.parametrize("kind", ["folders", "imagefolder"])
def test_folders_are_called_by_number_and_guess(run: RunDir, kind: str, tmp_path: Path) -> None:
    chihuahua = cluster_named(run, "Chihuahua")
    do(run, changes.rename, chihuahua, "mine")
    export(run, kind, tmp_path / "out", read=lambda uri: uri.encode())
    found = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir() if folder.is_dir()}
    corrected = read_corrected(run)
    sizes = {number: len(corrected.members(number)) for number in corrected.numbers}
    told = {number: name if number == chihuahua else f"{number:02d} {name}" for number, name in names(run).items()}
    assert found == {told[number]: size for number, size in sizes.items()}
    export(run, kind, tmp_path / "numbers", by_number=True, read=lambda uri: uri.encode())
    found = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "numbers").iterdir() if folder.is_dir()}
    assert found == {f"cluster_{number:03d}": size for number, size in sizes.items()}


def test_folders_of_guesses_sort_by_number_with_those_that_have_none(kept: RunDir) -> None:
    rows = read_rows(kept)
    shown = {number: name for number, name in rows.shown.items() if number != 2}
    told = replace(rows, shown=shown).names_of_clusters()
    assert told[2] == "02 unnamed"
    assert sorted(told.values()) == list(told.values())
    assert rows.without_names().names_of_clusters() == {number: f"cluster_{number:03d}" for number in told}


def test_tables_are_not_exported_by_number_alone(kept: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--numbers does not go with --to csv"):
        export(kept, "csv", tmp_path / "out.csv", by_number=True)


def test_the_last_lines_tell_names_and_sizes(kept: RunDir) -> None:
    (line,) = [line for line in cluster_summary(kept).splitlines() if line.startswith("Names, guessed: ")]
    for number, name in names(kept).items():
        assert f"{number} {name} ({len(read_corrected(kept).members(number))})" in line
    assert line.endswith("; sizes with 1 exact duplicate")  # which the count of images above is without


def test_the_report_s_summary_tells_names_and_strengths(run: RunDir) -> None:
    from shoal.report.build import summary
    from shoal.report.findings import Findings
    from shoal.report.selection import select

    goldfish = cluster_named(run, "goldfish")
    do(run, changes.rename, goldfish, "fish")
    findings = Findings.read(run)
    for row in summary(findings, select(findings))["clusters"]:
        assert row["name"] == names(run)[row["cluster"]]
        assert row["name_strength"] is None if row["cluster"] == goldfish else row["name_strength"] > 0


def test_the_report_shows_guesses_beside_titles_and_people_s_names_as_titles(run: RunDir) -> None:
    goldfish = cluster_named(run, "goldfish")
    do(run, changes.rename, goldfish, "my fish")
    from shoal.report.build import run as write_report

    run_stage(run.root, "report", write_report, config())
    page = (run.root / "report" / "index.html").read_text(encoding="utf-8")
    assert "<h3>my fish</h3>" in page
    guesses = re.findall(r'<p class="guess" title="A guess [^"]*strength [0-9.]+">([^<]*)</p>', page)
    assert sorted(guesses) == sorted(set(KINDS) - {"goldfish"})


# -- words -------------------------------------------------------------------------------------------------------------


def test_images_are_found_by_what_they_show(kept: RunDir) -> None:
    found = find(kept, "bananas", EACH).images
    assert {one.id for one in found} == set(ids_of_kind("banana"))
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= min(scores) <= max(scores) <= 1
    assert {one.cluster for one in found} == {cluster_named(kept, "banana")}
    assert found[0].path == f"folder/image {found[0].id:05d}.png"


def test_a_parent_finds_all_its_kinds_but_those_with_a_minus(kept: RunDir) -> None:
    found = {one.id for one in find(kept, "dog", 3 * EACH).images}
    assert found == {*ids_of_kind("Chihuahua"), *ids_of_kind("komondor"), *ids_of_kind("pug")}
    found = {one.id for one in find(kept, "dog -Chihuahua", 2 * EACH).images}
    assert found == {*ids_of_kind("komondor"), *ids_of_kind("pug")}


def test_python_finds_what_the_command_finds(kept: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    table = ImageClusterer.load(kept.root).find("dog -Chihuahua", n=3)
    assert list(table.columns) == ["id", "path", "score", "cluster"]
    assert shoal("find", kept.root, "dog", "-Chihuahua", "-n", 3) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["score", "cluster", "path"]
    assert [line.split(maxsplit=2)[2] for line in lines] == table["path"].tolist()
    assert [float(line.split()[0]) for line in lines] == pytest.approx(table["score"].tolist(), abs=1e-3)


def test_what_no_image_shows_is_not_found(kept: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    clusterer = ImageClusterer.load(kept.root)
    some = clusterer.find("banana", n=5 * EACH)
    assert set(some["id"]) == set(ids_of_kind("banana"))
    assert some["score"].min() >= LEAST_FIT
    none = clusterer.find("school bus", n=3)
    assert none.empty
    assert list(none.dtypes.items()) == list(some.dtypes.items())
    assert shoal("find", kept.root, "school", "bus", "-n", 3) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == NONE_FITS


def test_the_page_says_of_no_image_what_the_command_says() -> None:
    page = Path(__file__).parent.parent / "web/src/views/SearchView.svelte"
    assert f">{NONE_FITS}<" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sparrow"], "'sparrow' is no word that is known here; near it: bird"),
        (["Chihuahua", "qzxv"], "'qzxv' is no word that is known here"),
        (["-Chihuahua"], "expected a word to look for"),
        (["..."], "expected a word to look for"),
    ],
)
def test_what_cannot_be_looked_for_is_told(
    words: Sequence[str], told: str, kept: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shoal("find", kept.root, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err.splitlines()) == 1


def test_several_meanings_are_told_beside_the_list(kept: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("find", kept.root, "crane") == 0
    assert "'crane' means crane (bird), crane (machine)" in capsys.readouterr().err


def test_a_run_without_a_classifier_says_why_it_cannot_be_searched(tmp_path: Path) -> None:
    run = named_run(tmp_path / "run.shoal", has_classifier=False)
    with pytest.raises(RunError, match="without a classifier whose words are known"):
        find(run, "Chihuahua", 5)


# -- beside labels -----------------------------------------------------------------------------------------------------


def evaluate_with(run: RunDir, folder: Path, labels: Sequence[str]):  # type: ignore[no-untyped-def]
    """An evaluation against one label for each kind."""
    paths = [f"folder/image {number:05d}.png" for kind in KINDS for number in ids_of_kind(kind)]
    given = [label for label in labels for _ in range(EACH)]
    pd.DataFrame({"path": paths, "label": given}).to_csv(folder / "labels.csv", index=False)
    return evaluate(run, str(folder / "labels.csv"))


@pytest.mark.parametrize(
    ("labels", "n", "share"),
    [
        (KINDS, 1.0, 1.0),
        (("n01443537", "hourglass", "fruit", "dog", "canine", "pug"), 1.0, 1.0),  # ids, and words for more
        (("goldfish", "hourglass", "banana", "komondor", "Chihuahua", "pug"), 1.0, 4 / 6),
        (("class 1", "class 2", "banana", "class 4", "class 5", "class 6"), 1 / 6, 1.0),
    ],
)
def test_names_are_compared_with_labels_that_are_words(
    labels: Sequence[str], n: float, share: float, kept: RunDir, tmp_path: Path
) -> None:
    found = evaluate_with(kept, tmp_path, labels)
    assert found.names is not None
    assert found.names.n == n * len(KINDS) * EACH
    assert found.names.named == 1
    assert found.names.with_most == found.names.with_own == pytest.approx(share)
    assert json.loads(json.dumps(found.to_json()))["names"]["with_own"] == pytest.approx(share)
    assert found.names.text() in found.text()


def test_labels_that_are_no_words_are_compared_with_no_names(kept: RunDir, tmp_path: Path) -> None:
    assert evaluate_with(kept, tmp_path, [f"class {number}" for number in range(len(KINDS))]).names is None


# -- real runs ---------------------------------------------------------------------------------------------------------


def test_a_run_of_before_is_renewed_without_embedding_again(tmp_path: Path) -> None:
    source = paint(tmp_path / "pictures")
    ImageClusterer(clusters=3, out=tmp_path / "run.shoal").fit(source)
    before = RunDir.open(tmp_path / "run.shoal").read_state()["stages"]
    state = json.loads((tmp_path / "run.shoal" / "run.json").read_text())
    for name in ("classes", "names"):
        del state["stages"][name]
    state["stages"]["embed"] |= {"key": "of before", "parts": {}}
    (tmp_path / "run.shoal" / "run.json").write_text(json.dumps(state))
    again = ImageClusterer(clusters=3, out=tmp_path / "run.shoal").fit(source).run_dir_
    after = again.read_state()["stages"]
    assert after["embed"]["facts"]["embedded_now"] == 0
    assert after["cluster"] == before["cluster"]
    assert after["classes"]["digest"] == before["classes"]["digest"]
    assert (again.model / GUESSES).is_file()


def test_a_copy_that_comes_later_is_named_like_its_original(tmp_path: Path) -> None:
    source = paint(tmp_path / "pictures")
    ImageClusterer(clusters=3, out=tmp_path / "run.shoal").fit(source)
    shutil.copy(source / "kind0" / "0.png", source / "kind0" / "copy.png")
    run = ImageClusterer(clusters=3, out=tmp_path / "run.shoal").fit(source).run_dir_
    finder = opened_finder(run)
    assert len(finder.look("dog").scores) == len(finder.ids)
    found = run.read_images(["path"])["path"].take(finder.ids).to_pylist()
    assert set(found) == {path for path in paths_of(source) if not path.endswith("copy.png")}


def paths_of(source: Path) -> set[str]:
    return {path.relative_to(source).as_posix() for path in source.rglob("*.png")}


@pytest.mark.parametrize("kind", ["default", "map", "best", "logits", "probabilities"])
def test_the_embedded_backbone_s_features_all_have_classes(kind: str, tmp_path: Path) -> None:
    source = paint(tmp_path / "pictures")
    fitted = {
        name: ImageClusterer(clusters=3, features=name, out=tmp_path / name).fit(source).run_dir_
        for name in ("logits", kind)
    }
    found = {name: classes.read(run) for name, run in fitted.items()}
    expected, told = found["logits"], found[kind]
    assert expected is not None
    assert told is not None
    assert told[1].name == "ImageNet-1k"
    if kind == "best":  # of other networks too, which do not see quite the same
        assert told[0].classes.shape == expected[0].classes.shape
        return
    np.testing.assert_allclose(told[0].probabilities, expected[0].probabilities, atol=0.03)  # of half precision


@pytest.mark.parametrize("kind", ["default", "map", "best"])
def test_the_classifier_of_a_timm_model_is_kept_where_it_is_linear_on_the_features(kind: str, tmp_path: Path) -> None:
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "small.safetensors")
    source = paint(tmp_path / "pictures")
    asked = {"clusters": 3, "backbone": "test_resnet", "weights": tmp_path / "small.safetensors"}
    run = ImageClusterer(**asked, features=kind, out=tmp_path / "run.shoal").fit(source).run_dir_
    logits = ImageClusterer(**asked, features="logits", out=tmp_path / "logits.shoal").fit(source).run_dir_
    told, expected = classes.read(run), classes.read(logits)
    assert told is not None
    assert expected is not None
    if kind != "best":
        np.testing.assert_allclose(told[0].probabilities, expected[0].probabilities, rtol=0.02, atol=1e-5)
    bare = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    save_file(bare, tmp_path / "bare.safetensors")
    without = {**asked, "weights": tmp_path / "bare.safetensors"}
    run = ImageClusterer(**without, features=kind, out=tmp_path / "bare.shoal").fit(source).run_dir_
    assert classes.read(run) is None
    with pytest.raises(RunError, match=r"test_resnet.*without a classifier"):
        find(run, "dog", 5)


@pytest.mark.parametrize("count", [11821, 21841, 21842, 21843, 11221, 10450])
def test_timm_models_of_larger_lists_have_their_words(count: int, tmp_path: Path) -> None:
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from safetensors.torch import save_file

    words = vocabulary(count)
    assert words is not None
    class_of_brambling = [words.said[place] for place in words.classes.tolist()].index("brambling")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=count)
    with torch.no_grad():
        model.fc.bias[class_of_brambling] = 50  # whatever it sees
    save_file(model.state_dict(), tmp_path / "small.safetensors")
    source = paint(tmp_path / "pictures", each=2)
    asked = {"clusters": 2, "backbone": "test_resnet", "weights": tmp_path / "small.safetensors"}
    run = ImageClusterer(**asked, out=tmp_path / "run.shoal").fit(source).run_dir_
    told = classes.read(run)
    assert told is not None
    assert told[1].name == words.name
    assert (told[0].classes[:, 0] == class_of_brambling).all()
    found = find(run, "finch", 6).images
    assert len(found) == 6
    assert min(one.score for one in found) > 0.9
