"""Nearest neighbours against brute force in float64, and what the stage leaves in a run directory."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import embeddings, records
from shoal.blas import single
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, Float32, normalise_rows, part_count, part_range, products
from shoal.halves import fill, widened
from shoal.neighbours import approximate, candidates, exact, plan, query, stage
from shoal.neighbours.approximate import Search
from shoal.neighbours.exact import exact_neighbours
from shoal.neighbours.finding import PieceOfNeighbours
from shoal.neighbours.leading import Leading
from shoal.neighbours.random_rows import Rows
from shoal.neighbours.work import search_by
from shoal.progress import Progress, Task
from shoal.rundir import RunDir
from small_run import write_small_run

CONFIG = ClusterConfig(source=("photos",))


def unit_rows(n: int, d: int, seed: int) -> Float32:
    return normalise_rows(np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32))


def assert_exact(x: Float32, ids: npt.NDArray[np.int32], similarity: Float32) -> None:
    """Every row's similarities are the k largest of the others, and belong to its ids, in order, ties by id."""
    n, k = ids.shape
    true = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(true, -np.inf)
    assert (ids != np.arange(n)[:, None]).all()
    assert all(len(set(row)) == k for row in ids.tolist())
    np.testing.assert_allclose(similarity, np.take_along_axis(true, ids, 1), atol=2e-6)
    np.testing.assert_allclose(similarity, -np.sort(-true, axis=1)[:, :k], atol=2e-6)
    fall = np.diff(similarity, axis=1)
    assert (fall <= 0).all()
    assert (np.diff(ids, axis=1)[fall == 0] > 0).all()


@given(st.data())
@settings(max_examples=60)
def test_exact_is_brute_force(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 150))
    d = data.draw(st.integers(1, 40))
    k = data.draw(st.integers(1, n - 1))
    x = unit_rows(n, d, seed=data.draw(st.integers(0, 1000)))
    x[data.draw(st.integers(0, n - 1)) :: 3] = x[0]  # exact duplicates
    x[data.draw(st.integers(0, n - 1))] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "BLOCK_ROWS", data.draw(st.integers(7, 64)))
        assert_exact(x, *exact_neighbours(x, k, threads=2))


def test_blocks_and_threads_change_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(700, 96, seed=1)
    x[350:] = x[:350]  # every similarity but one comes twice
    monkeypatch.setattr(exact, "BLOCK_ROWS", 97)
    ids, similarity = exact_neighbours(x, 20, threads=1)
    same_ids, same_similarity = exact_neighbours(x, 20, threads=3)
    assert ids.tobytes() == same_ids.tobytes()
    assert similarity.tobytes() == same_similarity.tobytes()
    monkeypatch.setattr(exact, "BLOCK_ROWS", 2048)
    other_ids, other_similarity = exact_neighbours(x, 20, threads=1)
    np.testing.assert_array_equal(ids, other_ids)
    np.testing.assert_allclose(similarity, other_similarity, atol=1e-6)


def test_thousands_of_equal_rows_are_held_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.concatenate([np.tile(unit_rows(1, 8, seed=0), (3000, 1)), unit_rows(100, 8, seed=1)])
    monkeypatch.setattr(exact, "BLOCK_ROWS", 500)
    monkeypatch.setattr(candidates, "STRIP", 2**15)
    tracemalloc.start()
    ids, _ = exact_neighbours(x, 5, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ids[0].tolist() == [1, 2, 3, 4, 5]
    assert ids[2999].tolist() == [0, 1, 2, 3, 4]
    assert peak < 3100 * 3100 * 4  # the similarities of all pairs alone


@pytest.mark.rounding
def test_of_many_equal_rows_those_of_the_smallest_ids_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(1500, 512, seed=0)
    equal = np.sort(np.random.default_rng(0).choice(1500, 900, replace=False))
    x[equal] = x[equal[0]]
    monkeypatch.setattr(exact, "BLOCK_ROWS", 149)
    ids, similarity = exact_neighbours(x, 5, threads=2)
    for row in equal.tolist():
        assert ids[row].tolist() == [other for other in equal[:6].tolist() if other != row][:5]
    assert len(set(similarity[equal].ravel().tolist())) == 1


@pytest.mark.rounding
@pytest.mark.parametrize("d", [1, 7, 33, 1280, 9000, 20000])
def test_products_of_equal_rows_are_equal_wherever_they_lie(d: int) -> None:
    row, others = 3 * unit_rows(1, d, seed=0), unit_rows(5, d, seed=1)
    alone = products(row, others)
    np.testing.assert_allclose(alone, row.astype(np.float64) @ others.T.astype(np.float64), atol=1e-5)
    for count in (1, 2, 3, 17, 98):
        equal = np.empty((count, d + 1), dtype=np.float32)[:, 1:]  # rows begin where a processor's vectors do not
        equal[:] = row
        assert (products(equal, others) == alone).all()
        assert (products(others, equal) == alone.T).all()
        assert (products(equal, others[:1]) == alone[0, 0]).all()
        assert (normalise_rows(equal) == normalise_rows(row.copy())).all()


def test_duplicates_are_neighbours_and_the_row_itself_is_not() -> None:
    x = np.tile(unit_rows(1, 16, seed=0), (5, 1))
    ids, similarity = exact_neighbours(x, 3)
    assert ids.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    np.testing.assert_allclose(similarity, 1, atol=1e-6)


def test_zero_rows_are_similar_to_nothing() -> None:
    ids, similarity = exact_neighbours(np.zeros((4, 3), dtype=np.float32), 2)
    assert ids.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert not similarity.any()


@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 0), (5, 0)])
def test_no_neighbours_asked_or_possible(n: int, k: int) -> None:
    ids, similarity = exact_neighbours(unit_rows(n, 4, seed=0), k)
    assert (ids.shape, ids.dtype, similarity.shape, similarity.dtype) == ((n, k), np.int32, (n, k), np.float32)


@pytest.mark.parametrize("k", [-1, 5])
def test_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to n - 1 = 4. Got {k}"):
        exact_neighbours(unit_rows(5, 4, seed=0), k)


def test_rows_that_are_not_finite_are_refused() -> None:
    x = unit_rows(10, 4, seed=0)
    x[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        exact_neighbours(x, 3)


def test_progress_ends_at_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "BLOCK_ROWS", 10)
    watched = CountingProgress()
    exact_neighbours(unit_rows(47, 4, seed=0), 3, watched)
    assert watched.done == watched.total == 5 * 4 // 2 + 2 * 5


def test_an_interruption_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(CountingProgress):
        def advance(self, count: int = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact_neighbours(unit_rows(47, 4, seed=0), 3, Interrupted())


class CountingProgress(Progress):
    def __init__(self) -> None:
        self.total = self.done = 0
        self._lock = threading.Lock()  # several threads tell of their work

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        self.total = total
        yield self

    def advance(self, count: int = 1) -> None:
        with self._lock:
            self.done += count


# -- the stage ----------------------------------------------------------------------------------------------------


def test_stage_writes_image_ids_for_every_row(tmp_path: Path) -> None:
    vectors = (
        np.random.default_rng(0).standard_normal((1500, 8)) * 30
    )  # two parts of embeddings; raw, not of unit length
    statuses = [records.OK] * 1500
    statuses[0], statuses[7], statuses[1499] = records.SKIPPED, records.DUPLICATE, records.VANISHED
    run_dir = write_small_run(tmp_path / "run", vectors, statuses)
    result = stage.run(CONFIG, run_dir, Progress())

    ids, similarity = np.load(run_dir.neighbours / "ids.npy"), np.load(run_dir.neighbours / "similarity.npy")
    assert (ids.dtype, ids.shape, similarity.dtype, similarity.shape) == (np.int32, (1500, 50), np.float32, (1500, 50))
    assert (ids[[0, 7, 1499]] == -1).all()
    assert not similarity[[0, 7, 1499]].any()
    ok = np.setdiff1d(np.arange(1500), [0, 7, 1499])
    assert np.isin(ids[ok], ok).all()
    unit = vectors.astype(np.float16).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    true = unit[ok] @ unit[ok].T
    np.fill_diagonal(true, -np.inf)
    np.testing.assert_allclose(similarity[ok], -np.sort(-true, axis=1)[:, :50], atol=1e-6)
    np.testing.assert_allclose(similarity[ok], np.einsum("nd,nkd->nk", unit[ok], unit[ids[ok]]), atol=1e-6)
    assert result.facts == {
        "k": 50,
        "method": "exact",
        "recall": 1.0,
        "mean_similarity": pytest.approx(similarity[ok].mean(), abs=1e-6),
    }
    manifest = json.loads((run_dir.neighbours / "manifest.json").read_text())
    assert (manifest["k"], manifest["metric"], manifest["method"], manifest["recall"]) == (50, "cosine", "exact", 1.0)


def test_stage_again_gives_the_same_bytes(tmp_path: Path) -> None:
    run_dir = write_small_run(tmp_path / "run", np.random.default_rng(0).standard_normal((300, 8)))
    first = stage.run(CONFIG, run_dir, Progress())
    before = {file.name: file.read_bytes() for file in (run_dir.root / "neighbours").iterdir()}
    assert stage.run(CONFIG, run_dir, Progress()) == first
    assert {file.name: file.read_bytes() for file in (run_dir.root / "neighbours").iterdir()} == before
    assert set(before) == {"ids.npy", "similarity.npy", "manifest.json"}


@pytest.mark.parametrize(("ok", "k"), [(1, 0), (2, 1), (51, 50), (30, 29)])
def test_stage_has_at_most_the_others_as_neighbours(tmp_path: Path, ok: int, k: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((ok + 1, 4))
    run_dir = write_small_run(tmp_path / "run", vectors, [records.SKIPPED] + [records.OK] * ok)
    assert stage.run(CONFIG, run_dir, Progress()).facts["k"] == k
    assert np.load(run_dir.neighbours / "ids.npy").shape == (ok + 1, k)
    assert np.load(run_dir.neighbours / "similarity.npy").shape == (ok + 1, k)


# -- new images ---------------------------------------------------------------------------------------------------


def test_nearest_is_brute_force_over_blocks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((9000, 6)).astype(np.float16)
    vectors[8999] = vectors[5]  # the same image in two blocks
    run_dir = write_small_run(tmp_path / "run", vectors)
    ids = np.setdiff1d(np.arange(9000), [3, 4000])
    queries = np.concatenate([vectors[[3, 5]].astype(np.float32), random.standard_normal((2, 6), dtype=np.float32)])
    found, similarity = query.nearest(EmbeddingStore.open(run_dir.embeddings), ids, queries, 7)

    stored = vectors[ids].astype(np.float64)
    true = normalised(queries) @ normalised(stored).T
    np.testing.assert_allclose(similarity, -np.sort(-true, axis=1)[:, :7], atol=1e-6)
    np.testing.assert_allclose(similarity, np.take_along_axis(true, np.searchsorted(ids, found), 1), atol=1e-6)
    assert found[1, :2].tolist() == [5, 8999]
    assert not np.isin(found, [3, 4000]).any()


def test_nearest_leaves_queries_as_they_were_and_gives_at_most_all(tmp_path: Path) -> None:
    run_dir = write_small_run(tmp_path / "run", np.eye(3))
    asked = np.array([[5, 1, 0]], dtype=np.float32)
    found, similarity = query.nearest(EmbeddingStore.open(run_dir.embeddings), np.arange(3), asked, 20)
    assert found.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(similarity[0], np.array([5, 1, 0]) / np.sqrt(26), atol=1e-6)
    assert asked.tolist() == [[5, 1, 0]]


def normalised(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


# -- approximate --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces small enough for a test, and no set so small that it is searched exactly."""
    monkeypatch.setattr(approximate, "PLACED_ROWS", 1500)
    monkeypatch.setattr(approximate, "FOUND_ROWS", 700)
    monkeypatch.setattr(stage, "EXACT_UP_TO", 0)


@pytest.fixture
def clustered_run(tmp_path: Path, small_pieces: None) -> RunDir:
    """4,000 images in 40 groups, in no order, with three exact copies of one."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((40, 64))[random.integers(0, 40, 4000)] + 0.3 * random.standard_normal((4000, 64))
    vectors[[100, 2000, 3999]] = vectors[50]
    return write_small_run(tmp_path / "run", vectors, [records.SKIPPED] + [records.OK] * 3999)


def written(run_dir: RunDir) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run_dir.root / "neighbours").iterdir()}


def search_of(run_dir: RunDir, k: int = 50) -> Search:
    store = EmbeddingStore.open(run_dir.embeddings)
    ids = np.flatnonzero(run_dir.read_images(["status"])["status"].to_numpy(zero_copy_only=False) == records.OK)
    return Search.within(run_dir.cache / "neighbours", store, ids, k)


class Threads:
    """Has pieces done here, by so many threads."""

    is_here = True

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, work: Any, pieces: Any) -> Generator[Any, None, None]:
        yield from replace(work.start(), threads=self.count).do(pieces)


def do_all(search: Search, threads: int) -> None:
    search_by(Threads(threads), search, Path(), Progress())


def test_approximate_reports_the_recall_it_has(clustered_run: RunDir) -> None:
    facts = stage.run(CONFIG, clustered_run, Progress()).facts
    assert facts["method"] == "approximate"
    ids = np.load(clustered_run.neighbours / "ids.npy")[1:]
    similarity = np.load(clustered_run.neighbours / "similarity.npy")[1:]
    x = normalise_rows(EmbeddingStore.open(clustered_run.embeddings).read(np.arange(1, 4000)))
    _, true = exact_neighbours(x, 50)
    recall = (similarity >= true[:, -1:] - 1e-6).mean()
    assert recall > 0.95
    assert facts["recall"] == pytest.approx(recall, abs=0.02)
    assert facts["mean_similarity"] == pytest.approx(similarity.mean(), abs=1e-6)
    np.testing.assert_allclose(similarity, np.einsum("nd,nkd->nk", x, x[ids - 1]), atol=1e-6)
    assert (ids != np.arange(1, 4000)[:, None]).all()
    assert all(len(set(row)) == 50 for row in ids.tolist())
    assert ids[49, :3].tolist() == [100, 2000, 3999]
    fall = np.diff(similarity, axis=1)
    assert (fall <= 0).all()
    assert (np.diff(ids, axis=1)[fall == 0] > 0).all()


def test_approximate_looks_into_a_part_of_the_cells(clustered_run: RunDir) -> None:
    search = search_of(clustered_run)
    do_all(search, 2)
    finder = search.finder()
    assert finder.near < len(finder.cells.sizes) / 4


def test_approximate_again_gives_the_same_bytes_and_leaves_no_copy(clustered_run: RunDir) -> None:
    first = stage.run(CONFIG, clustered_run, Progress())
    before = written(clustered_run)
    assert stage.run(CONFIG, clustered_run, Progress()) == first
    assert written(clustered_run) == before
    assert not list(clustered_run.cache.iterdir())


def test_threads_and_the_order_of_pieces_change_no_byte(clustered_run: RunDir) -> None:
    def found(search: Search) -> list[bytes]:
        arrays = [(piece.rows, piece.neighbours, piece.similarity) for piece in search.found()]
        return [array.tobytes() for piece in arrays for array in piece]

    search = search_of(clustered_run)
    do_all(search, 1)
    alone = found(search)
    for file in search.folder.iterdir():
        file.unlink()
    do_all(search, 3)
    assert found(search) == alone
    for number in search.finds():
        search._found(number).unlink()
    with single():
        for number in reversed(search.finds()):
            search.find(search.finder(), number)  # as another machine would, with all it knows from the files
    assert found(search) == alone


def test_a_search_that_was_killed_goes_on_at_the_piece(clustered_run: RunDir) -> None:
    class Killed(CountingProgress):
        left = 0

        def advance(self, count: int = 1) -> None:
            super().advance(count)
            if self.done == self.left:
                raise KeyboardInterrupt

    stage.run(CONFIG, clustered_run, Progress())
    whole = written(clustered_run)
    pieces = len(search_of(clustered_run).places()) + len(search_of(clustered_run).finds())
    for left in range(1, pieces + 1):
        killed = Killed()
        killed.left = left
        with pytest.raises(KeyboardInterrupt):
            stage.run(CONFIG, clustered_run, killed)
        made = {file: file.stat().st_mtime_ns for file in search_of(clustered_run).folder.iterdir()}
        assert len([file for file in made if file.name.startswith(("placed", "found"))]) >= left
    search = search_of(clustered_run)
    do_all(search, 2)
    assert made == {file: file.stat().st_mtime_ns for file in made}  # nothing was made again
    stage.run(CONFIG, clustered_run, Progress())
    assert written(clustered_run) == whole


def test_pieces_of_other_embeddings_are_not_taken_up(clustered_run: RunDir) -> None:
    do_all(search_of(clustered_run), 2)
    old = search_of(clustered_run).folder
    part = EmbeddingStore.open(clustered_run.embeddings).folder / "part-00000.npy"
    values = np.load(part)
    values[5] = values[6]
    np.save(part, values)
    assert search_of(clustered_run).folder != old
    assert not old.exists()


def test_a_bar_of_pieces_ends_at_its_total(clustered_run: RunDir) -> None:
    watched = CountingProgress()
    stage.run(CONFIG, clustered_run, watched)
    assert watched.done == watched.total == 3 + 6


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("n", [2, 3, 60, 1600])
@pytest.mark.parametrize("kind", ["equal", "zero", "halves", "random"])
def test_degenerate_sets_have_as_many_neighbours_as_there_are(
    tmp_path: Path, small_pieces: None, kind: str, n: int, d: int
) -> None:
    vectors = np.random.default_rng(0).standard_normal((n, d))
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "zero":
        vectors[:] = 0
    elif kind == "halves":
        vectors[: n // 2] = vectors[0]
    run_dir = write_small_run(tmp_path / "run", vectors)
    k = stage.run(CONFIG, run_dir, Progress()).facts["k"]
    ids, similarity = np.load(run_dir.neighbours / "ids.npy"), np.load(run_dir.neighbours / "similarity.npy")
    assert ids.shape == (n, k) == (n, min(50, n - 1))
    assert ids.min() >= 0
    assert ids.max() < n
    assert (ids != np.arange(n)[:, None]).all()
    assert all(len(set(row)) == k for row in ids.tolist())
    x = normalise_rows(EmbeddingStore.open(run_dir.embeddings).read(np.arange(n)))
    np.testing.assert_allclose(similarity, np.einsum("nd,nkd->nk", x, x[ids]), atol=1e-6)


def test_one_huge_cell_costs_no_more_than_a_few_even_ones(
    tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    vectors = np.concatenate([np.ones((5000, 16)) + 1e-3 * random.standard_normal((5000, 16)), -np.eye(16)])
    compared = 0

    class Counting(Leading):
        def offer(self, rows: npt.NDArray[np.int64], first: int, estimates: Float32) -> None:
            nonlocal compared
            compared += estimates.size
            super().offer(rows, first, estimates)

    monkeypatch.setattr("shoal.neighbours.finding.Leading", Counting)
    monkeypatch.setattr(plan, "nearest_cell", lambda reduced, centroids: np.zeros(len(reduced), dtype=np.int32))
    monkeypatch.setattr("shoal.neighbours.placing.nearest_cell", plan.nearest_cell)
    run_dir = write_small_run(tmp_path / "run", vectors)
    search = search_of(run_dir)
    do_all(search, 1)
    assert search.finder().cells.most < 5016 / 10
    assert compared <= 5016 * search.finder().cells.most
    assert all((piece.neighbours >= 0).all() for piece in search.found())


def test_a_piece_is_found_in_memory_that_does_not_grow_with_the_images(tmp_path: Path, small_pieces: None) -> None:
    peaks = []
    for n in (4000, 16_000):
        search = search_of(write_small_run(tmp_path / str(n), unit_rows(n, 32, seed=0)))
        with single():
            search.make_plan()
            for number in search.places():
                search.place(search.plan(), number)
            search.join()
            finder = search.finder()
            tracemalloc.start()
            found = finder.find(slice(0, 700))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert isinstance(found, PieceOfNeighbours)
    assert peaks[1] < 1.5 * peaks[0]


def test_rows_in_any_order_open_each_part_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_rows(5000, 6, seed=0).astype(np.float16)
    store = EmbeddingStore.open(write_small_run(tmp_path / "run", vectors).embeddings)
    opened: list[int] = []
    part = EmbeddingStore.part
    monkeypatch.setattr(EmbeddingStore, "part", lambda self, number: opened.append(number) or part(self, number))
    ids = np.random.default_rng(0).integers(0, 5000, 2000)
    np.testing.assert_array_equal(store.read(ids, slice(1, 4)), vectors[ids, 1:4].astype(np.float32))
    assert opened == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_wherever_it_lies(kind: Any, wrong: float) -> None:
    values = np.linspace(-3, 3, 400_000, dtype=kind).reshape(-1, 8)
    out = np.empty(values.shape, np.float32)
    assert fill(out, values)
    assert out.tobytes() == values.astype(np.float32).tobytes()
    for place in (0, 3, len(values) // 2, len(values) - 1):
        spoilt = values.copy()
        spoilt[place, place % 8] = wrong
        assert not fill(out, spoilt)


def test_every_finite_half_is_widened_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    assert widened(halves).tobytes() == halves.astype(np.float32).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("small_parts", [1, 1024])
def test_rows_are_read_by_id_and_of_unit_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, small_parts: int
) -> None:
    monkeypatch.setattr(embeddings, "SMALL_PARTS", small_parts)
    monkeypatch.setattr(embeddings, "LARGE_PART_ROWS", 1200)
    vectors = np.random.default_rng(0).standard_normal((2500, 6)).astype(dtype)
    vectors[7] = 0
    names = tuple(f"part-{number:05d}.npy" for number in range(part_count(2500)))
    for number, name in enumerate(names):
        np.save(tmp_path / name, vectors[list(part_range(number, 2500))])
    store = EmbeddingStore(tmp_path, 2500, 6, dtype, names)
    rows = Rows(store)
    for ids in (np.arange(2500), np.array([0, 7, 1023, 1024, 2499]), np.array([], dtype=np.int64)):
        np.testing.assert_array_equal(rows.read(ids), normalise_rows(store.read(ids)))


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 30))
@settings(max_examples=40)
def test_leading_keeps_the_largest_of_all_blocks(seed: int, keep: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    estimates = random.integers(-9, 9, (rows, 60)).astype(np.float32)  # many are equal
    seen = random.random((rows, 60)) < 0.7
    leading, start = Leading(rows, keep), 0
    for stop in [*np.sort(random.choice(np.arange(1, 60), 4, replace=False)).tolist(), 60]:
        leading.offer(np.arange(rows), start, np.where(seen, estimates, -np.inf)[:, start:stop].astype(np.float32))
        start = stop
    for row, found in enumerate(leading.finish().tolist()):
        here = np.array([place for place in found if place >= 0 and seen[row, place]], dtype=int)
        assert len(set(here.tolist())) == len(here) == min(keep, int(seen[row].sum()))
        np.testing.assert_array_equal(
            np.sort(estimates[row, here]), np.sort(estimates[row, seen[row]])[-len(here) :] if len(here) else here
        )
