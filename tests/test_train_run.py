"""`shoal train` from a source to a run that everything else works on; heads as clusters; data sets by name."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shoal import records
from shoal.api import ImageClusterer
from shoal.cli import main
from shoal.cluster.model import ClusterModel
from shoal.config import ClusterCounts
from shoal.embeddings import EmbeddingStore
from shoal.errors import ConfigError, RunError, SourceError, TooFewImagesError, WeightsError
from shoal.progress import Progress
from shoal.publish.publish import publish
from shoal.rundir import RunDir
from shoal.train import checkpoint, clusters, datasets, how_many, recipe, selflabel, show_views
from shoal.train.decoding import open_pixels
from shoal.train.encoders import Head
from shoal.train.outcome import Outcome
from shoal.train.processes import is_launched
from shoal.train.run import TrainRequest, train
from shoal.train.run import show_views as show_views_of
from shoal.train.training import Training
from small_run import write_small_run
from torch_twin import torch_twin

RECIPE = """
encoder: {name: test_resnet}
data: {size: 16}
pretext: {epochs: 2, loop: {batch: 16}, head: {dim: 16}}
neighbours: {k: 5}
scan: {epochs: 30, heads: 2, tune_encoder: false, cached_views: 2, optimiser: {rate: 0.05}, loop: {batch: 16}}
selflabel: {epochs: 1, quota: 0.5, ema: 0.9, loop: {batch: 16}}
"""

NO_SCAN = ("scan.epochs=0", "selflabel.epochs=0")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of three colours in folders, one more that is broken, and a copy."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(48):
        kind = ("red", "green", "blue")[number % 3]
        values = rng.normal(60, 30, (20, 24, 3))
        values[..., number % 3] += 130
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(folder / kind / f"{number:02d}.png")
    (folder / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    (folder / "red" / "copy.png").write_bytes((folder / "red" / "00.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(source: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    out = tmp_path_factory.mktemp("run") / "trained.shoal"
    request = TrainRequest((str(source),), str(recipe_file), clusters="3", out=out, device="cpu")
    run_dir, worked = train(request, Progress())
    assert worked
    return run_dir


def test_a_trained_run_is_an_ordinary_run(trained: RunDir) -> None:
    rows = trained.read_clusters()
    assert rows.schema.equals(records.CLUSTERS)
    assert rows.num_rows == 49  # 48 and the copy
    assert set(rows["cluster"].to_pylist()) <= {0, 1, 2}
    facts = trained.stage("cluster")["facts"]
    assert facts["k"] == 3
    assert facts["sizes"] == sorted(facts["sizes"], reverse=True)
    assert sum(facts["sizes"]) == 48
    config = json.loads((trained.model / "config.json").read_text(encoding="utf-8"))
    assert config["encoder"]["backbone"] == "shoal:timm/test_resnet"
    assert config["encoder"]["size"] == 16
    for name in ("train-pretext", "train-scan", "train-selflabel", "train-architecture", "train-views", "train-knn"):
        assert (trained.report / f"{name}.png").stat().st_size > 1000
    assert "How the encoder learned" in (trained.report / "index.html").read_text(encoding="utf-8")


def test_what_else_there_is_works_on_it(
    trained: RunDir, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clusterer = ImageClusterer.load(trained.root)
    told = clusterer.predict(source / "red").set_index("path")["cluster"]
    known = clusterer.clusters_.set_index("path")["cluster"]
    agree = [told[path] == known[f"red/{path}"] for path in told.index]
    assert sum(agree) >= len(agree) - 1  # embeddings are kept in float16: an image on a border may fall either way
    assert clusterer.similar(source / "red" / "03.png", 5)["similarity"].iloc[0] > 0.5
    for command in (
        ["evaluate", str(trained.root), "--json"],
        ["export", str(trained.root), "--to", "csv", str(tmp_path / "clusters.csv")],
        ["report", str(trained.root)],
    ):
        with pytest.raises(SystemExit) as done:
            main(command)
        assert done.value.code == 0
    assert '"acc"' in capsys.readouterr().out


def test_a_whitened_encoder_without_scan_leaves_an_ordinary_run(
    source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    exact = "pretext.loop.precision=fp32"  # as the embeddings are computed
    changes = ("encoder.name=whitened/test_resnet", *NO_SCAN, "pretext.optimiser.name=muon", exact)
    request = TrainRequest((str(source),), str(recipe_file), changes, clusters="3", out=tmp_path / "run", device="cpu")
    run_dir, _ = train(request, Progress())
    outcome = Outcome.load(run_dir.train / "encoder.safetensors")
    turn = outcome.encoder["whitening.turn"]
    assert float((turn - torch.eye(len(turn))).abs().max()) > 0.1
    facts = run_dir.stage("cluster")["facts"]
    assert (facts["k"], facts["method"]) == (3, "kmeans")
    rows, ids = run_dir.read_clusters(), np.arange(3)
    assert len(set(rows["cluster"].to_pylist())) == 3
    features = checkpoint.read_tensors(run_dir.path("train/features.safetensors"))["features"]
    kept = EmbeddingStore.open(run_dir.embeddings).read(ids)
    np.testing.assert_allclose(features[:3].numpy(), kept, rtol=0.02, atol=0.02)  # kept in half precision
    told = ImageClusterer.load(run_dir.root / "model").predict(source / "blue")
    assert len(told) == 16


def test_neighbours_by_the_projection_and_a_whitened_encoder_go_together(
    source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    changes = ("encoder.name=whitened/test_resnet", "neighbours.features=projection", "selflabel.epochs=0")
    request = TrainRequest((str(source),), str(recipe_file), changes, clusters="3", out=tmp_path / "run", report=False)
    run_dir, _ = train(request, Progress())
    near = checkpoint.read_tensors(run_dir.path("train/features.safetensors"))["features"]
    assert near.shape == (48, 16)  # of the projection head
    outcome = Outcome.load(run_dir.train / "encoder.safetensors")
    assert not torch.equal(outcome.encoder["whitening.turn"], torch.eye(len(outcome.encoder["whitening.turn"])))


def test_killed_after_the_last_epoch_a_whitened_encoder_ends_the_same(
    source: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned is in a checkpoint, the whitening is not yet: it is found when the command is given again."""

    def request(name: str) -> TrainRequest:
        changes = ("encoder.name=whitened/test_resnet", *NO_SCAN)
        return TrainRequest((str(source),), str(recipe_file), changes, clusters="3", out=tmp_path / name, report=False)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    whole, _ = train(request("whole"), Progress())
    with monkeypatch.context() as patch:
        patch.setattr(Outcome, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(request("killed"), Progress())
    assert not (tmp_path / "killed" / "train" / "pretext" / "outcome.safetensors").exists()
    resumed, _ = train(request("killed"), Progress())
    expected, found = (Outcome.load(run.train / "encoder.safetensors").encoder for run in (whole, resumed))
    assert float((expected["whitening.turn"] - torch.eye(len(expected["whitening.turn"]))).abs().max()) > 0.1
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_more_clusters_than_images_are_refused_before_hours_are_spent(
    source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    for asked in ("60", "60-70"):
        request = TrainRequest((str(source),), str(recipe_file), NO_SCAN, clusters=asked, out=tmp_path / "run")
        with pytest.raises(TooFewImagesError, match="48 usable images are fewer than 60"):
            train(request, Progress())


def test_its_model_folder_works_somewhere_else(trained: RunDir, source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "model"
    moved.mkdir()
    for file in (trained.root / "model").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    found = ImageClusterer.load(moved).predict(source / "blue")
    assert len(found) == 16


def test_its_encoder_is_a_backbone_for_other_images(trained: RunDir, source: Path, tmp_path: Path) -> None:
    weights = trained.train / "encoder.safetensors"
    clusterer = ImageClusterer(
        clusters=2, backbone="shoal:timm/test_resnet", weights=weights, out=tmp_path / "run", device="cpu"
    ).fit(source / "green")
    assert clusterer.n_clusters_ == 2
    with pytest.raises(ConfigError, match="needs --weights"):
        ImageClusterer(backbone="shoal:timm/test_resnet", out=tmp_path / "none").fit(source / "green")
    for name in ("shoal:cpu-small", "shoal:whitened/timm/test_resnet"):
        with pytest.raises(WeightsError, match="holds 'shoal:timm/test_resnet'"):
            ImageClusterer(backbone=name, weights=weights, out=tmp_path / "no").fit(source / "green")


def test_a_finished_run_resumes_to_nothing(
    trained: RunDir, source: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained.clusters.read_bytes(), (trained.train / "encoder.safetensors").read_bytes())
    with pytest.raises(SystemExit) as done:
        main(
            [
                "train",
                str(source),
                "--recipe",
                str(recipe_file),
                "--clusters",
                "3",
                "--out",
                str(trained.root),
                "--resume",
            ]
        )
    assert done.value.code == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert (trained.clusters.read_bytes(), (trained.train / "encoder.safetensors").read_bytes()) == before


def test_only_what_a_change_makes_stale_is_trained_again(
    trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    import shutil

    copy = RunDir(tmp_path / "copy.shoal")
    shutil.copytree(trained.root, copy.root)
    request = TrainRequest(
        (str(source),), str(recipe_file), ("scan.epochs=1",), "3", out=copy.root, device="cpu", report=False
    )
    before = copy.read_state()["stages"]
    train(request, Progress())
    after = copy.read_state()["stages"]
    assert after["pretext"] == before["pretext"]
    assert after["scan"]["key"] != before["scan"]["key"]
    assert after["selflabel"]["key"] != before["selflabel"]["key"]


def test_training_may_start_from_weights_that_there_are(
    trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """Without a pretext task the encoder is what its weights say, and frozen heads leave it so."""
    weights = trained.train / "pretext" / "outcome.safetensors"
    changes = (f"encoder.weights={weights}", "pretext.epochs=0", "selflabel.epochs=0", "scan.standardise=true")
    request = TrainRequest(
        (str(source),), str(recipe_file), changes, "3", out=tmp_path / "run", device="cpu", report=False
    )
    run_dir, _ = train(request, Progress())
    start, end = Outcome.load(weights).encoder, Outcome.load(run_dir.train / "encoder.safetensors").encoder
    assert start.keys() == end.keys()
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_frozen_parts_stay_as_their_weights_say(
    trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    weights = trained.train / "pretext" / "outcome.safetensors"
    changes = (f"encoder.weights={weights}", "encoder.frozen=[conv1, layer1]", *NO_SCAN)
    request = TrainRequest((str(source),), str(recipe_file), changes, "3", out=tmp_path / "run", report=False)
    config = recipe.load(str(recipe_file), changes)
    training = Training(config, trained, 0, ClusterCounts.parse("3"), torch.device("cpu"), Progress(), open_pixels)
    run_dir, _ = train(request, Progress())
    start = Outcome.load(weights).encoder
    network = training.encoder("pretext")
    learned = checkpoint.read_tensors(next((run_dir.train / "pretext").glob("last*.safetensors")))
    changed = {
        name
        for name, weight in network.named_parameters()
        if not torch.equal(start[name], learned[f"model/encoder.{name}"])
    }
    assert changed
    assert changed == {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert not any(name.startswith(("conv1.", "layer1.")) for name in changed)
    for part in ("layer9", "''", "maxpool"):
        wrong = (f"encoder.weights={weights}", f"encoder.frozen=[{part}]")
        with pytest.raises(ConfigError, match=r"encoder.frozen has '.*'; expected parts .* have weights: conv1, bn1"):
            train(dataclasses.replace(request, changes=wrong, out=tmp_path / "wrong"), Progress())
    with pytest.raises(ConfigError, match=r"encoder.weights is not: those parts would stay as drawn"):
        train(dataclasses.replace(request, changes=("encoder.frozen=[conv1]",), out=tmp_path / "drawn"), Progress())


def test_a_pretext_task_that_makes_borrowed_weights_worse_is_not_kept(
    trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """The kinds are colours: an encoder that is shown grey images only unlearns them."""
    weights = trained.train / "pretext" / "outcome.safetensors"
    changes = (
        f"encoder.weights={weights}",
        "pretext.epochs=12",
        "pretext.views.grey_chance=1.0",
        "pretext.optimiser.rate=0.05",
        *NO_SCAN,
    )
    request = TrainRequest(
        (str(source),), str(recipe_file), changes, "3", out=tmp_path / "run", device="cpu", report=False
    )
    run_dir, _ = train(request, Progress())
    found = Outcome.load(run_dir.train / "pretext" / "outcome.safetensors")
    start = Outcome.load(weights).encoder
    assert found.facts["agreement"] <= found.facts["agreement_before"]
    assert not found.facts["kept"]
    assert all(torch.equal(start[name], found.encoder[name]) for name in start)


TAUGHT = ("scan.epochs=0", "selflabel.epochs=3", "selflabel.optimiser.rate=0.01")


def test_clusters_of_the_ordinary_stages_may_teach_the_encoder(
    source: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = TrainRequest((str(source),), str(recipe_file), TAUGHT, "3", out=tmp_path / "run", device="cpu")
    judged = []

    def kept(then: float, now: float) -> None:
        def before(label: torch.Tensor, neighbours: torch.Tensor, clusters: int) -> float:
            judged.append((len(label), clusters))
            return then

        monkeypatch.setattr("shoal.train.evidence.agreement", before)
        monkeypatch.setattr("shoal.train.evidence.HeldOut.agreement", lambda judge, logits: now)

    kept(0.2, 0.4)
    run_dir, _ = train(request, Progress())
    outcome = Outcome.load(run_dir.train / "encoder.safetensors")
    assert outcome.head is not None
    assert outcome.facts | {"clusters": 3, "agreement_before": 0.2, "agreement": 0.4, "kept": True} == outcome.facts
    assert outcome.facts["why"].startswith("3 clusters, as asked")
    images, store = run_dir.read_images().to_pandas(), EmbeddingStore.open(run_dir.embeddings)
    rows = run_dir.read_clusters().to_pandas()
    rows = rows[rows["id"].isin(images["id"][images["status"] == "ok"])]  # a copy has its original's cluster
    assert len(rows) == 48
    logits = store.read(rows["id"].to_numpy()) @ outcome.head.weight.numpy() + outcome.head.bias.numpy()
    told = logits.argmax(axis=1)
    assert all(rows["cluster"][told == number].nunique() == 1 for number in np.unique(told))
    start = Outcome.load(run_dir.train / "pretext" / "outcome.safetensors").encoder
    assert not all(torch.equal(start[name], outcome.encoder[name]) for name in start)
    learned = checkpoint.read_tensors(next((run_dir.train / "selflabel").glob("last*.safetensors")))
    factors = outcome.head.weight / learned["model/average.network.heads.weight"][0]
    torch.testing.assert_close(factors, factors[:1, :1].expand_as(factors))  # calibrated: as trained, but for a factor
    assert not 0.99 < factors[0, 0] < 1.01
    assert judged == [(48, 3)]
    assert (run_dir.report / "train-selflabel.png").stat().st_size > 1000
    publish(run_dir, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| self-labelling \| 3 epochs.* of each cluster that was found with the encoder before \|", card)

    # Run again, nothing is done again: neither the ordinary stages for the teacher nor the learning.
    done = {name: run_dir.stage(name) for name in ("pretext", "selflabel", "embed", "neighbours", "cluster", "report")}
    train(request, Progress())
    assert {name: run_dir.stage(name) for name in done} == done
    assert len(judged) == 1

    # Where it made them worse, the run is as if it had not been asked for.
    kept(0.4, 0.2)
    worse, _ = train(dataclasses.replace(request, out=tmp_path / "worse"), Progress())
    assert Outcome.load(worse.train / "encoder.safetensors").head is None
    plain_changes = ("scan.epochs=0", "selflabel.epochs=0")
    plain, _ = train(dataclasses.replace(request, changes=plain_changes, out=tmp_path / "plain"), Progress())
    assert worse.read_clusters().equals(plain.read_clusters())
    assert worse.stage("embed")["facts"]["embedded_now"] == 48  # once, for the teacher


@pytest.mark.parametrize("where", ["selflabel", "embed", "cluster"])
def test_resume_of_a_killed_teaching_goes_on(
    where: str, source: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ordinary stages are done already, for the teacher: that does not make the run a finished one."""
    monkeypatch.setattr("shoal.train.evidence.HeldOut.agreement", lambda judge, logits: 2.0)  # it is kept
    request = TrainRequest(
        (str(source),), str(recipe_file), TAUGHT, "3", out=tmp_path / "run", device="cpu", report=False, resume=True
    )

    class SwitchedOffError(Exception):
        pass

    def switch_off(*words: object, **more: object) -> None:
        raise SwitchedOffError

    with monkeypatch.context() as patched:
        if where == "selflabel":
            patched.setattr(selflabel.Taught, "after_step", switch_off)
        elif where == "embed":  # after the encoder was taught
            patched.setattr("shoal.train.run._onward", switch_off)
        else:
            patched.setattr("shoal.train.clusters.write", switch_off)
        with pytest.raises(SwitchedOffError):
            train(request, Progress())
    run_dir, worked = train(request, Progress())
    assert worked
    assert run_dir.stage("cluster")["facts"]["method"] == "selflabel"
    assert run_dir.stage("embed")["facts"]["backbone"] == "shoal:timm/test_resnet"
    assert not train(request, Progress())[1]
    assert train(dataclasses.replace(request, changes=(*TAUGHT, "selflabel.quota=0.6")), Progress())[1]


def test_one_cluster_teaches_nothing(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for level in range(1, 9):  # other files, the same pixels
        Image.new("RGB", (20, 20), "teal").save(folder / f"{level}.png", compress_level=level)
    changes = ("pretext.epochs=0", "encoder.name=tf_efficientnet_lite0", "encoder.weights=embedded", "data.size=32")
    request = TrainRequest((str(folder),), str(recipe_file), (*TAUGHT, *changes), out=tmp_path / "run", report=False)
    said: list[str] = []

    class Heard(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    run_dir, _ = train(request, Heard())
    assert run_dir.stage("cluster")["facts"]["k"] == 1
    assert any("Self-labelling was left out: 1 clusters" in text for text in said)


def test_scan_after_teaching_in_the_same_run_has_features_of_its_own(source: Path, tmp_path: Path) -> None:
    small = ("data.size=32", "selflabel.epochs=1", "selflabel.loop.batch=16")
    request = TrainRequest((str(source),), "tune-embedded", small, "3", out=tmp_path / "run", report=False)
    run_dir, _ = train(request, Progress())
    assert not (run_dir.path("train/features.safetensors")).exists()
    scan = ("data.size=32", "selflabel.epochs=0", "scan.epochs=1", "scan.tune_encoder=false", "scan.loop.batch=16")
    run_dir, _ = train(dataclasses.replace(request, changes=scan), Progress())
    assert checkpoint.read_tensors(run_dir.path("train/features.safetensors"))["features"].shape == (48, 1280)
    assert run_dir.stage("cluster")["facts"]["method"] == "scan"
    run_dir, _ = train(request, Progress())
    assert not (run_dir.path("train/features.safetensors")).exists()


def test_teaching_starts_again_when_images_were_added(source: Path, recipe_file: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "images"
    shutil.copytree(source, folder)
    request = TrainRequest((str(folder),), str(recipe_file), TAUGHT, "3", out=tmp_path / "run", report=False)
    run_dir, _ = train(request, Progress())
    before = run_dir.stage("selflabel")
    Image.new("RGB", (20, 20), "purple").save(folder / "new.png")
    run_dir, _ = train(request, Progress())
    assert run_dir.stage("selflabel")["key"] != before["key"]
    assert run_dir.read_clusters().num_rows == 50


def test_what_teaches_starts_and_judges_goes_by_the_same_images(
    source: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With samples smaller than all images, each of another size."""
    seen: list[tuple[Any, Any]] = []
    make, calibrate, earlier = selflabel.Taught.__init__, selflabel.calibrated, []

    def made(phase: selflabel.Taught, config: object, network: object, pixels: object, *rest: object) -> None:
        make(phase, config, network, pixels, *rest)
        teacher, judge = rest[:2]
        told = phase.logits(teacher.positions).argmax(dim=1)
        assert told.eq(teacher.labels).float().mean() > 0.9  # it starts by what they tell
        seen.append((teacher, judge))

    def calibrating(head: Head, logits: torch.Tensor, before: torch.Tensor) -> Head:
        earlier.append(before)
        return calibrate(head, logits, before)

    monkeypatch.setattr(selflabel.Taught, "__init__", made)
    monkeypatch.setattr(selflabel, "calibrated", calibrating)
    monkeypatch.setattr(selflabel, "PROBE_IMAGES", 40)
    monkeypatch.setattr("shoal.train.evidence.some", lambda count, seed, most=20: torch.arange(count).flip(0)[:most])
    monkeypatch.setattr("shoal.train.evidence.HeldOut.agreement", lambda judge, logits: 1.0)
    changes = (*TAUGHT, "selflabel.loop.precision=fp32")
    request = TrainRequest((str(source),), str(recipe_file), changes, "3", out=tmp_path / "run", report=False)
    train(request, Progress())
    (teacher, judge), (before,) = seen[0], earlier
    by_position = dict(zip(teacher.positions.tolist(), teacher.labels.tolist(), strict=True))
    assert len(judge.positions) == 20
    assert before.tolist() == [by_position[position] for position in judge.positions.tolist()]


def test_more_clusters_than_features_cannot_teach(trained: RunDir, recipe_file: Path) -> None:
    config = recipe.load(str(recipe_file), TAUGHT)
    training = Training(config, trained, 0, ClusterCounts.parse("33"), torch.device("cpu"), Progress(), open_pixels)
    with pytest.raises(ConfigError, match=r"--clusters has value 33; expected at most 32, the dimensions"):
        how_many.require_room(training, 32)


def test_the_embedded_backbone_at_its_own_size_teaches_the_one_that_is_tuned(source: Path, tmp_path: Path) -> None:
    changes = ("data.size=32", "selflabel.epochs=1", "selflabel.loop.batch=16")
    request = TrainRequest((str(source),), "tune-embedded", changes, "3", out=tmp_path / "run", report=False)
    ImageClusterer(3, out=tmp_path / "run").fit(source)
    clusters = RunDir(tmp_path / "run").clusters.read_bytes()
    said: list[str] = []

    class Heard(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    run_dir, _ = train(request, Heard())
    outcome = Outcome.load(run_dir.train / "encoder.safetensors")
    assert {"agreement_before", "agreement", "kept"} <= outcome.facts.keys()
    if not outcome.facts["kept"]:
        assert any(text.startswith("Self-labelling left neighbours agreeing less") for text in said)
        assert run_dir.clusters.read_bytes() == clusters
    frozen = recipe.load("tune-embedded").encoder.frozen
    learned = checkpoint.read_tensors(next((run_dir.train / "selflabel").glob("last*.safetensors")))
    start = Outcome.load(run_dir.train / "pretext" / "outcome.safetensors").encoder
    for name in ("conv_stem.weight", "blocks.2.0.conv_pw.weight", "blocks.6.0.conv_pwl.weight"):
        same = torch.equal(start[name], learned[f"model/network.encoder.{name}"])
        assert same == any(name.startswith(f"{part}.") for part in frozen), name


def test_clusters_may_be_learned_from_some_of_the_images(
    trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    def training(begin: str) -> Training:
        config = recipe.load(str(recipe_file), [f"scan.images={begin}"])
        return Training(config, trained, 0, ClusterCounts.parse("3"), torch.device("cpu"), Progress(), open_pixels)

    green = training("green/")
    paths = trained.read_images(["id", "path"]).to_pylist()
    by_id = {image["id"]: image["path"] for image in paths}
    assert [by_id[image].split("/")[0] for image in green.pixels.ids[green.chosen.numpy()].tolist()] == ["green"] * 16
    with pytest.raises(ConfigError, match=r"scan.images has value 'yellow/', but no usable image's path begins so"):
        _ = training("yellow/").chosen
    request = TrainRequest(
        (str(source),), str(recipe_file), ("scan.images=green/",), "3", out=tmp_path / "r", device="cpu", report=False
    )
    run_dir, _ = train(request, Progress())
    assert run_dir.read_clusters().num_rows == 49  # all images are in clusters all the same


def test_the_embedded_backbone_is_where_training_may_start() -> None:
    from shoal.train import encoders
    from shoal.train.config import EncoderConfig

    started = encoders.encoder(EncoderConfig("tf_efficientnet_lite0", "embedded")).eval()
    borrowed, _ = torch_twin("default")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(started(images), borrowed(images), atol=1e-3, rtol=1e-3)


def test_labels_teach_nothing(trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path) -> None:
    """The same images in other folders, so with other labels: the same weights and the same log."""
    order = [path for kind in ("blue", "green", "red") for path in sorted((source / kind).iterdir())]
    table = tmp_path / "shuffled"
    for path in order:
        target = table / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    manifest = tmp_path / "list.csv"
    lines = [f"{path},{'abc'[number % 3]}" for number, path in enumerate(order)]  # by no rule of colour
    manifest.write_text("path,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "run.shoal"
    request = TrainRequest((str(manifest),), str(recipe_file), clusters="3", out=out, device="cpu", report=False)
    train(request, Progress())

    def told(run_dir: RunDir) -> list[float]:
        lines = (run_dir.train / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert told(RunDir(out)) == told(trained)


# -- heads as clusters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_head_s_clusters_and_confidence_are_kept_exactly(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(300, 12)).astype(np.float16)
    weight, bias = rng.normal(size=(12, 5)), rng.normal(size=5) * 3
    run = write_small_run(tmp_path / "run", features)
    head = Head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
    clusters.write(run, head, 0, "scan", "5 clusters were asked for")
    logits = features.astype(np.float64) @ weight + bias
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    rows = run.read_clusters()
    expected = logits.argmax(1)
    sizes = np.bincount(expected, minlength=5)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    assert np.array_equal(order[rows["cluster"].to_numpy()], expected)
    if len(order) == 5:
        assert np.allclose(rows["confidence"].to_numpy(), probability.max(1), atol=1e-4)
        assert np.array_equal(order[rows["runner_up"].to_numpy()], np.argsort(-logits, axis=1)[:, 1])
    model = ClusterModel.load(run.model)
    again = model.assign(EmbeddingStore.open(run.embeddings).read(np.arange(300)))
    assert np.array_equal(again.cluster, rows["cluster"].to_numpy())
    assert again.unknown.mean() < 0.02


def test_images_far_from_all_clusters_are_unknown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = 5 * np.eye(3, 8)
    features = (centres[np.arange(900) % 3] + rng.normal(0, 0.3, (900, 8))).astype(np.float16)
    run = write_small_run(tmp_path / "run", features)
    clusters.write(run, Head(torch.from_numpy(centres.T).float(), torch.zeros(3)), 0, "scan", "why")
    model = ClusterModel.load(run.model)
    near = model.assign((centres + 0.1).astype(np.float32))
    far = model.assign(np.full((1, 8), 40, np.float32))
    assert not near.unknown.any()
    assert far.unknown.all()


def test_a_cluster_that_the_model_gives_no_image_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding does so where an image's logits are nearly equal; here the head is said to have a cluster it has not."""
    features = (5 * np.eye(3, 8)[np.arange(30) % 2]).astype(np.float16)
    run = write_small_run(tmp_path / "run", features)
    monkeypatch.setattr(clusters, "_used_by_size", lambda *_: np.arange(3))
    head = Head(torch.from_numpy(5 * np.eye(3, 8).T).float(), torch.zeros(3))
    found = clusters.write(run, head, 0, "scan", "3 clusters were asked for")
    assert (found.facts["k"], found.facts["sizes"]) == (2, [15, 15])
    assert found.facts["sentence"] == "3 clusters were asked for; 1 of them got no image"
    assert len(ClusterModel.load(run.model).centroids) == 2


def test_clusters_without_images_are_dropped_and_more_than_dimensions_refused(tmp_path: Path) -> None:
    features = np.abs(np.random.default_rng(0).normal(size=(50, 4))).astype(np.float16)
    run = write_small_run(tmp_path / "run", features)
    weight = torch.tensor([[0.0, 5, -5], [0, -5, 5], [0, 1, 1], [0, 1, 2]])
    found = clusters.write(run, Head(weight, torch.tensor([-99.0, 0, 0])), 0, "scan", "3 clusters were asked for")
    assert found.facts["k"] == 2
    assert found.facts["sentence"] == "3 clusters were asked for; 1 of them got no image"
    assert set(run.read_clusters()["cluster"].to_pylist()) == {0, 1}
    with pytest.raises(ConfigError, match="expected at most 4"):
        clusters.fit(EmbeddingStore.open(run.embeddings), np.arange(50), np.ones((4, 6)), np.zeros(6))


# -- requests ----------------------------------------------------------------------------------------------------------


def test_show_views_draws_them(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["train", str(source), "--recipe", "cpu-small", "--show-views", "--out", str(tmp_path / "run")])
    assert done.value.code == 0
    with Image.open(capsys.readouterr().out.strip()) as figure:
        assert figure.width > 500


def test_where_nothing_is_trained_the_images_alone_are_shown(
    trained: RunDir, source: Path, recipe_file: Path, tmp_path: Path
) -> None:
    weights = trained.train / "pretext" / "outcome.safetensors"
    changes = (f"encoder.weights={weights}", "pretext.epochs=0", *NO_SCAN)
    request = TrainRequest((str(source),), str(recipe_file), changes, "3", out=tmp_path / "run", device="cpu")
    with Image.open(show_views_of(request, Progress())) as figure:
        assert figure.width > 500


def test_shown_views_have_the_sides_that_the_encoder_is_given() -> None:
    changes = ("scan.epochs=1", "selflabel.epochs=1")
    assert [(title, side) for title, _, side in show_views._sets(recipe.load("cpu-small", changes))] == [
        ("pretext, first epoch: simclr, sides of 16 pixels", 16),
        ("pretext, last epoch: simclr, sides of 28 pixels", 28),
        ("scan: simclr, sides of 32 pixels", 32),
        ("selflabel, weak: centre, sides of 32 pixels", 32),
        ("selflabel, strong: strong, sides of 32 pixels", 32),
    ]
    changes = ("pretext.start_side=1", "pretext.end_side=1", "scan.epochs=1", "scan.views.area=[0.2, 1.0]")
    assert [title for title, _, _ in show_views._sets(recipe.load("cpu-small", changes))] == [
        "pretext and scan: simclr, sides of 32 pixels"
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--recipe", "nothing"], 2, "--recipe has value 'nothing'"),
        (["--recipe", "cpu-small", "--set", "scan.epoch=1"], 2, "unknown key 'epoch'"),
        (["--recipe", "cpu-small", "--clusters", "many"], 2, "--clusters has value 'many'"),
        (["--recipe", "scan-imagenet50"], 2, "pretext.epochs is 0 and encoder.weights is not set"),
        (
            ["--recipe", "cpu-small", "--clusters", "60"],
            1,
            "48 usable images are fewer than 60, which clustering needs",
        ),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["train", str(source), *arguments, "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert done.value.code == code
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shoal: ")]
    assert len(told) == 1
    assert words in told[0]


def test_a_collapse_ends_with_one_line_of_advice(
    source: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Keras example's clustering loss as printed: warned of at the start, stopped when it does what it did."""
    changes = ["scan.loss=keras", "scan.heads=1", "scan.epochs=300", "scan.optimiser.rate=0.5", "pretext.epochs=1"]
    with pytest.raises(SystemExit) as done:
        main(
            ["train", str(source), "--recipe", str(recipe_file), "--clusters", "3", "--out", str(tmp_path / "run")]
            + [word for change in changes for word in ("--set", change)]
        )
    assert done.value.code == 1
    told = capsys.readouterr().err.splitlines()
    assert any(line.startswith("Warning: scan.loss is 'keras'") for line in told)
    assert told[-1].startswith("shoal: scan collapsed")
    assert "set scan.loss=standard" in told[-1]


def test_a_test_is_one_process() -> None:
    assert not is_launched()


def test_equal_outcomes_are_equal_files(tmp_path: Path) -> None:
    made = Outcome({"a": torch.ones(2), "b": torch.zeros(3)}, Head(torch.ones(2, 2), torch.zeros(2)), {"x": 1, "y": 2})
    for number in range(8):
        made.save(tmp_path / str(number), {"encoder": "shoal:cpu-small", "size": 32})
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) == 1
    again = Outcome.load(tmp_path / "0")
    assert again.facts == made.facts
    assert torch.equal(again.encoder["b"], made.encoder["b"])


def test_an_outcome_that_is_damaged_says_so(tmp_path: Path) -> None:
    (tmp_path / "outcome.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match="no readable outcome"):
        Outcome.load(tmp_path / "outcome.safetensors")


# -- data sets by name -------------------------------------------------------------------------------------------------


def test_names_are_data_sets_only_where_nothing_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert datasets.is_name("cifar10")
    assert datasets.is_name("stl10:train+unlabeled")
    assert not datasets.is_name("photos")
    (tmp_path / "cifar10").mkdir()
    assert not datasets.is_name("cifar10")
    with pytest.raises(SourceError, match="expected the parts of cifar10: train, test"):
        datasets.table("cifar10:dev", tmp_path, Progress())


def test_cifar10_in_torchvision_s_form_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files' own form (pickled by their authors, read by torchvision alone), with 4 images a batch."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 3072), dtype=np.uint8)
    for number, data in enumerate(values):
        batch = {"data": data, "labels": [number, 1, 2, 3]}
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [])
    path = datasets.table("cifar10", tmp_path, Progress())
    rows = records.read_table(path).to_pylist()
    assert len(rows) == 20
    assert [row["label"] for row in rows[:5]] == ["a", "b", "c", "d", "b"]
    import io

    with Image.open(io.BytesIO(rows[7]["image"])) as image:
        assert np.array_equal(np.asarray(image), values[1, 3].reshape(3, 32, 32).transpose(1, 2, 0))
    assert datasets.table("cifar10", tmp_path, Progress()) == path


def test_the_twenty_superclasses_hold_five_classes_each() -> None:
    assert len(datasets.SUPERCLASSES) == 100
    assert np.bincount(datasets.SUPERCLASSES).tolist() == [5] * 20
    assert len(datasets.SUPERCLASS_NAMES) == 20


@pytest.mark.skipif(sys.platform == "win32", reason="torchvision words it otherwise there")
def test_a_data_set_that_is_not_to_be_had_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="pass --data DIR"):
        datasets.table("stl10", tmp_path / "data", Progress())
