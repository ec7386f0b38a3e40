"""ImageClusterer: what the command line does, from Python."""

from __future__ import annotations

import copy
import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import shoal
from pictures import paint
from shoal import ImageClusterer, pipeline, records
from shoal.api import OPTIONS
from shoal.config import ClusterConfig
from shoal.errors import ConfigError, RunError, ShoalError, SourceError
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.runfiles import LABELS, LISTING


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("api") / "pictures")


@pytest.fixture(scope="module")
def fitted(pictures: Path) -> ImageClusterer:
    return ImageClusterer(clusters=3).fit(pictures)


def test_fitting_gives_a_cluster_to_every_image(fitted: ImageClusterer) -> None:
    table = fitted.clusters_
    assert list(table.columns) == [
        "id", "path", "cluster", "confidence", "unsure", "silhouette", "runner_up", "name", "name_strength",
    ]  # fmt: skip
    assert fitted.n_clusters_ == 3
    assert fitted.why_.startswith("3 clusters, as asked")
    assert sorted(np.bincount(fitted.labels_)) == [8, 8, 8]


def test_training_images_are_predicted_into_their_own_clusters(fitted: ImageClusterer, pictures: Path) -> None:
    found = fitted.predict(pictures).set_index("path")["cluster"]
    assert found.to_dict() == fitted.clusters_.set_index("path")["cluster"].to_dict()


def test_noise_is_unknown(fitted: ImageClusterer, tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    assert fitted.predict(tmp_path)["unknown"].mean() > 0.8


def test_transform_gives_the_features_of_the_run(fitted: ImageClusterer, pictures: Path) -> None:
    features = fitted.transform(pictures)
    stored = np.load(fitted.run_dir_.embeddings / "part-00000.npy").astype(np.float32)
    np.testing.assert_allclose(features, stored, rtol=2e-3, atol=2e-3)


def test_similar_finds_the_same_kind(fitted: ImageClusterer, pictures: Path) -> None:
    found = fitted.similar(pictures / "kind2" / "0.png", n=4)
    assert found["path"].str.startswith("kind2/").all()
    assert found["similarity"].is_monotonic_decreasing


def test_a_saved_run_and_its_model_alone_predict_the_same(
    fitted: ImageClusterer, pictures: Path, tmp_path: Path
) -> None:
    expected = fitted.predict(pictures)
    saved = fitted.save(tmp_path / "saved")
    shutil.copytree(saved / "model", tmp_path / "model")
    for folder in (saved, tmp_path / "model"):
        assert ImageClusterer.load(folder).predict(pictures).equals(expected)
    with pytest.raises(RunError, match="has no run"):
        _ = ImageClusterer.load(tmp_path / "model").clusters_
    with pytest.raises(RunError, match="exists; expected a new folder"):
        fitted.save(saved)


def test_a_list_of_files_is_a_source(pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    assert len(ImageClusterer(clusters=3).fit_predict(files)) == len(files)


def test_before_fitting_everything_says_what_to_do(tmp_path: Path) -> None:
    clusterer = ImageClusterer()
    for use in (lambda: clusterer.labels_, lambda: clusterer.predict("x"), lambda: clusterer.why_):
        with pytest.raises(RunError, match="call fit"):
            use()
    with pytest.raises(RunError, match="not a Shoal run"):
        ImageClusterer.load(tmp_path)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (np.zeros((3, 8), np.float32), "array of float32 [3, 8]"),
        (Image.new("RGB", (3, 3)), "Image"),
        ({"a.jpg": 1}, "dict"),
        (b"a.jpg", "bytes"),
        (["a.jpg", np.zeros((4, 4, 3), np.uint8)], "list of ndarray"),
        (None, "NoneType"),
    ],
)
def test_what_holds_neither_paths_nor_pictures_is_refused_in_one_sentence(
    fitted: ImageClusterer, source: Any, kind: str
) -> None:
    for use in (ImageClusterer().fit, ImageClusterer().fit_predict, fitted.predict, fitted.transform):
        with pytest.raises(SourceError) as caught:
            use(source)
        assert str(caught.value).startswith(f"source is of type {kind}; expected a path or URI, or a list of them")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [None, 3, ["a.jpg"]])
def test_what_is_no_image_has_none_like_it(fitted: ImageClusterer, image: Any) -> None:
    with pytest.raises(SourceError, match=r"image is of type .*; expected the path or URI of an image, or a PIL image"):
        fitted.similar(image)


def test_a_frame_without_paths_is_refused() -> None:
    with pytest.raises(
        SourceError, match=r"DataFrame with the columns a, 1; expected one of paths or URIs, called path"
    ):
        ImageClusterer().fit(pd.DataFrame({"a": [1], 1: [2]}))


def test_whatever_yields_paths_is_a_source(pictures: Path) -> None:
    files = sorted(map(str, pictures.rglob("*.png")))
    frame = pd.DataFrame({"note": "mine", "File": [*files, None]})
    for source in (pd.Series(files), np.array(files), iter(files), frame):
        assert len(ImageClusterer(clusters=3).fit_predict(source)) == len(files)


def test_wrong_options_are_the_command_lines_errors(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="--metric has value 'l1'"):
        ImageClusterer(metric="l1").fit(pictures)
    assert issubclass(ConfigError, ShoalError)
    assert issubclass(ConfigError, ValueError)


def test_every_public_name_is_there() -> None:
    for name in shoal.__all__:
        assert getattr(shoal, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Clusterer'"):
        _ = shoal.Clusterer


# -- what is stale, and what labels may touch ------------------------------------------------------------------------


def run_stages(source: Path, run: Path, **options: object) -> dict[str, float]:
    """Run the clustering stages; returns when each stage's output was last written."""
    config = ClusterConfig((str(source),), **options)  # type: ignore[arg-type]
    pipeline.run(config, RunDir(run), pipeline.clustering_stages(open_source(config.source)), Progress())
    names = ("embeddings/manifest.json", "neighbours/ids.npy", "clusters.parquet")
    return {name: (run / name).stat().st_mtime_ns for name in names}


def test_only_what_an_option_makes_stale_is_run_again(pictures: Path, tmp_path: Path) -> None:
    first = run_stages(pictures, tmp_path, clusters="3")
    assert run_stages(pictures, tmp_path, clusters="3") == first
    other = run_stages(pictures, tmp_path, clusters="4")
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {"clusters.parquet"}


def test_a_deleted_output_is_made_again_with_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    run_stages(pictures, tmp_path, clusters="3")
    before = (tmp_path / "clusters.parquet").read_bytes()
    (tmp_path / "clusters.parquet").unlink()
    run_stages(pictures, tmp_path, clusters="3")
    assert (tmp_path / "clusters.parquet").read_bytes() == before


def test_a_grown_source_keeps_its_ids(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "pictures")
    run_stages(tmp_path / "pictures", tmp_path / "run", clusters="3")
    before = dict(pq.read_table(tmp_path / "run" / "images.parquet").select(["path", "id"]).to_pandas().to_numpy())
    paint(tmp_path / "pictures" / "a", each=2, seed=5)
    run_stages(tmp_path / "pictures", tmp_path / "run", clusters="3")
    after = dict(pq.read_table(tmp_path / "run" / "images.parquet").select(["path", "id"]).to_pandas().to_numpy())
    assert {path: after[path] for path in before} == before
    assert len(pq.read_table(tmp_path / "run" / "clusters.parquet")) == len(after) == 30


def test_permuted_labels_change_nothing_but_the_report(pictures: Path, tmp_path: Path) -> None:
    config = ClusterConfig((str(pictures),), clusters="2-4")
    stages = [*pipeline.clustering_stages(open_source(config.source)), *pipeline.report_stages()]
    run = pipeline.run(config, RunDir(tmp_path), stages, Progress())
    before = _files(tmp_path)
    assert {"classes/ids.npy", "classes/probabilities.npy", "model/guesses.json"} <= set(before)
    labels = records.read_table(run.labels).to_pandas()
    labels["label"] = labels["label"].sample(frac=1, random_state=1).to_numpy()
    assert run.generation is not None
    for name in run.generation.places:
        if name not in (LISTING, LABELS):
            run.path(name).unlink()  # so that every stage but the index is run again
    labels.to_parquet(run.labels)
    pipeline.run(config, run, stages[1:], Progress())
    after = _files(tmp_path)
    assert {name for name in before if before[name] != after.get(name)} == {"labels.parquet", "run.json"}
    assert set(before) == set(after)


def _files(run: Path) -> dict[str, bytes]:
    """What is seen at a run's root, but for the report."""
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes() for name, path in files.items() if name.split("/")[0] not in ("report", "generations")
    }


def test_numbers_of_numpy_and_paths_are_options(pictures: Path) -> None:
    """A seed out of `np.arange`, say: the run says what was asked in JSON."""
    three = np.full(3, 0.5, np.float32)
    config = ClusterConfig.of(
        ["photos"],
        clusters=np.int64(3),
        backbone=Path("net.onnx"),
        seed=np.uint8(7),
        limit=np.int32(20),
        input_size=np.int64(64),
        input_mean=three,
        input_std=three,
    )
    assert config == ClusterConfig(
        ("photos",), "3", "net.onnx", seed=7, limit=20, input_size=64, input_mean=(0.5,) * 3, input_std=(0.5,) * 3
    )
    found = ImageClusterer(clusters=np.int64(3), seed=np.int64(1), limit=np.int16(20)).fit(pictures)  # type: ignore[arg-type]
    assert found.run_dir_.read_state()["seed"] == 1
    assert len(found.labels_) == 20


@pytest.mark.parametrize("option", sorted(OPTIONS))
@pytest.mark.parametrize("value", [1.5, True, b"x", [1, "2"], object()])
def test_an_option_of_another_type_is_refused_before_any_work(option: str, value: Any, pictures: Path) -> None:
    clusterer = ImageClusterer(**{option: value})
    with pytest.raises(ConfigError, match=rf"{option}.* has value "):
        clusterer.fit(pictures)
    with pytest.raises(RunError, match="has no run"):
        _ = clusterer.run_dir_


@pytest.mark.parametrize("n", [0, -1, 2.5, None, True])
def test_how_many_are_wanted_is_a_whole_number(fitted: ImageClusterer, pictures: Path, n: Any) -> None:
    some = next(pictures.rglob("*.png"))
    for ask in (lambda: fitted.similar(some, n=n), lambda: fitted.find("dog", n=n)):
        with pytest.raises(ConfigError, match=r"^n has value .*; expected a whole number from 1 up"):
            ask()
    assert len(fitted.similar(some, n=np.int64(2))) == 2  # type: ignore[arg-type]


def test_a_temporary_run_lasts_as_long_as_somebody_has_it(pictures: Path) -> None:
    clusterer = ImageClusterer(clusters=3).fit(pictures)
    first = clusterer.run_dir_.root
    copies = [copy.copy(clusterer), copy.deepcopy(clusterer)]
    clusterer.fit(pictures)
    second = clusterer.run_dir_.root
    assert second != first
    assert [len(one.labels_) for one in copies] == [24, 24]
    del copies
    gc.collect()
    assert not first.parent.exists()
    with pytest.raises(SourceError):
        clusterer.fit(pictures / "nothing here")
    assert len(clusterer.labels_) == 24
    del clusterer
    gc.collect()
    assert not second.parent.exists()
