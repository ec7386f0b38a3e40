"""The embedded networks without torch: the same tensors, the same features, and nothing of torch imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
import safetensors.torch
import timm

from shoal.encoder import backbones, lite, reference
from shoal.encoder.bindings import load_openvino
from shoal.encoder.convert import TorchMakeable
from shoal.encoder.engines import CPU_BATCH, OpenVinoEngine, cpu_precision
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.probes import probe_images
from shoal.encoder.pth import read_pth
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.torch_engine import TorchEngine
from shoal.encoder.weights import EMBEDDED, SIBLINGS, Embedded
from shoal.errors import WeightsError
from torch_twin import torch_twin

NETWORKS = (EMBEDDED, *SIBLINGS)
FEATURES = ("default", "map", "logits", "probabilities", "best")
EVERY_KIND = pytest.mark.parametrize("features", FEATURES)

Arrays = dict[str, npt.NDArray[Any]]


def read(network: Embedded, features: str) -> Arrays:
    path = network.find()
    assert path is not None
    return lite.named(read_pth(path), network.architecture, features)


def embedded(features: str) -> tuple[str, Arrays]:
    """Architecture and tensors of the embedded backbone's `features`."""
    if features == "best":
        return lite.joined({network.architecture: read(network, features) for network in NETWORKS})
    return EMBEDDED.architecture, read(EMBEDDED, features)


def run(model: Any, spec: EncoderSpec, precision: str, folder: Path) -> npt.NDArray[np.float32]:
    """Features of the first made images."""
    load_openvino().save_model(taking_pixels(model, spec.mean, spec.std), folder / "m.xml", compress_to_fp16=False)
    return infer(folder / "m.xml", precision, spec.size)


def infer(model: Path, precision: str, size: int) -> npt.NDArray[np.float32]:
    engine = OpenVinoEngine(model, precision)
    return np.concatenate([engine.infer(batch) for batch in np.split(images(size), len(images(size)) // CPU_BATCH)])


def images(size: int) -> npt.NDArray[np.uint8]:
    return probe_images(size)[: reference.IMAGES]


def check_near(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@EVERY_KIND
def test_features_are_those_of_torch(features: str, tmp_path: Path) -> None:
    encoder, spec = torch_twin(features)
    architecture, state = embedded(features)
    assert architecture == spec.architecture
    found = run(lite.build(state, architecture, features, spec.size, CPU_BATCH), spec, "fp32", tmp_path)
    check_near(found, TorchEngine(encoder, spec, "cpu").infer(images(spec.size)))


def test_features_are_those_of_the_network_converted_from_torch_bit_by_bit(tmp_path: Path) -> None:
    """Runs made with torch go on without it as if nothing had happened."""
    encoder, spec = torch_twin("map")
    architecture, state = embedded("map")
    found = run(lite.build(state, architecture, "map", spec.size, CPU_BATCH), spec, cpu_precision(), tmp_path)
    TorchMakeable(encoder, spec).convert(tmp_path / "converted.xml")
    assert np.array_equal(found, infer(tmp_path / "converted.xml", cpu_precision(), spec.size))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.architecture)
@pytest.mark.parametrize("features", ["logits", "best"])
def test_each_network_alone_is_timms(network: Embedded, features: str, tmp_path: Path) -> None:
    """Also at a size that is no multiple of its stride."""
    encoder, spec = backbones.build(network.architecture, features, "crop", saved(network, features, tmp_path))
    spec = EncoderSpec.from_json({**spec.to_json(), "size": 107}, "spec")
    model = lite.build(read(network, features), network.architecture, features, spec.size, CPU_BATCH)
    check_near(run(model, spec, "fp32", tmp_path), TorchEngine(encoder, spec, "cpu").infer(images(spec.size)))


def saved(network: Embedded, features: str, folder: Path) -> Path:
    safetensors.numpy.save_file(read(network, features), folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.mark.parametrize("classes", [7, 1000])
@pytest.mark.parametrize("architecture", lite.SCALES)
def test_names_and_shapes_are_timms_in_its_order(architecture: str, classes: int) -> None:
    model = timm.create_model(architecture, num_classes=classes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(lite.shapes(architecture, "logits", classes).items()) == list(expected.items())
    bare = {name: shape for name, shape in expected.items() if not name.startswith("classifier.")}
    assert list(lite.shapes(architecture, "default").items()) == list(bare.items())


@EVERY_KIND
def test_the_saved_encoder_is_the_file_that_torch_would_write(features: str, tmp_path: Path) -> None:
    """Runs made with torch stay current without it: an encoder is known by this file's digest."""
    encoder, _ = torch_twin(features)
    _, state = embedded(features)
    assert list(state) == list(encoder.model.state_dict())
    safetensors.torch.save_file(encoder.model.state_dict(), tmp_path / "torch.safetensors")
    safetensors.numpy.save_file(state, tmp_path / "numpy.safetensors")
    assert (tmp_path / "numpy.safetensors").read_bytes() == (tmp_path / "torch.safetensors").read_bytes()


@EVERY_KIND
def test_a_network_is_built_again_from_its_saved_encoder(features: str, tmp_path: Path) -> None:
    architecture, state = embedded(features)
    safetensors.numpy.save_file(state, tmp_path / "encoder.safetensors")
    again = safetensors.numpy.load_file(tmp_path / "encoder.safetensors")
    model = lite.build(again, architecture, features, 64, CPU_BATCH)
    places = 4 if features == "map" else 1
    dim = {"best": 3840, "logits": 1000, "probabilities": 1000}.get(features, 1280 * places)
    assert list(model.output(0).shape) == [CPU_BATCH, dim]


def test_a_classifier_may_have_other_classes() -> None:
    state = read(EMBEDDED, "logits")
    state |= {"classifier.weight": np.zeros((7, 1280), np.float32), "classifier.bias": np.zeros(7, np.float32)}
    model = lite.build(state, EMBEDDED.architecture, "logits", 64, CPU_BATCH)
    assert list(model.output(0).shape) == [CPU_BATCH, 7]


def test_tensors_of_another_network_are_refused() -> None:
    path = SIBLINGS[0].find()
    assert path is not None
    with pytest.raises(WeightsError, match=r"hold 386 tensors; expected tf_efficientnet_lite0's 296"):
        lite.named(read_pth(path), EMBEDDED.architecture, "default")
    state = read(EMBEDDED, "default")
    for wrong, why in (
        ({"bn1.weight": None}, r"tensor 'bn1.weight' is not there; expected floating numbers \[32\]"),
        ({"bn1.weight": np.ones(31, np.float32)}, r"'bn1.weight' is float32 \[31\]"),
        ({"bn1.weight": np.ones(32, np.int32)}, r"'bn1.weight' is int32 \[32\]"),
        ({"bn1.num_batches_tracked": np.float32(1)}, "expected whole numbers"),
        ({"more": np.ones(1)}, "tensor 'more' is none of its own"),
    ):
        spoilt = {name: tensor for name, tensor in {**state, **wrong}.items() if tensor is not None}
        with pytest.raises(WeightsError, match=f"do not fit tf_efficientnet_lite0: .*{why}"):
            lite.build(spoilt, EMBEDDED.architecture, "default", 64, CPU_BATCH)
    with pytest.raises(WeightsError, match=r"tensor 'classifier.weight' is not there"):
        lite.build(state, EMBEDDED.architecture, "logits", 64, CPU_BATCH)


def test_architectures_are_known_by_name() -> None:
    assert all(lite.knows(network.architecture) for network in NETWORKS)
    assert lite.knows(embedded("best")[0])
    assert not any(map(lite.knows, ("resnet50", "", "tf_efficientnet_lite0+resnet50", "tf_efficientnet_lite0.in1k")))


@EVERY_KIND
def test_kept_features_tell_the_right_engine_from_wrong_ones(features: str, tmp_path: Path) -> None:
    _, spec = torch_twin(features)
    architecture, state = embedded(features)
    wanted = reference.expected(state, features)
    assert wanted is not None
    model = lite.build(state, architecture, features, spec.size, CPU_BATCH)
    mean, least = reference.similarity(run(model, spec, "fp32", tmp_path), wanted)
    assert 1 - 1e-5 < least <= mean < 1 + 1e-5
    unscaled = EncoderSpec.from_json({**spec.to_json(), "mean": [0.0] * 3}, "spec")
    model = lite.build(state, architecture, features, spec.size, CPU_BATCH)
    assert reference.similarity(run(model, unscaled, "fp32", tmp_path), wanted)[0] < 0.99


def test_a_sketch_keeps_how_similar_maps_are_and_where_things_are_in_them() -> None:
    generator = np.random.default_rng(1)
    loud = generator.pareto(1.5, 1280).astype(
        np.float32
    )  # a few channels have most of a map's energy, and of its noise
    maps = np.minimum(generator.random((8, 49, 1280), np.float32) * loud, 6).reshape(8, -1)
    for noise in (0.02, 0.05, 0.1):
        other = maps * (1 + noise * generator.standard_normal(maps.shape, np.float32))
        norms = np.linalg.norm(maps, axis=1) * np.linalg.norm(other, axis=1)
        exact = 1 - np.mean((maps * other).sum(axis=1) / norms)
        mean, _ = reference.similarity(other, reference.sketch(maps))
        assert 1 - mean == pytest.approx(exact, rel=0.1)
    turned = maps.reshape(8, 7, 7, 1280).swapaxes(1, 2).reshape(8, -1)
    assert reference.similarity(turned, reference.sketch(maps))[0] < 0.9


def test_features_are_kept_of_exactly_these_weights() -> None:
    state = read(EMBEDDED, "default")
    other = state["conv_stem.weight"].copy()
    other[0, 0, 0, 0] += 1
    assert reference.expected({**state, "conv_stem.weight": other}, "default") is None
    assert reference.expected(state, "best") is None  # of one network alone


WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "timm")))
import numpy as np
from shoal.encoder.bindings import load_openvino
from shoal.encoder.probes import probe_images
from shoal.encoder.weights import EMBEDDED, SIBLINGS
from shoal.encoder import lite, reference
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.pth import read_pth

read = {one.architecture: read_pth(one.find()) for one in (EMBEDDED, *SIBLINGS)}
architecture, state = lite.joined({name: lite.named(tensors, name, "best") for name, tensors in read.items()})
model = taking_pixels(lite.build(state, architecture, "best", 260, 4), [0.5] * 3, [0.5] * 3)
compiled = load_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = np.concatenate([compiled(batch)[0] for batch in np.split(probe_images(260)[:8], 2)])
print(*reference.similarity(found, reference.expected(state, "best")))
"""


def test_all_of_it_works_without_torch() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert min(map(float, done.stdout.split())) > 1 - 1e-5
