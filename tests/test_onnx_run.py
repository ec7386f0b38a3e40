"""An ONNX file as a backbone from the command line to a published model, without torch and without `onnx`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnx_files import DIM, kernel, node, small, tensor
from pictures import paint
from shoal import ImageClusterer
from shoal.config import ClusterConfig
from shoal.encoder.spec import NETWORK, WEIGHTS
from shoal.errors import ConfigError, RunError, WeightsError
from shoal.model import Model
from shoal.publish.publish import publish
from shoal.rundir import RunDir, digest_file
from test_onnx_file import EXTERNAL, FOREIGN, holding

MEAN = ["--input-mean", "0.5,0.5,0.5", "--input-std", "0.25,0.25,0.25"]
BARE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
absent = ("torch", "torchvision", "timm", "onnx")
PathFinder.find_spec = staticmethod(
    lambda name, *more, **options: None if name.partition(".")[0] in absent else find(name, *more, **options)
)
"""


def shoal(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, as where none of torch, torchvision, timm and onnx is installed: nor in processes that it starts."""
    bare = cwd / "bare"
    bare.mkdir(exist_ok=True)
    (bare / "sitecustomize.py").write_text(BARE)  # which every Python looks for
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(bare), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "shoal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run by an ONNX file that is gone since, its pictures, and what was published of it."""
    base = tmp_path_factory.mktemp("onnx")
    paint(base / "pictures", each=6)
    (base / "net.onnx").write_bytes(small())
    done = shoal("cluster", "pictures", "--backbone", "net.onnx", *MEAN, "--clusters", 3, cwd=base)
    assert done.returncode == 0, done.stderr
    (base / "net.onnx").unlink()
    done = shoal("publish", "pictures.shoal", "--to", "model", cwd=base)
    assert done.returncode == 0, done.stderr
    return base


def test_a_run_keeps_the_file_as_it_was(place: Path) -> None:
    kept = place / "pictures.shoal" / "model"
    assert (kept / NETWORK).read_bytes() == small()
    assert not (kept / WEIGHTS).exists()
    spec = json.loads((kept / "config.json").read_text())["encoder"]
    assert (spec["backbone"], spec["architecture"], spec["dim"], spec["size"]) == ("net.onnx", "onnx", DIM, 32)


def test_run_and_publication_open_without_the_file_and_agree(place: Path) -> None:
    for where, to in (("pictures.shoal", "run.csv"), ("model", "model.csv")):
        done = shoal("assign", where, "pictures", "--to", to, cwd=place)
        assert done.returncode == 0, done.stderr
    assert (place / "run.csv").read_bytes() == (place / "model.csv").read_bytes()
    done = shoal("similar", "pictures.shoal", "pictures/kind0/0.png", "-n", 1, cwd=place)
    assert done.returncode == 0, done.stderr
    assert (place / "model" / NETWORK).read_bytes() == small()
    card = (place / "model" / "README.md").read_text(encoding="utf-8")
    assert "`net.onnx` (an ONNX file)" in card
    assert str(place) not in card


def test_what_the_file_gives_away_is_told_when_it_is_published(place: Path, tmp_path: Path) -> None:
    said = {"input_mean": (0.5,) * 3, "input_std": (0.25,) * 3}
    for metadata, noted in (
        ({"trace": 'File "/home/ada/nets/net.py", line 3'}, True),
        ({"scope": "a.b/conv1/conv"}, False),
    ):
        file = tmp_path / "net.onnx"
        file.write_bytes(small(metadata=metadata))
        ImageClusterer(3, backbone=file, out=tmp_path / "run", **said).fit(place / "pictures")  # type: ignore[arg-type]
        notes = " ".join(publish(RunDir.open(tmp_path / "run"), tmp_path / "published").notes)
        assert ("encoder.onnx names folders of the machine" in notes) == noted
        assert ("'/home/ada/nets/net.py'" in notes) == noted


def test_another_backbone_takes_its_place_in_the_run(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "pictures.shoal", tmp_path / "run")
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    ImageClusterer(3, out=tmp_path / "run").fit(place / "pictures")
    assert (tmp_path / "run" / "model" / WEIGHTS).is_file()
    assert not (tmp_path / "run" / "model" / NETWORK).exists()


def test_python_takes_what_the_command_takes(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(small("s"))
    options = {"input_size": 32, "input_mean": [0.5] * 3, "input_std": (0.25,) * 3, "output": "features"}
    mine = ImageClusterer(3, backbone=file, out=tmp_path / "run", **options).fit(place / "pictures")  # type: ignore[arg-type]
    known = ImageClusterer.load(place / "pictures.shoal")
    assert np.array_equal(mine.transform(place / "pictures"), known.transform(place / "pictures"))
    again = ImageClusterer.load(tmp_path / "run")
    assert (again.input_size, again.output) == (32, "features")
    with pytest.raises(ConfigError, match=r"input_mean has value \[0\.5\]; expected three numbers such as"):
        ImageClusterer(backbone=file, input_mean=[0.5]).fit(place / "pictures")


def test_what_is_said_of_the_images_is_part_of_what_is_stale(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(small())
    said = tmp_path / "net.json"
    clusterer = ImageClusterer(3, backbone=file, out=tmp_path / "run")

    def features() -> np.ndarray:
        return clusterer.fit(place / "pictures").transform(place / "pictures")

    said.write_text(json.dumps({"input_mean": [0.5] * 3, "input_std": [0.25] * 3}))
    before = features()
    assert np.array_equal(features(), before)
    said.write_text(json.dumps({"input_mean": [0.4] * 3, "input_std": [0.25] * 3}))
    assert not np.allclose(features(), before)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"features": "map"}, "--features has value 'map', but an ONNX file has only default; --output NAME"),
        ({"weights": "a.pth"}, "--weights has value 'a.pth', but the ONNX file net.onnx has its own"),
        ({"device": "cuda"}, "--device has value 'cuda'; net.onnx is an ONNX file, which runs on the cpu"),
        ({"backbone": "resnet50", "input_size": 224}, "--input-size goes with --backbone FILE.onnx; resnet50"),
        ({"backbone": "resnet50", "output": "x"}, "--output goes with --backbone FILE.onnx"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        ClusterConfig(("a",), **{"backbone": "net.onnx", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["backbone", "weights", "output"])
def test_names_that_are_no_text_are_told(option: str) -> None:
    """Of bytes that are not UTF-8: they stand in models and in the cache, for people to read."""
    value = os.fsdecode(b"bad\xff.onnx")
    with pytest.raises(
        ConfigError, match=rf"^--{option} has value 'bad\\udcff\.onnx'; expected a name in UTF-8: rename"
    ):
        ClusterConfig(("a",), **{option: value})  # type: ignore[arg-type]


def test_what_was_asked_is_written_down_and_read_again() -> None:
    asked = ClusterConfig(("a",), backbone="net.onnx", input_mean=(0.1, 0.2, 0.3), output="features")
    assert ClusterConfig.from_json(json.loads(json.dumps(asked.to_json()))) == asked


def test_the_command_tells_what_is_missing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(small())
    for options, told in (
        ([], "net.onnx does not say the mean and std of its images"),
        (["--input-mean", "1,2"], "--input-mean has value '1,2'; expected three numbers such as 0.485,0.456,0.406"),
        ([*MEAN, "--backbone", "none.onnx"], "--backbone has value 'none.onnx'; expected an ONNX file that exists"),
    ):
        done = shoal("cluster", place / "pictures", "--backbone", "net.onnx", *options, cwd=tmp_path)
        assert done.returncode == 2
        assert told in done.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "bare"}


def test_training_does_not_start_from_one(tmp_path: Path) -> None:
    from shoal.train.config import EncoderConfig

    for changes in ({"name": "net.onnx"}, {"weights": "net.onnx"}):
        with pytest.raises(ConfigError, match=r"has value 'net\.onnx', but an ONNX file cannot be trained"):
            EncoderConfig(**changes)


@pytest.fixture
def model(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "model", tmp_path / "model", ignore=shutil.ignore_patterns("publication.json")))


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (holding(tensors=(tensor("kernel", kernel(), EXTERNAL),)), "keeps tensors in other files"),
        (holding(FOREIGN), r"operator 'Gelu' of the domain 'com\.microsoft'"),
        (small()[:-20], "is damaged, or no ONNX file"),
        (
            small(outputs={"none": ["n", DIM]}, nodes=[node("Nonsense", "features", "none")]),
            "cannot be read by OpenVINO",
        ),
    ],
)
def test_one_from_elsewhere_is_looked_at_as_closely(file: bytes, told: str, model: Path) -> None:
    (model / NETWORK).write_bytes(file)
    with pytest.raises(RunError, match=r"config\.json: encoder\.weights_sha256 has value .*that of encoder\.onnx"):
        Model.open(model)
    config(model, lambda encoder: encoder.update(weights_sha256=digest_file(model / NETWORK)))
    with pytest.raises(WeightsError, match=told):
        Model.open(model)


def config(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values["encoder"])
    (folder / "config.json").write_text(json.dumps(values))


def test_a_description_that_does_not_fit_the_file_is_told(model: Path) -> None:
    config(model, lambda encoder: encoder.update(size=48))
    with pytest.raises(WeightsError, match="takes images of 32 × 32 pixels, and is said to take 48 × 48"):
        Model.open(model)
    (model / NETWORK).rename(model / WEIGHTS)
    with pytest.raises(RunError, match=r"encoder\.onnx is not there, though config\.json tells of an encoder"):
        Model.open(model)


def test_a_model_is_not_run_where_it_cannot(model: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--device has value 'cuda'; net\.onnx is an ONNX file, which runs on the cpu"
    ):
        Model.open(model, "cuda")
