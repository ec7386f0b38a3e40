"""The clustering stage: what it writes into a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shoal import records
from shoal.cluster import density, stage
from shoal.cluster import space as space_module
from shoal.cluster.heads import placed
from shoal.cluster.learned import learning
from shoal.cluster.model import ClusterModel
from shoal.cluster.space import ClusterSpace, centroids_of, cluster_points, fit_space, points_of
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore
from shoal.errors import ConfigError, TooFewImagesError
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult
from small_run import write_small_run


def vectors(kinds: int = 4, each: int = 30, dims: int = 24, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return 3 + np.repeat(np.eye(kinds, dims) * 4, each, axis=0) + generator.standard_normal((kinds * each, dims)) * 0.4


def cluster(run: RunDir, **options: object) -> StageResult:
    return stage.run(ClusterConfig(("x",), **options), run, Progress())  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_kinds_become_clusters_and_every_file_agrees(metric: str, tmp_path: Path) -> None:
    run = write_small_run(tmp_path, vectors())
    result = cluster(run, clusters="2-8", metric=metric)
    table = run.read_clusters().to_pandas()
    assert table["cluster"].to_numpy().reshape(4, 30).std(axis=1).max() == 0
    assert result.facts["k"] == 4 == table["cluster"].nunique()
    assert result.facts["sizes"] == [30] * 4
    assert table.dtypes.astype(str).to_dict()["cluster"] == "int32"
    assert (table["runner_up"] != table["cluster"]).all()
    evidence = pq.read_table(run.choose_k).to_pandas()
    assert evidence["k"].tolist() == list(range(2, 9))
    assert evidence.loc[evidence["chosen"], "k"].tolist() == [4]
    assert pq.read_table(tmp_path / "sweep.parquet").column_names == ["id", *(f"k{k}" for k in range(2, 9))]
    assert np.array_equal(pq.read_table(run.levels)["medium"].to_numpy(), table["cluster"].to_numpy())


@pytest.mark.parametrize(("metric", "dims"), [("cosine", 24), ("euclidean", 24), ("euclidean", 700)])
def test_assigned_again_the_images_are_as_sure_as_when_they_were_clustered(
    metric: str, dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "POINT_VALUES", 60_000)  # 700 dimensions become other coordinates
    rows = vectors(each=60, dims=dims, seed=1) + np.random.default_rng(2).standard_normal((240, dims))
    run = write_small_run(tmp_path, rows)
    cluster(run, clusters="4", metric=metric)
    table = run.read_clusters().to_pandas()
    again = ClusterModel.load(run.model).assign(EmbeddingStore.open(run.embeddings).read(np.arange(240)))
    assert again.cluster.tolist() == table["cluster"].tolist()
    np.testing.assert_allclose(again.confidence, table["confidence"], atol=1e-4)
    assert 0.3 < table["confidence"].mean() < 1


def test_duplicates_share_their_originals_row_and_others_have_none(tmp_path: Path) -> None:
    statuses = [records.OK] * 120
    statuses[5], statuses[7], statuses[9] = records.DUPLICATE, records.SKIPPED, records.VANISHED
    run = write_small_run(tmp_path, vectors(), statuses, {5: 100})
    cluster(run, clusters="4")
    table = run.read_clusters().to_pandas().set_index("id")
    assert table.index.tolist() == [number for number in range(120) if number not in (7, 9)]
    assert table.drop(columns="path").loc[5].to_dict() == table.drop(columns="path").loc[100].to_dict()


def test_an_only_cluster_has_no_runner_up(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, np.ones((12, 8)))
    assert cluster(run, clusters="auto").facts["k"] == 1
    assert set(run.read_clusters()["runner_up"].to_pylist()) == {-1}


def test_the_largest_cluster_is_number_0(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, np.concatenate([vectors(2, 10), vectors(4, 30, seed=1)]))
    sizes = cluster(run, clusters="4").facts["sizes"]
    assert sizes == sorted(sizes, reverse=True)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        run = write_small_run(tmp_path / name, vectors())
        cluster(run, clusters="2-6", seed=3)
        written.append([path.read_bytes() for path in (run.clusters, run.choose_k, run.levels)])
    assert written[0] == written[1]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_few_images_are_enough(count: int, metric: str, tmp_path: Path) -> None:
    run = write_small_run(tmp_path, vectors()[::15][:count])
    assert cluster(run, metric=metric).facts["k"] >= 2
    assert cluster(run, metric=metric, clusters=str(count)).facts["sizes"] == [1] * count


def test_equal_images_are_one_cluster(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, np.ones((12, 8)))
    assert cluster(run).facts["k"] == 1


def test_one_image_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(TooFewImagesError, match="1 usable image"):
        cluster(write_small_run(tmp_path, vectors()[:1]))


@pytest.mark.parametrize(
    ("statuses", "clusters", "message"),
    [
        (("ok", *["duplicate"] * 29), "auto", "30 files, all copies of one image; clusters need at least 2 different"),
        (
            ("ok", "duplicate", "skipped", "vanished"),
            "3-5",
            "2 usable files of 3, all copies of one image; --clusters",
        ),
        (
            ("ok", "ok", "duplicate", "duplicate"),
            "3",
            "4 files, all copies of 2 images; --clusters asks for",
        ),
        (
            ("ok", "skipped"),
            "auto",
            "1 usable image of 2 files, 1 skipped (1 cannot identify image file); clusters need at least 2",
        ),
        (("ok",), "auto", "the source has 1 usable image; clusters need at least 2"),
    ],
)
def test_what_makes_images_too_few_is_told(
    tmp_path: Path, statuses: tuple[str, ...], clusters: str, message: str
) -> None:
    run = write_small_run(tmp_path, vectors()[: len(statuses)], statuses)
    with pytest.raises(TooFewImagesError) as caught:
        cluster(run, clusters=clusters)
    assert str(caught.value).startswith(message)


def test_learned_clusters_of_raw_features_are_refused() -> None:
    with pytest.raises(ConfigError, match="--method has value 'learned', which needs --metric cosine"):
        stage.key(ClusterConfig(("x",), method="learned", metric="euclidean"))


def test_the_euclidean_space_keeps_every_distance(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, vectors(dims=300, kinds=3, each=10))
    store, ids = EmbeddingStore.open(run.embeddings), np.arange(30)
    space = fit_space(store, ids, "euclidean", np.random.default_rng(0))
    points, _ = points_of(space, store, ids)
    raw = store.read(ids)
    expected = np.linalg.norm(raw[:, None] - raw, axis=2)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points, axis=2), expected, rtol=1e-4, atol=1e-3)


def test_the_cosine_space_does_not_depend_on_blocks_and_has_unit_rows(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, vectors())
    store, ids = EmbeddingStore.open(run.embeddings), np.arange(120)
    space = fit_space(store, ids, "cosine", np.random.default_rng(0))
    points, lengths = points_of(space, store, ids)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    centred = ClusterSpace("cosine", space.mean, np.eye(store.dim, dtype=np.float32), np.ones(store.dim, np.float32))
    whole = points_of(centred, store, ids)[1]
    np.testing.assert_allclose(whole[:, 1], 0, atol=1e-3)
    np.testing.assert_allclose(np.hypot(*lengths.T), whole[:, 0], atol=1e-5)  # inside and outside make the whole
    np.testing.assert_allclose(space.transform(store.read(ids[3:5])), points[3:5], atol=1e-5)


@pytest.mark.parametrize("huge", ["rotated", "projected"])
def test_euclidean_features_too_large_to_hold_keep_their_distances(
    huge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "POINT_VALUES", 30 * 40)
    if huge == "projected":
        monkeypatch.setattr(space_module, "ROTATED_IMAGES", 10)
    run = write_small_run(tmp_path, vectors(dims=60, kinds=3, each=10))
    store, ids = EmbeddingStore.open(run.embeddings), np.arange(30)
    space = fit_space(store, ids, "euclidean", np.random.default_rng(0))
    points, lengths = cluster_points(space, store, ids)
    assert points.shape[1] < 60
    raw = store.read(ids)
    np.testing.assert_allclose(
        np.linalg.norm(points[:, None] - points, axis=2),
        np.linalg.norm(raw[:, None] - raw, axis=2),
        rtol=1e-3,
        atol=1e-3,
    )
    np.testing.assert_allclose(np.hypot(*lengths.T), np.linalg.norm(raw - raw.mean(axis=0), axis=1), rtol=1e-3)
    labels = np.repeat(np.arange(3), 10).astype(np.int32)
    means = np.stack([space.transform(raw[labels == kind]).mean(axis=0) for kind in range(3)])
    np.testing.assert_allclose(centroids_of(space, store, ids, labels, 3), means, atol=1e-3)


# -- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_what_is_found_on_a_sample_is_said_of_all_and_told(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "LOOKED_AT", 60)
    monkeypatch.setattr(stage, "PER_CLUSTER", 10)
    run = write_small_run(tmp_path, vectors(each=50))
    result = cluster(run, clusters="2-6", metric=metric)
    table = run.read_clusters().to_pandas()
    assert table["cluster"].to_numpy().reshape(4, 50).std(axis=1).max() == 0
    assert np.isfinite(table["silhouette"]).all()
    assert result.facts["looked_at"] == 60
    assert "found on 60 of the 200 images, by which the others were placed" in result.facts["sentence"]
    evidence = pq.read_table(run.choose_k).to_pandas()
    assert evidence["images"].tolist() == [60] * 5
    sweep = pq.read_table(tmp_path / "sweep.parquet").to_pandas()
    assert sweep["k4"].nunique() == 4
    assert len(sweep) == 200


def test_more_clusters_are_looked_for_among_more_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LOOKED_AT", 60)
    run = write_small_run(tmp_path, vectors(each=50))
    assert cluster(run, clusters="4").facts["looked_at"] == 100  # 25 a cluster


def test_learned_clusters_beyond_what_heads_can_tell_are_those_of_k_means_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "MOST_CLUSTERS", 3)
    facts = cluster(write_small_run(tmp_path, vectors()), clusters="4", method="learned").facts
    assert facts["method"] == "kmeans"
    assert facts["why_method"] == "k-means stands: heads do not learn more than 3 clusters; 4 were asked for"


def test_communities_beyond_what_a_head_is_taught_are_placed_by_their_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed, "MOST_TAUGHT", 3)
    run = write_small_run(tmp_path, vectors(each=60))
    assert cluster(run, clusters="4", method="graph").facts["method"] == "graph"
    table = run.read_clusters().to_pandas()
    assert table["cluster"].to_numpy().reshape(4, 60).std(axis=1).max() == 0
    model = ClusterModel.load(run.model)
    assert model.space.consensus is None
    again = model.assign(EmbeddingStore.open(run.embeddings).read(np.arange(240)))
    assert again.cluster.tolist() == table["cluster"].tolist()


# -- density ---------------------------------------------------------------------------------------------------------


def scattered(each: int = 150, between: int = 60) -> np.ndarray:
    """Three kinds, and images between all of them."""
    kinds = vectors(3, each)
    return np.concatenate([kinds, kinds.mean(axis=0) + 1.2 * np.random.default_rng(1).standard_normal((between, 24))])


def test_dense_groups_are_found_and_what_lies_between_is_unsure(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, scattered())
    result = cluster(run, method="density")
    table = run.read_clusters().to_pandas()
    assert result.facts["method"] == "density"
    assert result.facts["k"] == 3
    assert "stand out by density" in result.facts["sentence"]
    assert table["cluster"][:450].to_numpy().reshape(3, 150).std(axis=1).max() == 0
    assert table["unsure"][:450].mean() < 0.2
    assert table["unsure"][450:].mean() > 0.5
    assert result.facts["n_unsure"] == table["unsure"].sum()
    new = ClusterModel.load(run.model).assign(scattered()[:450].astype(np.float32))
    assert np.array_equal(new.cluster, table["cluster"][:450])


def test_images_beyond_the_sample_take_after_the_nearest_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "MOST_IMAGES", 200)
    run = write_small_run(tmp_path, scattered())
    cluster(run, method="density")
    table = run.read_clusters().to_pandas()
    assert table["cluster"][:450].to_numpy().reshape(3, 150).std(axis=1).max() == 0
    assert table["unsure"][450:].mean() > table["unsure"][:450].mean()


def test_density_falls_back_to_k_means_where_nothing_stands_out(tmp_path: Path) -> None:
    run = write_small_run(tmp_path, np.random.default_rng(0).standard_normal((8, 24)))
    assert cluster(run, method="density").facts["method"] == "kmeans"


@pytest.mark.parametrize("options", [{"clusters": "5"}, {"metric": "euclidean"}])
def test_density_refuses_what_it_cannot_do(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="density"):
        stage.key(ClusterConfig(("x",), method="density", **options))  # type: ignore[arg-type]
