"""A model from elsewhere is data: only known architectures and values, shapes looked at before memory is taken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import timm.models._hub
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from shoal import atomic
from shoal.cluster.confidence import Landmarks
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import ClusterSpace
from shoal.encoder import backbones, hub_models, rebuilt
from shoal.errors import RunError, ShoalError, WeightsError
from shoal.model import Model
from shoal.rundir import RunDir

SMALL = "test_resnet"  # timm's own small model for tests


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a publication holds it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    weights = folder / "encoder.safetensors"
    save_tensors(timm.create_model(SMALL, num_classes=0).state_dict(), weights)
    _, spec = backbones.build(SMALL, "default", "crop", weights)
    atomic.write_json(folder / "config.json", {"format_version": 1, "encoder": spec.to_json()})
    rng = np.random.default_rng(0)
    draw: Callable[..., Any] = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    space = ClusterSpace("cosine", draw(spec.dim), draw(spec.dim, 8), draw(8))
    model = ClusterModel(space, draw(4, 8), 8.0, draw(4), 3.0, Landmarks(draw(6, 8), abs(draw(6))))
    model.save(folder, np.array([0, 1, 1, 2], np.int32), {0: "discs", 2: "stripes"})
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def test_a_sound_one_opens(folder: Path) -> None:
    model = Model.open(folder)
    assert model.clusters.names == {0: "discs", 2: "stripes"}
    assert model.clusters.numbers.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("architecture", "hf_hub:somebody/else", "the name of an architecture that Shoal, timm or open_clip has"),
        ("architecture", "hf-hub:somebody/else", "the name of an architecture that Shoal, timm or open_clip has"),
        ("architecture", "local-dir:/tmp", "the name of an architecture that Shoal, timm or open_clip has"),
        ("architecture", "../../x", "the name of an architecture that Shoal, timm or open_clip has"),
        ("architecture", "clip:hf-hub:x/y", "the name of an architecture that Shoal, timm or open_clip has"),
        ("architecture", "clip:nothing", "one that Shoal, or this version of timm or open_clip, has"),
        ("architecture", "clip:roberta-ViT-B-32", "one that Shoal, or this version of timm or open_clip, has"),
        ("architecture", "resnet18x", "one that Shoal, or this version of timm or open_clip, has"),
        ("architecture", "shoal:timm/nothing", "one that Shoal, or this version of timm or open_clip, has"),
        ("architecture", "tf_efficientnet_lite0+resnet18", "one that Shoal, or this version of timm or open_clip, has"),
        ("architecture", ["resnet18"], "text"),
        ("interpolation", "lanczos", "one of bicubic, bilinear"),
        ("resize", "stretch", "one of crop, squash"),
        ("features", "all", "one of default, map, logits, probabilities, best"),
        ("size", 0, "a whole number from 8 to 1,024"),
        ("size", 100_000, "a whole number from 8 to 1,024"),
        ("size", True, "a whole number from 8 to 1,024"),
        ("size", 224.0, "a whole number from 8 to 1,024"),
        ("dim", -1, "a whole number from 1 to 16,777,216"),
        ("dim", 7, "as test_resnet gives"),
        ("crop_fraction", 0, "a number from 0.015625 to 4"),
        ("crop_fraction", 10**400, "a number from 0.015625 to 4"),
        ("std", [0.5, 0, 0.5], "a number from 0.0001 to 100"),
        ("std", [0.5], "a list of 3"),
        ("mean", "grey", "a list"),
        ("weights_sha256", "../x", "64 hexadecimal digits"),
        ("licence", "\x1b[2J", "text without characters that cannot be shown"),
        ("licence", "x" * 2000, "at most 1,000"),
    ],
)
def test_what_no_encoder_has_is_refused_by_name(folder: Path, field: str, value: Any, expected: str) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["encoder"][field] = value
    if field == "dim":  # of features and of clusters alike
        refit(folder, max(value, 1))
    (folder / "config.json").write_text(json.dumps(config))
    assert told(folder).startswith(f"{folder / 'config.json'}: encoder.{field}")
    assert expected in told(folder)


@pytest.mark.parametrize("architecture", ["shoal:cpu-small", "clip:ViT-B-16"])
@pytest.mark.parametrize("features", ["map", "logits"])
def test_features_that_an_architecture_does_not_give_are_refused(
    folder: Path, architecture: str, features: str
) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["encoder"] |= {"architecture": architecture, "features": features}
    (folder / "config.json").write_text(json.dumps(config))
    assert f"encoder.features has value {features!r}; expected default or best, as {architecture} gives" in told(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "it has value []; expected keys with values"),
        ("{}", "format_version is missing"),
        ('{"format_version": 1}', "encoder is missing"),
        ('{"format_version": 99, "encoder": {}}', "encoder.backbone is missing"),
        ('{"format_version": NaN}', "NaN is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("\xff", "not readable as JSON"),
        (" " * (1 << 25), "over 16,777,216 bytes"),
    ],
)
def test_a_description_that_is_none_is_told(folder: Path, text: str, expected: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert expected in told(folder)


def test_a_newer_format_is_told(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 2}))
    assert "format_version has value 2; expected at most 1: upgrade Shoal" in told(folder)


# -- tensors -----------------------------------------------------------------------------------------------------------


def test_tensors_of_another_architecture_are_told_before_they_are_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["encoder"]["architecture"] = "vit_giant_patch14_dinov2"  # 4 GB, if it were made
    (folder / "config.json").write_text(json.dumps(config))
    assert "in vit_giant_patch14_dinov2 it is" in told(folder, WeightsError)


@pytest.mark.parametrize(
    ("name", "words"),
    [("encoder.safetensors", "holds no readable tensors"), ("clusters.safetensors", "holds no readable clusters")],
)
def test_a_file_that_is_shorter_than_it_says_is_told(folder: Path, name: str, words: str) -> None:
    data = (folder / name).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    first = next(key for key in header if key != "__metadata__")
    header[first]["shape"] = [1 << 40, 1 << 20]
    written = json.dumps(header).encode()
    (folder / name).write_bytes(len(written).to_bytes(8, "little") + written + data[8 + size :])
    assert words in told(folder, RunError, WeightsError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("mean"), "tensor 'mean' is missing; expected F32 [n]"),
        (lambda tensors: tensors.pop("scales"), "tensor 'scales' is missing; expected F32 [8]"),
        (lambda tensors: tensors.pop("basis"), "tensor 'basis' is missing"),
        (lambda tensors: tensors.update(mean=tensors["mean"].astype(np.float64)), "tensor 'mean' is F64"),
        (lambda tensors: tensors.update(centroids=tensors["centroids"][:, :5].copy()), "expected F32 [n, 8]"),
        (lambda tensors: tensors.update(centroids=tensors["centroids"][:0]), "expected F32 [n, 8]"),
        (lambda tensors: tensors.update(least_closeness=tensors["mean"]), "expected F32 [4]"),
        (lambda tensors: tensors.update(landmarks=tensors["landmarks"][:, :5].copy()), "expected F32 [n, 8]"),
        (lambda tensors: tensors.pop("landmarks.trust"), "tensor 'landmarks.trust' is missing; expected F32 [6]"),
        (lambda tensors: tensors.update(numbers=np.array([0, 1, 1, -2], np.int32)), "expected numbers of clusters"),
        (
            lambda tensors: tensors.update(numbers=np.array([0, 1, 1, 2**31 - 1], np.int32)),
            "expected numbers of clusters",
        ),
        (lambda tensors: tensors["centroids"].fill(np.nan), "tensor 'centroids' holds NaN or infinite values"),
    ],
)
def test_clusters_that_do_not_fit_together_are_told(folder: Path, change: Callable[[Any], Any], words: str) -> None:
    tensors = load_file(folder / "clusters.safetensors")
    change(tensors)
    save_file(tensors, folder / "clusters.safetensors")
    assert words in told(folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("metric", "manhattan", "expected one of cosine, euclidean"),
        ("concentration", "much", "expected a number from 0"),
        ("concentration", -1, "expected a number from 0"),
        ("most_outside", None, "expected a number from 0"),
        ("format_version", 2, "upgrade Shoal"),
    ],
)
def test_facts_of_clusters_that_cannot_be_are_told(folder: Path, field: str, value: Any, words: str) -> None:
    facts = json.loads((folder / "clusters.json").read_bytes())
    (folder / "clusters.json").write_text(json.dumps({**facts, field: value}))
    assert told(folder).startswith(f"{folder / 'clusters.json'}: {field} has value {value!r}")
    assert words in told(folder)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["discs"], "expected keys with values"),
        ({"one": "discs"}, "a key of it has value 'one'; expected a whole number"),
        ({"-1": "discs"}, "expected a whole number"),
        ({"9999999999": "discs"}, "expected a whole number"),
        ({"0": 3}, "expected text"),
        ({"0": "x" * 10_000_000}, "has 10,000,000 characters; expected at most 200"),
        ({"0": "a\x1b]0;b"}, "expected text without characters that cannot be shown"),
    ],
)
def test_names_that_are_none_are_told(folder: Path, names: Any, words: str) -> None:
    (folder / "names.json").write_text(json.dumps(names))
    assert str(folder / "names.json") in told(folder)
    assert words in told(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_in_its_place_is_not_waited_for(folder: Path) -> None:
    (folder / "names.json").unlink()
    os.mkfifo(folder / "names.json")
    assert told(folder) == f"{folder / 'names.json'} is no plain file"


# -- the Hub's, for a person's own --backbone hf_hub:OWNER/NAME --------------------------------------------------------


def described(**changes: Any) -> dict[str, Any]:
    wanted = {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.95}
    config = {"architecture": SMALL, "num_classes": 5, "pretrained_cfg": {**wanted, "url": "http://127.0.0.1:9/x.pth"}}
    return {**config, **changes}


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Put a config.json, with weights beside it, where the Hub's client would put them."""
    hubs = tmp_path / "hub"
    hubs.mkdir()

    def download(repo_id: str, filename: str, **_: Any) -> str:
        if not (hubs / filename).is_file():
            raise FileNotFoundError(filename)
        return str(hubs / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)

    def put(config: dict[str, Any]) -> None:
        (hubs / "config.json").write_text(json.dumps(config))
        save_tensors(timm.create_model(SMALL, num_classes=5).state_dict(), hubs / "model.safetensors")

    return put


def test_a_backbone_of_the_hub_s_is_told_by_its_architecture(
    publish: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    publish(described())
    encoder, spec = backbones.build("hf_hub:somebody/small", "probabilities", "crop", None)
    assert (spec.backbone, spec.architecture, spec.dim) == ("hf_hub:somebody/small", SMALL, 5)
    assert (spec.size, spec.crop_fraction, spec.mean) == (160, 0.95, (0.5,) * 3)
    save_tensors(encoder.model.state_dict(), tmp_path / "encoder.safetensors")
    (tmp_path / "hub" / "config.json").unlink()  # nothing of it is needed again
    again, _ = rebuilt.rebuild(spec, tmp_path / "encoder.safetensors")
    images = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(again(images), encoder(images))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "hf_hub:a/b"}, "architecture has value 'hf_hub:a/b'; expected one that timm has"),
        ({"model_args": {"global_pool": "max"}}, "model_args has the key 'global_pool'"),
        (
            {"pretrained_cfg": {"input_size": [3, 9999, 9999], "mean": [0] * 3, "std": [1] * 3}},
            "input_size[1] has value 9999",
        ),
        ({"pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0] * 3, "std": [0] * 3}}, "std[0] has value 0"),
        ({"num_classes": 10**12}, "num_classes has value 1000000000000"),
    ],
)
def test_what_its_config_cannot_have_is_refused(
    publish: Callable[[dict[str, Any]], None], changes: dict[str, Any], words: str
) -> None:
    publish(described(**changes))
    with pytest.raises(WeightsError, match=r"^--backbone hf_hub:somebody/small") as caught:
        hub_models.read("hf_hub:somebody/small")
    assert words in str(caught.value)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../victim", "a/../../victim", "/victim", "..", "C:\\victim", "a\\..\\victim", "", "a//b"]
)
def test_a_run_names_no_file_outside_of_itself(tmp_path: Path, name: str) -> None:
    root = tmp_path / "run"
    (root / "generations").mkdir(parents=True)
    (root / "run.json").write_text('{"format_version": 2, "stages": {}, "generation": 1}')
    record = {"number": 1, "files": {"cluster": {name: 1}}, "kept": {}, "log_lines": 0, "refit_line": None}
    (root / "generations" / "000001.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="expected the name of a file of the run"):
        RunDir.open(root)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("[]", "expected keys with values"),
        ('{"format_version": 2, "stages": []}', "stages has value []"),
        ('{"format_version": 2, "stages": {"cluster": 3}}', "stages.cluster has value 3"),
        ('{"format_version": 2, "stages": {}, "generation": "../1"}', "generation has value '../1'"),
        ('{"format_version": true, "stages": {}}', "format_version has value True"),
        ('{"format_version": 2, "stages": {"neighbours": {"facts": {"recall": 7}}}}', "recall has value 7"),
    ],
)
def test_a_state_that_is_none_is_told(tmp_path: Path, state: str, words: str) -> None:
    (tmp_path / "run.json").write_text(state)
    with pytest.raises(RunError) as caught:
        RunDir.open(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path / "run.json") in str(caught.value)


def told(folder: Path, *kinds: type[ShoalError]) -> str:
    """The one line that says why a model does not open."""
    with pytest.raises(kinds or RunError) as caught:
        Model.open(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refit(folder: Path, dim: int) -> None:
    """Clusters of features of `dim` dimensions."""
    draw = np.random.default_rng(0).standard_normal
    space = ClusterSpace("euclidean", draw(dim).astype(np.float32))
    ClusterModel(space, draw((4, dim)).astype(np.float32), 1.0, draw(4).astype(np.float32), 3.0).save(folder)
