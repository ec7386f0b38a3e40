"""Communities: the graph against a literal loop, modularity against networkx, the number and the sizes they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from shoal.cluster import GraphClustering, SphericalKMeans, stage
from shoal.cluster.graph import communities, leiden, modularity, shared_neighbours
from shoal.cluster.model import ClusterModel
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, normalise_rows
from shoal.errors import ConfigError
from shoal.neighbours.exact import exact_neighbours
from shoal.progress import Progress
from small_run import write_small_run

Points = npt.NDArray[np.float32]


def kinds(
    each: tuple[int, ...], dims: int = 16, apart: float = 2.0, seed: int = 0
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Kinds of so many images each, in directions of their own."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(each)), each)
    centres = apart * random.standard_normal((len(each), dims))
    return (centres[truth] + random.standard_normal((len(truth), dims))).astype(np.float32), truth


def graph_of(points: Points, nearest: int = 10) -> sparse.csr_array:
    neighbours, _ = exact_neighbours(normalise_rows(points.copy()), min(nearest, len(points) - 1))
    return shared_neighbours(neighbours)


def test_weights_are_the_jaccard_index_of_both_lists() -> None:
    points, _ = kinds((20, 15))
    neighbours, _ = exact_neighbours(normalise_rows(points.copy()), 5)
    sets = [{row, *near} for row, near in enumerate(neighbours.tolist())]
    expected = np.zeros((35, 35))
    for one, near in enumerate(neighbours.tolist()):
        for other in near:
            expected[one, other] = expected[other, one] = len(sets[one] & sets[other]) / len(sets[one] | sets[other])
    np.testing.assert_allclose(shared_neighbours(neighbours).toarray(), expected)


def test_modularity_equals_networkx() -> None:
    networkx = pytest.importorskip("networkx")
    graph = graph_of(kinds((30, 20, 10))[0])
    labels = np.random.default_rng(0).integers(0, 4, 60).astype(np.int32)
    other = networkx.from_scipy_sparse_array(graph)
    for resolution in (0.5, 1.0, 3.0):
        groups = [set(np.flatnonzero(labels == number).tolist()) for number in range(4)]
        expected = networkx.community.modularity(other, groups, weight="weight", resolution=resolution)
        assert modularity(graph, labels, resolution) == pytest.approx(expected)


def test_communities_have_about_the_modularity_of_another_implementation() -> None:
    networkx = pytest.importorskip("networkx")
    graph = graph_of(kinds((60, 40, 20, 10), apart=1.0)[0])
    groups = networkx.community.louvain_communities(networkx.from_scipy_sparse_array(graph), seed=0)
    other = np.empty(130, np.int32)
    for number, members in enumerate(groups):
        other[list(members)] = number
    assert modularity(graph, leiden(graph, 1.0, 0)) > modularity(graph, other) - 0.01


@pytest.mark.parametrize("each", [(50, 50, 50), (200, 40, 12), (400, 100, 40, 20, 10)])
def test_as_many_communities_as_asked_for_of_the_sizes_that_there_are(each: tuple[int, ...]) -> None:
    points, truth = kinds(each)
    found = communities(graph_of(points), len(each), seed=0).labels
    assert adjusted_rand_score(truth, found) > 0.97


@pytest.mark.parametrize("k", [1, 2, 3, 7, 40, 119, 120])
def test_any_number_of_communities_can_be_had(k: int) -> None:
    found = communities(graph_of(kinds((60, 40, 20))[0]), k, seed=0).labels
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.unique(found), np.arange(k))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equal_points_are_cut_into_as_many_as_asked_for(k: int) -> None:
    found = communities(graph_of(np.ones((40, 4), np.float32)), k, seed=0).labels
    np.testing.assert_array_equal(np.unique(found), np.arange(k))


def test_parts_without_a_link_between_them_merge_smallest_first() -> None:
    blocks = [np.ones((size, size)) - np.eye(size) for size in (40, 30, 5, 4)]
    graph = sparse.csr_array(sparse.block_diag(blocks))
    found = communities(graph, 3, seed=0).labels
    assert sorted(np.bincount(found).tolist()) == [9, 30, 40]


def test_a_graph_without_links_is_cut_all_the_same() -> None:
    found = communities(sparse.csr_array((12, 12), dtype=np.float64), 3, seed=0).labels
    np.testing.assert_array_equal(np.unique(found), np.arange(3))


def test_two_points_are_two_communities_or_one() -> None:
    graph = graph_of(np.eye(2, dtype=np.float32))
    assert communities(graph, 2, seed=0).labels.tolist() == [0, 1]
    assert communities(graph, 1, seed=0).labels.tolist() == [0, 0]


def test_the_same_seed_gives_the_same_communities_and_another_order_of_images_nearly() -> None:
    points, _ = kinds((150, 60, 25), apart=0.8)
    graph = graph_of(points)
    first, again = (communities(graph, 3, seed=5).labels for _ in range(2))
    np.testing.assert_array_equal(first, again)
    order = np.random.default_rng(0).permutation(len(points))
    assert adjusted_rand_score(first[order], communities(graph_of(points[order]), 3, seed=5).labels) > 0.9


def test_a_graph_shows_a_long_tail_that_k_means_does_not() -> None:
    points, truth = kinds((900, 300, 90, 40, 20, 12), dims=24, apart=1.0)
    even = SphericalKMeans(6, random_state=0).fit(points)
    free = GraphClustering(6, random_state=0).fit(points)
    assert adjusted_rand_score(truth, free.labels_) > adjusted_rand_score(truth, even.labels_) + 0.2
    assert free.modularity_ > 0.2
    np.testing.assert_array_equal(free.predict(points), free.labels_)
    np.testing.assert_allclose(free.predict_proba(points).sum(axis=1), 1)


def test_as_many_clusters_as_rows_are_the_rows() -> None:
    points, _ = kinds((6, 6))
    assert len(np.unique(GraphClustering(12, random_state=0).fit(points).labels_)) == 12


# -- the method of a run ---------------------------------------------------------------------------------------------


def test_a_run_takes_communities_where_they_are_asked_for(tmp_path: Path) -> None:
    points, truth = kinds((400, 120, 40, 15))
    run = write_small_run(tmp_path, points)
    config = ClusterConfig(("x",), method="graph", clusters="4")
    written = []
    for _ in range(2):
        facts = stage.run(config, run, Progress()).facts
        files = (run.clusters, run.levels, *sorted((run.root / "model").iterdir()))
        written.append([file.read_bytes() for file in files])
    assert facts["method"] == "graph"
    assert "modularity" in facts["why_method"]
    assert written[0] == written[1]
    table = run.read_clusters().to_pandas()
    assert adjusted_rand_score(truth, table["cluster"]) > 0.95
    assert sorted(facts["sizes"], reverse=True) == facts["sizes"]
    model = ClusterModel.load(run.model)
    again = model.assign(EmbeddingStore.open(run.embeddings).read(np.arange(len(points))))
    np.testing.assert_array_equal(again.cluster, table["cluster"])
    assert again.unknown.mean() < 0.05


def test_communities_need_the_cosine_metric() -> None:
    with pytest.raises(ConfigError, match="graph"):
        stage.key(ClusterConfig(("x",), method="graph", metric="euclidean"))
