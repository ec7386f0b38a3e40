"""What an ONNX network is fed: by whom it is said, and which of them counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.onnx_files import small

from shoal.encoder import huggingface, onnx_input
from shoal.encoder.onnx_input import Said
from shoal.errors import ConfigError, WeightsError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2 = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "image_processor_type": "BitImageProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
TOLD = {"input_size": 224, "input_mean": list(MEAN), "input_std": list(STD), "crop_fraction": 224 / 256}


def file(folder: Path, **metadata: str) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(small(metadata=metadata))
    return path


def put_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))


def test_nobody_says_anything(tmp_path: Path) -> None:
    assert onnx_input.find(file(tmp_path), {"input_size": None}) == Said()


def test_each_place_is_asked_for_what_those_before_it_leave_open(tmp_path: Path) -> None:
    path = file(tmp_path, input_size="40", input_mean="0.1,0.1,0.1", input_std="[0.2, 0.2, 0.2]", resize="squash")
    assert onnx_input.find(path, {}) == Said(40, (0.1,) * 3, (0.2,) * 3, resize="squash")
    put_json(tmp_path / "net.json", {"input_mean": [0.3] * 3, "interpolation": "bilinear", "crop_fraction": 0.9})
    found = onnx_input.find(path, {"input_size": 64, "output": "map"})
    assert found == Said(64, (0.3,) * 3, (0.2,) * 3, 0.9, "bilinear", "squash", "map")


def test_a_description_of_the_folder_is_asked_only_for_mean_and_std_that_nobody_says(tmp_path: Path) -> None:
    put_json(tmp_path / huggingface.FILE, DINOV2)
    wanted = Said(224, MEAN, STD, 0.875, "bicubic")
    assert onnx_input.find(file(tmp_path), {}) == wanted
    assert onnx_input.find(file(tmp_path), {"input_mean": MEAN, "input_std": STD}) == Said(None, MEAN, STD)
    (tmp_path / "onnx").mkdir()
    assert onnx_input.find(file(tmp_path / "onnx"), {}) == wanted  # as repositories of Hugging Face have it
    (tmp_path / huggingface.FILE).rename(tmp_path / "net.json")
    assert onnx_input.find(file(tmp_path), {}) == wanted


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {**TOLD, "interpolation": "bicubic"}),
        ({"resample": 2}, {**TOLD, "interpolation": "bilinear"}),
        ({"size": 256, "crop_size": 224, "resample": None}, TOLD),
        (
            {"size": {"height": 224, "width": 224}, "do_center_crop": None, "crop_size": None, "resample": None},
            {**{key: TOLD[key] for key in ("input_size", "input_mean", "input_std")}, "resize": "squash"},
        ),
        (
            {"size": {"shortest_edge": 224}, "do_center_crop": None, "crop_size": None, "crop_pct": 0.875},
            {**TOLD, "interpolation": "bicubic"},
        ),
        (
            {"do_resize": False, "do_normalize": False, "resample": None},
            {"input_mean": [0.0] * 3, "input_std": [1.0] * 3},
        ),
        (  # pixels of -1..1 are what (pixel / 127.5 - 1) / 1 makes of them
            {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3, "resample": None},
            {**TOLD, "input_mean": [0.5] * 3, "input_std": [0.5] * 3},
        ),
    ],
)
def test_descriptions_of_hugging_face_say_what_they_mean(changes: dict[str, Any], told: dict[str, Any]) -> None:
    found = huggingface.image_input({**DINOV2, **changes}, "here")
    assert found.keys() == told.keys()
    for key, value in told.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_mean": [0.5]}, "image_mean has value"),
        ({"image_std": [0, 0, 0]}, "image_std[0] has value 0"),
        ({"crop_size": {"height": 224, "width": 300}}, "crop_size has value"),
        ({"size": {"height": 256, "width": 256}}, "size has value"),
        ({"rescale_factor": 0}, "rescale_factor has value 0"),
        ({"rescale_offset": True}, "rescale_offset has value True; expected false: Shoal does not take that step"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order has value True"),
    ],
)
def test_what_cannot_be_done_as_described_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    put_json(tmp_path / huggingface.FILE, {**DINOV2, **changes})
    with pytest.raises(WeightsError) as caught:
        onnx_input.find(file(tmp_path), {})
    assert str(caught.value).startswith(f"{tmp_path / huggingface.FILE}: {told}")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"input_size": 4}, "--input-size has value 4; expected a whole number from 8 to 1,024"),
        (
            {"input_mean": (123.7, 116.3, 103.5)},
            "--input-mean[0] has value 123.7; expected a number from -10 to 10",
        ),
        ({"input_std": (1, 0, 1)}, "--input-std[1] has value 0"),
        ({"output": "a\nb"}, "--output has value 'a\\nb'; expected text without characters that cannot be shown"),
    ],
)
def test_options_that_cannot_be_are_called_by_their_names(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        onnx_input.find(file(tmp_path), options)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "holds no object; expected keys such as input_size"),
        ("{", "is not readable as JSON"),
        ('{"input_size": "224"}', ": input_size has value '224'; expected a whole number"),
        ('{"interpolation": "lanczos"}', ": interpolation has value 'lanczos'; expected one of bicubic, bilinear"),
    ],
)
def test_a_json_beside_it_that_says_nothing_readable_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(WeightsError) as caught:
        onnx_input.find(file(tmp_path), {})
    assert str(tmp_path / "net.json") in str(caught.value)
    assert told in str(caught.value)


def test_metadata_that_cannot_be_is_told_unless_another_place_says_it(tmp_path: Path) -> None:
    path = file(tmp_path, input_size="[1, 3, 224, 224]")
    with pytest.raises(WeightsError, match=r"net\.onnx: metadata: input_size has value '\[1, 3, 224, 224\]'"):
        onnx_input.find(path, {})
    assert onnx_input.find(path, {"input_size": 224}).input_size == 224
