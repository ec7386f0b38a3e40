"""Networks from ONNX files give the features that numpy works out, however the file puts its images and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from onnx_files import (
    CONVOLUTION,
    DIM,
    FLATTEN,
    POOL,
    RELU,
    graph,
    kernel,
    maps,
    model,
    node,
    small,
    tensor,
    value,
)
from shoal.encoder import onnx, onnx_network, onnx_texts
from shoal.encoder.engines import OpenVinoEngine
from shoal.encoder.onnx import OnnxEncoder
from shoal.encoder.onnx_input import Said
from shoal.encoder.probes import is_faithful, probe_images
from shoal.errors import RunError, WeightsError
from shoal.rundir import digest_file

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SAID = Said(input_mean=MEAN, input_std=STD)
PIXELS = probe_images(32)
MAPS = maps(PIXELS, MEAN, STD)  # [16, DIM, 15, 15]
Rows = npt.NDArray[np.float64]


def found(path: Path, said: Said) -> OnnxEncoder:
    return onnx.find(path, digest_file(path), said, "default", "crop")


def features(path: Path, data: bytes, said: Said = SAID, precision: str = "fp32") -> npt.NDArray[np.float32]:
    """Features [16, dim] of PIXELS by the engine that a run would have."""
    path.write_bytes(data)
    made = found(path, said)
    made.convert(path.with_suffix(".xml"))
    engine = OpenVinoEngine(path.with_suffix(".xml"), precision)
    assert is_faithful(*made.similarity(engine, path.with_suffix(".xml")))
    batches = np.split(PIXELS, len(PIXELS) // engine.batch_size)
    return np.concatenate([engine.infer(batch) for batch in batches])


def close(found: npt.NDArray[np.float32], wanted: Rows, part: float = 1e-5) -> bool:
    return bool(np.abs(found - wanted).max() < part * np.abs(wanted).max())


@pytest.mark.parametrize("batch", ["n", 1, 2, 16])
def test_features_are_what_the_network_says(batch: int | str, tmp_path: Path) -> None:
    assert close(features(tmp_path / "a.onnx", small(batch=batch)), MAPS.mean(axis=(2, 3)))


def test_half_precision_of_the_machine_is_near(tmp_path: Path) -> None:
    assert close(features(tmp_path / "a.onnx", small(), precision="bf16"), MAPS.mean(axis=(2, 3)), 0.02)


def test_a_size_that_the_file_leaves_open_is_what_is_said(tmp_path: Path) -> None:
    said = Said(32, MEAN, STD)
    assert close(features(tmp_path / "a.onnx", small("s"), said), MAPS.mean(axis=(2, 3)))
    with pytest.raises(WeightsError, match=r"does not say the size .*--input-size 224"):
        found(tmp_path / "a.onnx", SAID)


def as_tokens(cut: bool) -> bytes:
    """The map's places as tokens, [n, 225, DIM]; or all but the first, of which none is a square's number."""
    shape = tensor("shape", np.array([0, DIM, -1]))
    limits = [tensor(name, np.array([number])) for name, number in (("one", 1), ("end", 999), ("axis", 1))]
    nodes = [node("Reshape", "map shape", "flat"), node("Transpose", "flat", "tokens", perm=[0, 2, 1])]
    if cut:
        nodes.append(node("Slice", "tokens one end axis", "some"))
    ends = [value("pixels", ["n", 3, 32, 32])], [value("some" if cut else "tokens", ["n", "t", DIM])]
    return model(graph([CONVOLUTION, RELU, *nodes], *ends, [tensor("kernel", kernel()), shape, *limits]))


def test_a_map_is_pooled_and_so_are_tokens_of_a_square(tmp_path: Path) -> None:
    wanted = MAPS.mean(axis=(2, 3))
    assert close(features(tmp_path / "a.onnx", small(outputs={"map": ["n", DIM, 15, 15]})), wanted)
    assert close(features(tmp_path / "b.onnx", as_tokens(cut=False)), wanted)


def test_of_other_tokens_the_first_stands_for_the_image(tmp_path: Path) -> None:
    assert close(features(tmp_path / "a.onnx", as_tokens(cut=True)), MAPS[:, :, 0, 1])


def test_a_map_whose_channels_come_last_is_pooled_over_its_places(tmp_path: Path) -> None:
    turned = node("Transpose", "map", "turned", perm=[0, 2, 3, 1])
    data = small(nodes=[turned], outputs={"turned": ["n", 15, 15, DIM]})
    assert close(features(tmp_path / "a.onnx", data), MAPS.mean(axis=(2, 3)))


def test_rows_are_taken_before_maps_and_any_tensor_by_its_name(tmp_path: Path) -> None:
    data = small(outputs={"map": ["n", DIM, 15, 15], "features": ["n", DIM]}, nodes=[node("Exp", "pooled", "inner")])
    assert close(features(tmp_path / "a.onnx", data), MAPS.mean(axis=(2, 3)))
    data = small(outputs={"far": ["n", DIM]}, nodes=[node("Exp", "features", "far")])
    said = Said(input_mean=MEAN, input_std=STD, output="features")
    assert close(features(tmp_path / "b.onnx", data, said), MAPS.mean(axis=(2, 3)))
    with pytest.raises(WeightsError, match=r"the outputs far f32 \[\d,8\]; expected the name of one, not 'nothing'"):
        found(tmp_path / "b.onnx", Said(None, MEAN, STD, output="nothing"))


def with_front(front: Sequence[bytes], shape: Sequence[int | str], dtype: str, name: str = "images") -> bytes:
    """The small network behind nodes that make `pixels` of images of another form."""
    nodes = [*front, CONVOLUTION, RELU, POOL, FLATTEN]
    ends = [value(name, shape, dtype)], [value("features", ["n", DIM])]
    return model(graph(nodes, *ends, [tensor("kernel", kernel())]))


def test_images_with_channels_last_and_of_other_numbers_are_taken(tmp_path: Path) -> None:
    wanted = MAPS.mean(axis=(2, 3))
    turn = node("Transpose", "images", "pixels", perm=[0, 3, 1, 2])
    assert close(features(tmp_path / "a.onnx", with_front([turn], ["n", 32, 32, 3], "float32")), wanted)
    widen = node("Cast", "images", "pixels", to=1)
    assert close(features(tmp_path / "b.onnx", with_front([widen], ["n", 3, 32, 32], "float16")), wanted, 2e-3)
    both = [node("Cast", "images", "wide_images", to=1), node("Transpose", "wide_images", "pixels", perm=[0, 3, 1, 2])]
    raw = with_front(both, ["n", 32, 32, 3], "uint8")
    plain = maps(PIXELS, (0, 0, 0), (1 / 255,) * 3).mean(axis=(2, 3))
    assert close(features(tmp_path / "c.onnx", raw, Said()), plain)
    with pytest.raises(WeightsError, match="takes pixels as they are, uint8, and is said to take others"):
        found(tmp_path / "c.onnx", SAID)


def test_other_inputs_matter_only_where_they_lead_to_the_features(tmp_path: Path) -> None:
    """As CLIP's two towers in one file: the first output of rank 2 compares, the second is the image's."""
    inner = graph(
        [CONVOLUTION, RELU, POOL, FLATTEN, node("MatMul", "features words", "logits")],
        [value("words", [DIM, 5]), value("pixels", ["n", 3, 32, 32])],
        [value("logits", ["n", 5]), value("features", ["n", DIM])],
        [tensor("kernel", kernel())],
    )
    assert close(features(tmp_path / "a.onnx", model(inner)), MAPS.mean(axis=(2, 3)))
    with pytest.raises(WeightsError, match="expected the name of one, not 'logits'"):
        found(tmp_path / "a.onnx", Said(None, MEAN, STD, output="logits"))


def test_one_that_torch_exported_gives_what_torch_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, DIM, 3, 2), nn.BatchNorm2d(DIM), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers).eval()
    path = tmp_path / "exported.onnx"
    shapes = ({0: torch.export.Dim("n")},)
    example = (torch.zeros(2, 3, 32, 32),)
    torch.onnx.export(network, example, path, external_data=False, dynamic_shapes=shapes, verbose=False)
    images = (PIXELS / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    assert close(features(path, path.read_bytes()), wanted)
    assert onnx_texts.absolute_path(path) is not None  # that of torch's own source at least
    torch.onnx.export(network, example, path, external_data=True, verbose=False)
    with pytest.raises(WeightsError, match=r"other files .*external_data=False"):
        found(path, SAID)


def ended(*nodes: bytes, output: str = "end", shape: Sequence[int | str] = ("n", DIM), dtype: str = "float32") -> bytes:
    """The small network with other ends than its own."""
    limits = {"huge": [1 << 34], "lots": [1, 1, 10_000, 10_000]}
    tensors = [tensor("kernel", kernel()), *(tensor(name, np.array(one)) for name, one in limits.items())]
    ends = [value("pixels", ["n", 3, 32, 32])], [value(output, shape, dtype)]
    return model(graph([CONVOLUTION, RELU, POOL, FLATTEN, *nodes], *ends, tensors))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            with_front([node("Concat", "images images images", "pixels", axis=1)], ["n", 1, 32, 32], "float32"),
            r"takes images images f32 \[\?,1,32,32\]; expected \[n, 3",
        ),
        (with_front([], ["n", 3, 32, 3], "float32", "pixels"), r"expected \[n, 3, h, w\] or \[n, h, w, 3\]"),
        (with_front([], ["n", 3, 32, 48], "float32", "pixels"), "32 × 48 pixels; expected square ones"),
        (with_front([], ["n", 3, 2048, 2048], "float32", "pixels"), "2048 × 2048 pixels; expected from 8 to 1,024"),
        (with_front([], [65, 3, 32, 32], "float32", "pixels"), "takes 65 images at once; expected any number, or at"),
        (with_front([node("Cast", "images", "pixels", to=1)], ["n", 3, 32, 32], "int64"), "0 inputs that take images"),
        (ended(node("Cast", "features", "end", to=7), dtype="int64"), r"outputs end i64 \[1,8\]; expected floats"),
        (ended(node("ReduceSum", "features", "end", keepdims=0), shape=[]), "expected floats of rank 2, 3 or 4"),
        (ended(node("Nonsense", "features", "end")), "cannot be read by OpenVINO: No conversion rule found .*Nonsense"),
        (ended(node("Relu", "nothing", "end")), "cannot be read by OpenVINO: nothing node not found"),
        (
            ended(node("ConstantOfShape", "huge", "big"), node("ReduceSum", "big", "one", keepdims=0),
                  node("Mul", "features one", "end")),
            r"makes a tensor big f32 \[17179869184\]; expected at most 536,870,912 numbers",
        ),
        (
            ended(node("Tile", "map lots", "big"), node("ReduceMean", "big", "end", axes=[2, 3], keepdims=0)),
            r"makes a tensor big f32 \[\d,8,150000,150000\]; expected at most",
        ),
        (
            ended(node("NonZero", "features", "places"), node("Cast", "places", "end", to=1), shape=[2, "k"]),
            "expected sizes that follow from those of the images",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(data: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=told) as caught:
        onnx_network.read(path, path.read_bytes(), None, None)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_size_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(small())
    with pytest.raises(WeightsError, match="takes images of 32 × 32 pixels, and is said to take 48 × 48"):
        found(tmp_path / "a.onnx", Said(48, MEAN, STD))


def test_without_mean_and_std_nothing_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(small())
    for said in (Said(), Said(input_mean=MEAN), Said(input_std=STD)):
        with pytest.raises(WeightsError, match=r"does not say the mean and std .*--input-mean 0\.485,0\.456,0\.406"):
            found(tmp_path / "a.onnx", said)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        # A norm over the batch, as a network for training has it.
        (
            ended(node("ReduceMean", "features", "mean", axes=[0]), node("Sub", "features mean", "end")),
            "other images.*exported for evalu",
        ),
        (ended(node("Sub", "features features", "end")), "all zero, of every made image; expected others: --output"),
        (
            ended(node("Sub", "features features", "zero"), node("Log", "zero", "end")),
            "no numbers.*look at its mean and",
        ),
    ],
)
def test_features_that_are_none_are_refused(data: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=told):
        features(tmp_path / "a.onnx", data)


def test_an_image_without_features_is_no_fault_of_the_network(tmp_path: Path) -> None:
    """The last rectifier lets nothing through of some images."""
    made = MAPS.mean(axis=(2, 3))
    limit = tensor("limit", np.full((1, DIM), np.sort(made.max(axis=1))[len(made) // 2], np.float32))
    nodes = [CONVOLUTION, RELU, POOL, FLATTEN, node("Sub", "features limit", "less"), node("Relu", "less", "end")]
    ends = [value("pixels", ["n", 3, 32, 32])], [value("end", ["n", DIM])]
    rows = features(tmp_path / "a.onnx", model(graph(nodes, *ends, [tensor("kernel", kernel()), limit])))
    assert 0 < rows.any(axis=1).sum() < len(rows)


def test_a_saved_one_is_read_again_by_its_description(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(small("s"))
    spec = found(path, Said(32, MEAN, STD)).spec
    assert onnx.saved(spec, path).network.dim == DIM
    with pytest.raises(RunError, match=r"config\.json: encoder\.dim has value 9; expected 8, as the file gives"):
        onnx.saved(replace(spec, dim=9), path)
    with pytest.raises(RunError, match=r"encoder\.features has value 'map'; an ONNX file has only 'default'"):
        onnx.saved(replace(spec, features="map"), path)
    path.write_bytes(small("s", metadata={"a": "b"}))
    with pytest.raises(
        RunError, match=rf"weights_sha256 has value {spec.weights_sha256}; expected {digest_file(path)}"
    ):
        onnx.saved(spec, path)


def test_a_file_that_is_another_by_now_is_told(tmp_path: Path) -> None:
    """An export that ends between the look for an encoder and its making: it is not kept as what was asked for."""
    path = tmp_path / "a.onnx"
    path.write_bytes(small())
    asked = digest_file(path)
    path.write_bytes(small(metadata={"a": "b"}))
    with pytest.raises(WeightsError, match=r"a\.onnx was changed while it was used; run the same command again"):
        onnx.find(path, asked, SAID, "default", "crop")
