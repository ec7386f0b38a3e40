"""`shoal publish` into a folder: what lies there, who can open it, what it never overwrites and never tells."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import save_file

from kills import count_writes, kill
from pictures import paint
from shoal import ImageClusterer
from shoal.cli import main
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append
from shoal.encoder import architectures
from shoal.encoder.parts import parts_of
from shoal.encoder.spec import EncoderSpec
from shoal.errors import RequestError, RunError
from shoal.model import Model
from shoal.names.guesses import ClusterGuess
from shoal.names.guesses_file import Guesses
from shoal.names.guesses_file import read as read_guesses
from shoal.progress import Progress
from shoal.publish import licences
from shoal.publish.card import plain, recipe_of
from shoal.publish.placing import put
from shoal.publish.publish import publish
from shoal.rundir import RunDir, digest_file, versions
from shoal.runfiles import write_run_json
from shoal.train import recipe
from shoal.train.run import TrainRequest, train

FILES = {
    "README.md", "architecture.png", "clusters.json", "clusters.safetensors", "config.json", "encoder.safetensors",
    "guesses.json", "publication.json",
}  # fmt: skip
SECRET = "the-clients-photographs"
RECIPE = """
encoder: {name: test_resnet}
data: {size: 16}
pretext: {epochs: 1, loop: {batch: 16}, head: {dim: 16}}
neighbours: {k: 5}
scan: {epochs: 5, heads: 2, tune_encoder: false, cached_views: 2, optimiser: {rate: 0.05}, loop: {batch: 16}}
selflabel: {epochs: 0}
"""


def shoal(*words: object) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = paint(tmp_path_factory.mktemp("publish") / SECRET)
    (folder / "kind0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    shutil.copy(folder / "kind1" / "0.png", folder / "kind1" / "copy.png")
    return folder


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    root = tmp_path_factory.mktemp("runs") / "run.shoal"
    assert shoal("cluster", source, "--clusters", 3, "--out", root) == 0
    return RunDir.open(root)


@pytest.fixture
def copied(run: RunDir, tmp_path: Path) -> RunDir:
    """The run, to be changed."""
    shutil.copytree(run.root, tmp_path / "copied.shoal", ignore=shutil.ignore_patterns("*lock", "*.guard"))
    return RunDir.open(tmp_path / "copied.shoal")


@pytest.fixture(scope="module")
def folder(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publication. Nobody changes it."""
    target = tmp_path_factory.mktemp("published") / "shapes"
    publish(run, target)
    return target


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text, as the Hub's own client reads them."""
    card = ModelCard.load(folder / "README.md")
    return card.data.to_dict(), card.text


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of a section's table, without its first two lines; only pipes that are not escaped part cells."""
    section = text.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def rename(run: RunDir, cluster: int, name: str) -> None:
    append(run, lambda log: changes.rename(read_corrected(run), cluster, name))


# -- what lies there -------------------------------------------------------------------------------------------------


def test_it_opens_from_another_path_and_predicts_the_same(
    folder: Path, run: RunDir, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert {path.name for path in folder.iterdir()} == FILES
    expected = ImageClusterer.load(run.root).predict(source)
    assert ImageClusterer.load(tmp_path / "elsewhere").predict(source).equals(expected)


def test_guessed_names_go_along_as_guesses_and_a_person_s_win(copied: RunDir, source: Path, tmp_path: Path) -> None:
    said = (ClusterGuess(0, "lion", 1.5, "n02129165", ()), ClusterGuess(1, "tiger", 2.0, "n02129604", ()))
    guesses = Guesses("ImageNet-1k", medium=(*said, ClusterGuess(2, None, 0.0, None, ())))
    copied.path("model/guesses.json").write_text(json.dumps(guesses.to_json()))
    rename(copied, 1, "stripes")
    publish(copied, tmp_path / "shapes")
    _, text = card_of(tmp_path / "shapes")
    assert {row[0]: row[1] for row in table(text, "Clusters")} == {"0": "*lion* (1.5)", "1": "stripes", "2": ""}
    assert "are guesses" in text
    assert read_guesses(tmp_path / "shapes" / "guesses.json") == guesses
    found = ImageClusterer.load(tmp_path / "shapes").predict(source)
    told = found.set_index("cluster")[["name", "name_strength"]].drop_duplicates()
    assert told["name"].dropna().to_dict() == {0: "lion", 1: "stripes"}
    assert told["name_strength"].dropna().to_dict() == {0: 1.5}
    lions = ImageClusterer.load(tmp_path / "shapes").retrieve(source, "lion")
    assert set(lions["cluster"]) == {0}


def test_it_tells_nothing_of_where_the_images_were_nor_shows_one(folder: Path, source: Path) -> None:
    for path in folder.iterdir():
        data = path.read_bytes()
        for secret in (SECRET, str(source.parent), "kind0/", "broken.png"):
            assert secret.encode() not in data, f"{path.name} tells {secret}"
    assert "prototypes.png" not in (folder / "README.md").read_text(encoding="utf-8")


def test_everybody_may_read_its_files(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {(folder / "README.md").stat().st_mode & 0o777}


def test_the_same_run_gives_the_same_bytes(folder: Path, run: RunDir, tmp_path: Path) -> None:
    publish(run, tmp_path / "shapes")
    assert {path.name: digest_file(path) for path in (tmp_path / "shapes").iterdir()} == {
        path.name: digest_file(path) for path in folder.iterdir()
    }


def test_images_are_shown_if_asked_for_and_gone_again_if_not(run: RunDir, tmp_path: Path) -> None:
    target = tmp_path / "model"
    publish(run, target, with_images=True)
    assert {path.name for path in target.iterdir()} == FILES | {"prototypes.png"}
    with Image.open(target / "prototypes.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for painted in ([220, 60, 40], [40, 120, 220], [60, 180, 70]):  # each kind's colour is seen
        assert (np.abs(colours.astype(int) - painted).max(axis=1) < 30).sum() > 1000
    assert "](prototypes.png)" in (target / "README.md").read_text(encoding="utf-8")
    publish(run, target)
    assert {path.name for path in target.iterdir()} == FILES


def test_small_pictures_are_published_without_the_source_as_far_as_they_are_kept(
    copied: RunDir, source: Path, tmp_path: Path
) -> None:
    publish(copied, tmp_path / "before", with_images=True, with_labels=False)
    aside = source.with_name("aside")
    source.rename(aside)
    try:
        kept = publish(copied, tmp_path / "kept", with_images=True, with_labels=False)
        before, after = (tmp_path / name / "prototypes.png" for name in ("before", "kept"))
        assert before.read_bytes() == after.read_bytes()
        assert kept.notes == ()
        shutil.rmtree(copied.cache)
        gone = publish(copied, tmp_path / "gone", with_images=True, with_labels=False)
    finally:
        aside.rename(source)
    (note,) = gone.notes
    assert re.search(r"^\d+ of \d+ pictures could not be had: the source .* is not there \(shoal relink copied", note)
    assert SECRET not in (tmp_path / "gone" / "README.md").read_text(encoding="utf-8")


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_cards_metadata_say_what_the_hub_asks_for(folder: Path, run: RunDir) -> None:
    metadata, _ = card_of(folder)
    assert (metadata["library_name"], metadata["license"]) == ("shoal", "apache-2.0")
    assert metadata["pipeline_tag"] == "image-classification"
    assert "image-clustering" in metadata["tags"]
    assert "datasets" not in metadata  # painted for this test: nobody knows them
    found = json.loads(run.evaluation.read_text(encoding="utf-8"))
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"]: metric["value"] for metric in metrics} == {
        "accuracy": round(found["acc"], 4),
        "nmi": round(found["nmi"], 4),
        "ari": round(found["ari"], 4),
        "purity": round(found["purity"], 4),
    }


def test_the_cards_tables_tell_the_runs_own_figures(folder: Path, run: RunDir) -> None:
    _, text = card_of(folder)
    clusters = run.read_clusters().to_pandas()
    distinct = clusters[~clusters["path"].str.contains("copy")]
    rows = table(text, "Clusters")
    assert [int(row[0]) for row in rows] == [0, 1, 2]
    for number, images, confidence, majority, accuracy in rows:
        members = distinct[distinct["cluster"] == int(number)]
        assert int(images) == len(members)
        assert float(confidence) == pytest.approx(members["confidence"].mean(), abs=0.0051)
        assert (majority, accuracy) == (members["path"].iloc[0].split("/")[0], "100.0 %")
    data = dict(table(text, "Training data"))
    assert data["images"] == "24"
    assert data["exact duplicates, looked at once"] == "1"
    assert data["left out"] == "1: 1 corrupt PNG"
    assert data["sizes in pixels"] == "96 × 96"
    settings = dict(table(text, "Hyper-parameters"))
    assert settings["seed"] == "0"
    known = {name: version for name, version in versions().items() if name not in ("machine", "system")}
    assert settings["versions"] == ", ".join(f"{name} {version}" for name, version in sorted(known.items()))


@pytest.mark.parametrize("is_evaluated", [True, False])
def test_without_an_evaluation_there_are_no_metrics_and_no_labels(
    is_evaluated: bool, copied: RunDir, tmp_path: Path
) -> None:
    if not is_evaluated:
        copied.evaluation.unlink()
    done = publish(copied, tmp_path / "model", with_labels=not is_evaluated)
    assert "--no-labels" not in done.summary()
    metadata, text = card_of(tmp_path / "model")
    assert not {"metrics", "model-index"} & set(metadata)
    assert [len(row) for row in table(text, "Clusters")] == [3, 3, 3]
    assert "kind0" not in text


def test_the_code_of_the_card_runs_as_it_stands(
    folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, text = card_of(folder)
    shutil.copytree(folder, tmp_path / "shapes")
    shutil.copytree(source, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    assert len(names["model"].predict("images/")) == 25
    for line in re.findall(r"^shoal assign .*", text, re.MULTILINE):
        assert shoal(*line.split()[1:]) == 0


def test_demo_images_have_a_name() -> None:
    from shoal.demo import demo_images
    from shoal.publish.card import DATASETS

    assert DATASETS[demo_images().stem][0] == "zalando-datasets/fashion_mnist"


def test_names_that_people_gave_stay_text(copied: RunDir, tmp_path: Path) -> None:
    nasty = "a|b <script>x</script> **c** [d](e) `f`"
    rename(copied, 0, nasty)
    done = publish(copied, tmp_path / "model")
    assert "shoal evaluate makes it anew" in done.summary()  # what it was about had no such name
    _, text = card_of(tmp_path / "model")
    row = next(row for row in table(text, "Clusters") if row[0] == "0")
    assert len(row) == 4
    assert re.sub(r"\\(.)", r"\1", row[1]) == nasty
    assert not re.search(r"(?<!\\)<script", text)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0 (EfficientNet-Lite by Google)", {"license": "apache-2.0"}),
        ("cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        ("unknown", {"license": "unknown"}),
        ("dinov3-license", {"license": "other", "license_name": "dinov3-license"}),
        (None, {}),
    ],
)
def test_licences_get_the_hubs_names(licence: str | None, expected: dict[str, str]) -> None:
    assert licences.metadata(licence) == expected


def test_a_licence_can_be_given(run: RunDir, tmp_path: Path) -> None:
    publish(run, tmp_path / "model", license="MIT")
    metadata, text = card_of(tmp_path / "model")
    assert metadata["license"] == "mit"
    assert "The model: MIT." in text
    assert "Apache-2.0" in text  # the backbone's stays told
    with pytest.raises(RequestError, match="--license has value '  '"):
        publish(run, tmp_path / "other", license="  ")


def test_plain_text_is_one_line() -> None:
    assert plain("a\n| b_c") == "a \\| b\\_c"


# -- corrections -----------------------------------------------------------------------------------------------------


def test_corrections_are_in_it(copied: RunDir, source: Path, tmp_path: Path) -> None:
    cluster_of = ImageClusterer.load(copied.root).clusters_.set_index("path")["cluster"]
    kept, gone = int(cluster_of["kind0/0.png"]), int(cluster_of["kind1/0.png"])
    append(copied, lambda log: changes.merge(read_corrected(copied), [kept, gone]))
    rename(copied, kept, "discs and stripes")
    publish(copied, tmp_path / "model")
    model = ImageClusterer.load(tmp_path / "model")
    found = model.predict(source).set_index("path")
    assert found["cluster"].equals(ImageClusterer.load(copied.root).predict(source).set_index("path")["cluster"])
    assert set(found.loc[found["cluster"] == kept, "name"]) == {"discs and stripes"}
    assert gone not in set(found["cluster"])
    _, text = card_of(tmp_path / "model")
    assert [row[1] for row in table(text, "Clusters") if row[0] == str(kept)] == ["discs and stripes"]
    assert "2 corrections" in text
    assert set(model.retrieve(source, "discs and stripes")["path"].str[:5]) == {"kind0", "kind1"}


# -- retrieval by cluster --------------------------------------------------------------------------------------------


def test_retrieval_gives_the_images_of_a_cluster_surest_first(folder: Path, source: Path) -> None:
    model = ImageClusterer.load(folder)
    everything = model.predict(source)
    wanted = int(everything.set_index("path").loc["kind2/0.png", "cluster"])
    expected = everything[(everything["cluster"] == wanted) & ~everything["unknown"]]
    found = model.retrieve(source, wanted)
    assert list(found.columns) == list(everything.columns)
    assert set(found["path"]) == set(expected["path"])
    assert found["confidence"].is_monotonic_decreasing


def test_strangers_are_no_cluster_s_images(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    model = ImageClusterer.load(folder)
    assert model.predict(tmp_path)["unknown"].tolist() == [True]
    assert all(model.retrieve(tmp_path, cluster).empty for cluster in range(3))


def test_assign_lists_one_cluster(folder: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("assign", folder, source, "--cluster", 1) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert {line.split(",")[1] for line in lines[1:]} == {"1"}
    assert f" images assigned, 0 of them unknown, 1 skipped; listed: {len(lines) - 1} of cluster 1\n" in err
    assert shoal("assign", folder, source / "kind0" / "0.png") == 0
    assert "1 image assigned, 0 of them unknown" in capsys.readouterr().err
    assert shoal("assign", folder, source, "--cluster", "cats") == 2
    assert "cluster has value 'cats', which none is called; expected one of 0, 1, 2" in capsys.readouterr().err


# -- what it never overwrites ----------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / "publication.json").unlink(), "has not written"),
        (lambda folder: (folder / "publication.json").write_text("{}"), "has not written"),
        (lambda folder: (folder / "notes.txt").write_text("mine"), "notes.txt"),
        (lambda folder: (folder / ".git").mkdir(), ".git"),
        (lambda folder: (folder / "README.md").write_text("# Better"), "README.md was changed"),
    ],
)
def test_what_others_wrote_is_never_overwritten(
    spoil: Any, named: str, folder: Path, run: RunDir, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    shutil.copytree(folder, target)
    spoil(target)
    before = snapshot(target)
    with pytest.raises(RequestError, match=re.escape(named)):
        publish(run, target)
    assert snapshot(target) == before


def test_a_file_a_run_and_its_model_are_no_places_to_publish_to(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", run.root, run.root / "model"):
        before = snapshot(run.root)
        with pytest.raises(RequestError, match="--to has value"):
            publish(run, target)
        assert snapshot(run.root) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_model_with_pictures_is_not_put_among_the_images(copied: RunDir, source: Path) -> None:
    before = snapshot(source)
    with pytest.raises(RequestError, match="the source of the run"):
        publish(copied, source / "model")
    with pytest.raises(RequestError, match="lies in the run"):
        publish(copied, copied.root / "mine" / "model")
    assert snapshot(source) == before


def test_an_empty_folder_is_filled(run: RunDir, tmp_path: Path) -> None:
    publish(run, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_a_publication_that_fails_leaves_the_earlier_one(folder: Path, copied: RunDir, tmp_path: Path) -> None:
    target = tmp_path / "there" / "model"
    shutil.copytree(folder, target)
    before = snapshot(target)
    weights = copied.model / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert shoal("publish", copied.root, "--to", target) != 0
    assert snapshot(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_publication_that_was_killed_opens_as_the_old_or_the_new_one(
    folder: Path, copied: RunDir, source: Path, tmp_path: Path
) -> None:
    rename(copied, 0, "discs")
    publish(copied, tmp_path / "new")
    target = shutil.copytree(folder, tmp_path / "model")
    writes = count_writes(target, lambda: put(tmp_path / "new", target))
    found = []
    for write in range(0, writes, 4):
        shutil.rmtree(target)
        shutil.copytree(folder, target)
        kill(target, write, lambda: put(tmp_path / "new", target))
        found.append(Model.open(target).clusters.names)
    assert {0: "discs"} in found
    assert found == sorted(found, key=len)
    before, after = (ImageClusterer.load(one).predict(source) for one in (folder, target))
    assert after.drop(columns="name").equals(before.drop(columns="name"))
    assert set(after["name"].dropna()) == {"discs"}


def test_only_a_finished_run_is_published(run: RunDir, folder: Path, copied: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a Shoal run"):
        publish(RunDir.open(folder), tmp_path / "model")
    state = copied.read_state()
    state["stages"]["cluster"]["state"] = "stale"
    write_run_json(copied.root, state)
    with pytest.raises(RunError, match="unfinished"):
        publish(copied, tmp_path / "model")
    with pytest.raises(RequestError, match="--public goes with"):
        publish(run, tmp_path / "model", public=True)
    assert not (tmp_path / "model").exists()


# -- trained encoders ------------------------------------------------------------------------------------------------


def test_a_trained_run_tells_its_recipe(source: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    request = TrainRequest(
        (str(source),), str(tmp_path / "tiny.yaml"), clusters="3", out=tmp_path / "run", device="cpu", report=False
    )
    trained, _ = train(request, Progress())
    publish(trained, tmp_path / "model")
    metadata, text = card_of(tmp_path / "model")
    assert "license" not in metadata
    assert {"simclr", "scan"} <= set(metadata["tags"])
    told = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0]
    (tmp_path / "told.yaml").write_text(told, encoding="utf-8")
    assert recipe.load(str(tmp_path / "told.yaml")) == recipe.load(str(tmp_path / "tiny.yaml"))
    rows = dict(table(text, "Hyper-parameters"))
    assert rows["pretext task SimCLR"].startswith("1 epoch, batch 16")
    assert "self-labelling" not in rows
    shutil.rmtree(trained.root)
    assert len(ImageClusterer.load(tmp_path / "model", device="cpu").predict(source)) == 25


def test_a_weights_file_is_told_by_its_name_alone(tmp_path: Path) -> None:
    for written, told in (("/home/me/secret/moco.pth", "moco.pth"), ("embedded", "embedded"), (None, None)):
        (tmp_path / "recipe.json").write_text(json.dumps({"encoder": {"name": "resnet18-cifar", "weights": written}}))
        found = recipe_of(tmp_path / "recipe.json")
        assert found is not None
        assert found["encoder"]["weights"] == told
    assert recipe_of(tmp_path / "none") is None


# -- the architecture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "shoal:cpu-small",
        "shoal:whitened/cpu-small",
        "shoal:resnet18-cifar",
        "test_vit",
        "test_efficientnet",
        "test_convnext",
        "test_resnet",
    ],
)
def test_every_parameter_of_an_encoder_is_in_a_part(name: str, tmp_path: Path) -> None:
    trained = name.startswith("shoal:")
    model = architectures.build(name) if trained else timm.create_model(name, pretrained=False, num_classes=0)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, tmp_path / "w.safetensors")
    size = 32 if trained else 160
    dim = int(model.dim) if trained else int(model.num_features)
    spec = EncoderSpec(
        name, name, "default", "0" * 64, "file", "unknown", dim, size, 1.0, "bicubic", "crop", (0.5,) * 3, (0.5,) * 3
    )
    parts = parts_of(spec, tmp_path / "w.safetensors")
    loose = sum(tensor.numel() for tensor in model.parameters(recurse=False))  # a ViT's class token and positions
    assert sum(part.parameters for part in parts) + loose == sum(tensor.numel() for tensor in model.parameters())
    assert all(part.shape for part in parts)
    assert dim in parts[-1].shape


def test_the_files_that_the_card_lists_are_those_that_there_are(folder: Path) -> None:
    _, text = card_of(folder)
    assert {row[0].strip("`") for row in table(text, "Files")} == FILES
    manifest = json.loads((folder / "publication.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == FILES - {"publication.json"}
    assert (
        yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])["library_name"] == "shoal"
    )
