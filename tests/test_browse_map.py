"""The map of the page: what a window shows, what an edit changes of it, what a lasso holds; of many images, some."""

from __future__ import annotations

import itertools
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from starlette.testclient import TestClient

from page_client import edit, members, open_page
from pictures import paint
from shoal import pipeline
from shoal.browse import map as page_map
from shoal.browse.map import CELLS, Box, Places
from shoal.browse.snapshot import Level
from shoal.config import ClusterConfig
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir

MANY = 20_000
MOST = 1_000

Part = dict[str, Any]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of painted pictures in three clusters, with a copy, and its map."""
    base = tmp_path_factory.mktemp("map")
    source = paint(base / "pictures", kinds=3, each=10)
    shutil.copy(source / "kind0" / "0.png", source / "kind0" / "copy.png")
    config = ClusterConfig((str(source),), clusters="3")
    stages = [*pipeline.clustering_stages(open_source(config.source)), *pipeline.report_stages()[:2]]
    pipeline.run(config, RunDir(base / "run.shoal"), stages, Progress())
    return base / "run.shoal"


@pytest.fixture
def client(finished: Path, tmp_path: Path) -> TestClient:
    return open_page(Path(shutil.copytree(finished, tmp_path / "run.shoal")))


@pytest.fixture
def places() -> Places:
    """Many images in clouds of all densities, with a few far from all others."""
    draw = np.random.default_rng(0)
    middles, widths = draw.uniform(-50, 50, (30, 2)), draw.exponential(3, 30)
    cloud = draw.integers(0, 30, MANY)
    xy = middles[cloud] + draw.normal(size=(MANY, 2)) * widths[cloud, None]
    xy[:5] = draw.uniform(200, 300, (5, 2))
    return Places.of(np.arange(MANY, dtype=np.int32), *xy.T.astype(np.float32))


def part_of(data: bytes) -> Part:
    """A window of the map as the API answers it."""
    count, total, version, west, south, east, north = struct.unpack("<III4f", data[:28])
    assert len(data) == 28 + 16 * count
    ids, x, y, cluster = (
        np.frombuffer(data, kind, count, 28 + 4 * count * place)
        for place, kind in enumerate(("<i4", "<f4", "<f4", "<i4"))
    )
    around = Box(west, south, east, north)
    return {"total": total, "version": version, "around": around, "ids": ids, "x": x, "y": y, "cluster": cluster}


def window(client: TestClient, **asked: Any) -> Part:
    answer = client.get("/api/map", params=asked)
    assert answer.status_code == 200, answer.text
    return part_of(answer.content)


def numbers(data: bytes) -> npt.NDArray[np.int32]:
    (count,) = struct.unpack("<I", data[:4])
    assert len(data) == 4 + 4 * count
    return np.frombuffer(data, "<i4", count, 4)


def quarters(box: Box) -> list[Box]:
    x, y = (box.west + box.east) / 2, (box.south + box.north) / 2
    west, east = box._replace(east=x), box._replace(west=x)
    return [half._replace(**edge) for half in (west, east) for edge in ({"north": y}, {"south": y})]


# -- the order -------------------------------------------------------------------------------------------------------


def test_a_window_shows_no_more_than_is_drawn_at_once_and_the_same_each_time(places: Places) -> None:
    again = Places.of(*(values[np.argsort(places.rows)] for values in (places.rows, places.x, places.y)))
    for box in (places.around, *quarters(places.around)):
        found, total = places.within(box, MOST)
        assert len(found) == min(total, MOST)
        assert np.array_equal(places.rows[found], again.rows[again.within(box, MOST)[0]])


def test_every_image_is_reached_by_coming_nearer(places: Places) -> None:
    seen: set[int] = set()
    left = [places.around]
    while left:
        box = left.pop()
        found, total = places.within(box, MOST)
        seen |= set(found.tolist())
        left += quarters(box) if total > MOST else []
    assert len(seen) == MANY


def test_coming_nearer_only_adds(places: Places) -> None:
    boxes = [places.around]
    for _ in range(6):
        boxes.append(max(quarters(boxes[-1]), key=lambda box: places.within(box, MOST)[1]))
    for outer, inner in itertools.pairwise(boxes):
        far, near = (set(places.within(box, MOST)[0].tolist()) for box in (outer, inner))
        inside = set(places.within(inner, MANY)[0].tolist())
        assert far & inside <= near


def test_no_part_of_the_map_is_missing_from_afar_and_it_is_as_dense_as_all_images_are(places: Places) -> None:
    assert {0, 1, 2, 3, 4} <= set(places.rows[places.within(places.around, CELLS * CELLS // 8)[0]].tolist())
    far = places.within(places.around, MANY // 2)[0]
    for box in quarters(places.around):
        share, of_all = (np.isin(ids, places.within(box, MANY)[0]).mean() for ids in (far, np.arange(MANY)))
        assert share == pytest.approx(of_all, abs=0.05)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_map_of_hardly_any_images(count: int) -> None:
    places = Places.of(np.arange(count, dtype=np.int32), *np.ones((2, count), np.float32))
    assert places.within(Box(0, 0, 2, 2), MOST)[1] == count
    assert places.inside(np.array([[0, 0], [0, 2], [2, 2], [2, 0]])).sum() == count


def test_a_lasso_holds_what_the_even_odd_rule_says(places: Places) -> None:
    corners = np.random.default_rng(1).uniform(-60, 60, (40, 2))

    def is_inside(x: float, y: float) -> bool:
        found = False
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if (ay > y) != (by > y) and x < ax + (bx - ax) * (y - ay) / (by - ay):
                found = not found
        return found

    some = np.arange(0, MANY, 40)
    expected = [is_inside(float(places.x[place]), float(places.y[place])) for place in some]
    assert 0 < sum(expected) < len(expected)
    assert places.inside(corners)[some].tolist() == expected


# -- the API ---------------------------------------------------------------------------------------------------------


def test_a_small_map_comes_whole_with_the_clusters(client: TestClient) -> None:
    part = window(client)
    assert len(part["ids"]) == part["total"] == 31
    assert set(part["ids"][part["cluster"] == 2].tolist()) == set(members(client, 2))
    assert part["around"] == Box(part["x"].min(), part["y"].min(), part["x"].max(), part["y"].max())
    west = window(client, east=float(np.median(part["x"])))
    assert set(west["ids"].tolist()) == set(part["ids"][part["x"] <= np.median(part["x"])].tolist())


def test_of_a_large_map_some_comes_and_of_a_cluster_alone_its_own(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_map, "MOST", 5)
    part = window(client)
    assert (len(part["ids"]), part["total"]) == (5, 31)
    alone = window(client, cluster=1)
    assert (len(alone["ids"]), alone["total"]) == (5, len(members(client, 1)))
    assert (alone["cluster"] == 1).all()


def test_an_edit_changes_clusters_and_no_place_is_sent_again(client: TestClient) -> None:
    before, run = window(client), client.get("/api/run").json()
    moved = members(client, 0)[:3]
    edit(client, "move", ids=moved, cluster=1)
    edit(client, "rename", cluster=1, name="one")
    data = client.get("/api/map/changes", params={"since": before["version"], "base": run["base"]}).content
    count, version = struct.unpack("<II", data[:8])
    ids, cluster = np.frombuffer(data, "<i4", count, 8), np.frombuffer(data, "<i4", count, 8 + 4 * count)
    assert len(data) == 8 + 8 * count
    assert set(moved) <= set(ids.tolist())
    now = window(client)
    assert version == now["version"] == 2
    told, kept, expected = (
        dict(zip(part_ids.tolist(), clusters.tolist(), strict=True))
        for part_ids, clusters in ((ids, cluster), (before["ids"], before["cluster"]), (now["ids"], now["cluster"]))
    )
    assert kept | told == expected
    assert client.get("/api/run").json()["map"] == run["map"]
    assert all(np.array_equal(before[name], now[name]) for name in ("ids", "x", "y"))


def test_changes_since_another_clustering_are_refused(client: TestClient) -> None:
    base = client.get("/api/run").json()["base"]
    for asked in ({"since": 0, "base": "0" * 16}, {"since": 7, "base": base}):
        assert client.get("/api/map/changes", params=asked).status_code == 409


def test_a_lasso_takes_what_is_not_sent_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_map, "MOST", 5)
    box = window(client)["around"]
    corners = [[box.west - 1, box.south - 1], [box.west - 1, box.north + 1], [box.east + 1, box.north + 1]]
    square = [*corners, [box.east + 1, box.south - 1]]
    found = client.post("/api/map/inside", json={"polygon": square})
    assert numbers(found.content).tolist() == list(range(31))
    alone = client.post("/api/map/inside", json={"polygon": square, "cluster": 2})
    assert numbers(alone.content).tolist() == sorted(members(client, 2))
    whole = client.post("/api/map/inside", json={"polygon": None, "cluster": 2})
    assert whole.content == alone.content
    for wrong in ([[0, 0], [1, 1]], [[0, 0], [1, 1], [2]], [[0, 0], [1, 1], [2, "x"]]):
        assert client.post("/api/map/inside", json={"polygon": wrong}).status_code == 422


# -- clusters in order -----------------------------------------------------------------------------------------------


def test_clusters_are_put_in_order_after_an_edit_as_they_are_from_the_beginning() -> None:
    draw = np.random.default_rng(0)
    cluster = draw.integers(0, 30, 5000).astype(np.int32)
    confidence = np.round(draw.random(5000), 2).astype(np.float32)  # many are equal
    level = Level.of(cluster, confidence)
    assert np.array_equal(level.order, np.lexsort((np.arange(5000), -confidence, cluster)))
    for _ in range(20):
        cluster, confidence = cluster.copy(), confidence.copy()
        moved = draw.choice(5000, int(draw.integers(1, 400)), replace=False)
        cluster[moved], confidence[moved] = draw.integers(0, 35), 1
        level = Level.of(cluster, confidence, level)
        anew = Level.of(cluster, confidence)
        for name in ("order", "keys", "numbers", "starts"):
            assert np.array_equal(getattr(level, name), getattr(anew, name))
