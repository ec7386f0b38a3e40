"""What an ONNX network is fed: by whom it is said, and which of them counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnx_files import small
from shoal.config import three_numbers
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
BICUBIC = {"interpolation": "bicubic"}
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
        (  # and above that size it squashes the whole image, whatever part it names
            {"size": {"shortest_edge": 384}, "do_center_crop": None, "crop_size": None, "crop_pct": 0.875},
            {"input_size": 384, "input_mean": list(MEAN), "input_std": list(STD), "resize": "squash", **BICUBIC},
        ),
        (
            {"size": 224, "crop_size": None, "image_processor_type": "ConvNextFeatureExtractor", "crop_pct": None},
            {**TOLD, **BICUBIC},
        ),
        (  # PoolFormer
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
            {**TOLD, **BICUBIC},
        ),
        ({"do_normalize": None, "do_rescale": None, "rescale_factor": None, "resample": None}, TOLD),
        (  # mean and std of pixels of 0..255
            {
                "do_rescale": False,
                "image_mean": [123.675, 116.28, 103.53],
                "image_std": [58.395, 57.12, 57.375],
                "resample": None,
            },
            TOLD,
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
        (
            {"image_std": [0, 0, 0]},
            "image_std[0] has value 0.0; expected a number from 0.0001 to 100, of pixels scaled to 0..1",
        ),
        (
            {"do_rescale": False, "image_mean": [0, 0, 3000]},
            "image_mean[2] has value 3000.0; expected a number from -2,550 to 2,550, of pixels scaled to 0..255",
        ),
        ({"image_mean": [10**400] * 3}, "image_mean[0] has value 1000"),
        *(
            ({**changes, key: edge}, f"{key} has value {str(edge)[:4]}")
            for changes in ({}, {"crop_pct": 0.9}, {"crop_size": None}, {"image_processor_type": "ConvNextX"})
            for key in ("size", *(("crop_size",) if not changes else ()))
            for edge in (0, -1, 10**400, True, 224.5, [224, 224])
        ),
        *(({"size": {"shortest_edge": edge}}, f"size has value {str(edge)[:4]}") for edge in (0, 10**400, None)),
        ({"size": {"height": 0, "width": 0}, "crop_size": None}, "size has value 0"),
        ({"crop_size": {"height": 224}}, "crop_size has value None"),
        ({"rescale_factor": 10**400}, "rescale_factor has value 1000"),
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


def test_in_shoals_own_words_each_is_one(tmp_path: Path) -> None:
    path = file(tmp_path)
    for values, told in (
        ({"input_mean": list(MEAN), "ouput": "x"}, "has unknown key 'ouput'; expected output?"),
        ({"input_std": list(STD), "inputmean": 3}, "has unknown key 'inputmean'; expected input_mean?"),
        ({"resize": "crop", "do_lower_case": True}, "has unknown key 'do_lower_case'; expected only input_size, "),
        ({"input_mean": list(MEAN), "image_mean": list(MEAN)}, "has unknown key 'image_mean'; expected input_mean?"),
        ({"output": None, "image_mean": list(MEAN)}, "has unknown key 'image_mean'; expected input_mean?"),
    ):
        put_json(tmp_path / "net.json", values)
        with pytest.raises(WeightsError) as caught:
            onnx_input.find(path, {})
        assert str(caught.value).startswith(f"{tmp_path / 'net.json'} {told}")


def test_null_and_a_json_of_other_things_say_nothing(tmp_path: Path) -> None:
    path = file(tmp_path, input_size="40")
    for values, wanted in (
        ({"input_size": None, "output": "x"}, Said(40, output="x")),
        ({"do_lower_case": True, "image_folder": "here", "size": 300}, Said(40)),
        ({"image_mean": None, "size": 300}, Said(40)),
        ({}, Said(40)),
    ):
        put_json(tmp_path / "net.json", values)
        assert onnx_input.find(path, {}) == wanted


def test_metadata_that_cannot_be_is_told_unless_another_place_says_it(tmp_path: Path) -> None:
    path = file(tmp_path, input_size="[1, 3, 224, 224]")
    with pytest.raises(WeightsError, match=r"net\.onnx: metadata: input_size has value '\[1, 3, 224, 224\]'"):
        onnx_input.find(path, {})
    assert onnx_input.find(path, {"input_size": 224}).input_size == 224


@pytest.mark.parametrize(
    "value", ["0.1,0.2,0.3", "[0.1, 0.2, 0.3]", "(0.1,0.2,0.3) ", [0.1, 0.2, 0.3], (0.1, 0.2, 0.3)]
)
def test_three_numbers_are_read_alike_wherever_they_are_said(value: Any) -> None:
    assert three_numbers(value, "input_mean") == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("value", ["0.1,0.2", "", "a,b,c", [0.1], 0.5, [[1], 2, 3], [10**400, 1, 1]])
def test_others_are_refused_by_the_name_of_their_option(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--input-std has value .*; expected three numbers such as 0\.485,0\.456"):
        three_numbers(value, "--input-std")
