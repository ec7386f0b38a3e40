"""The server behind the page, on a real run: what it answers, what it refuses, and what edits make of the run."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from drafted import run_stage
from page_client import HOST, clusters, edit, members, open_page
from patience import PATIENCE
from pictures import paint
from shoal import ImageClusterer, pipeline, records
from shoal import draft as drafts
from shoal.assign import AssignSummary, assign
from shoal.browse import changing, overview
from shoal.browse.app import create_app
from shoal.browse.security import Access
from shoal.config import ClusterConfig
from shoal.corrections.base import read_base
from shoal.corrections.corrected import read_corrected
from shoal.corrections.edit import ranges_of
from shoal.corrections.model import corrected_model, load_model
from shoal.embed.given import open_given
from shoal.errors import RunError
from shoal.export import export
from shoal.export.record import RECORD_NAME
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.progress import Progress
from shoal.report.findings import Findings
from shoal.rundir import RunDir, StageResult
from shoal.summary import cluster_summary

TOKEN = "x-shoal-token"
KINDS = 3
EACH = 10


def gps_jpeg(path: Path) -> None:
    """A JPEG that tells where it was taken, by whom, and that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B] = "SECRET-ARTIST"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:, :60] = (250, 30, 30)
    Image.fromarray(pixels).save(path, exif=exif, comment=b"SECRET-COMMENT")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of painted pictures in three clusters, with a copy, a broken file and a photograph that tells too much."""
    base = tmp_path_factory.mktemp("browse")
    source = paint(base / "pictures", kinds=KINDS, each=EACH)
    shutil.copy(source / "kind0" / "0.png", source / "kind0" / "copy.png")
    (source / "kind1" / "broken.jpg").write_bytes(b"\xff\xd8\xff no")
    gps_jpeg(source / "kind2" / "gps.jpg")
    run = RunDir(base / "run.shoal")
    config = ClusterConfig((str(source),), clusters="3")
    pipeline.run(
        config,
        run,
        [*pipeline.clustering_stages(open_source(config.source)), *pipeline.report_stages()[:2]],
        Progress(),
    )
    return run.root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run.shoal"))


@pytest.fixture
def client(root: Path) -> TestClient:
    return open_page(root)


def stranger(client: TestClient, **headers: str) -> TestClient:
    """The same server seen by somebody without the token."""
    return TestClient(client.app, base_url=f"http://{HOST}", headers=headers)


def job(client: TestClient, answer: httpx.Response) -> dict[str, Any]:
    """How a job ended, asked again and again as the page does."""
    assert answer.status_code == 202, answer.text
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        state: dict[str, Any] = client.get(f"/api/jobs/{answer.json()['job']}").json()
        if state["state"] != "running":
            return state
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def refit(client: TestClient) -> dict[str, Any]:
    seen = client.get("/api/run").json()
    return job(client, client.post("/api/refit", json={"base": seen["base"], "base_version": seen["version"]}))


# -- looking ---------------------------------------------------------------------------------------------------------


def test_the_run_at_a_glance(client: TestClient) -> None:
    run = client.get("/api/run").json()
    expected = {
        "kind": "run",
        "name": "pictures",
        "images": KINDS * EACH + 2,
        "clusters": 3,
        "skipped": 1,
        "duplicates": 1,
        "has_labels": True,
        "version": 0,
        "can_undo": False,
        "levels": ["coarse", "chosen", "fine"],
    }
    assert {name: run[name] for name in expected} == expected
    assert run["map"]


def test_clusters_hold_every_image_once_at_every_level(client: TestClient) -> None:
    everything = set(range(KINDS * EACH + 3)) - {client.get("/api/evidence").json()["skipped"][0]["id"]}
    for level in ("coarse", "chosen", "fine"):
        cards = clusters(client, level)
        found = [image for number in cards for image in members(client, number, level=level)]
        assert sorted(found) == sorted(everything)
        assert all(set(card["prototypes"]) <= set(members(client, card["id"], level=level)) for card in cards.values())
        assert all(card["prototypes"] for card in cards.values())


def test_levels_nest(client: TestClient) -> None:
    chosen = clusters(client)
    for number, card in clusters(client, "fine").items():
        assert set(members(client, number, level="fine")) <= set(members(client, card["parent"]))
    for number, card in clusters(client, "coarse").items():
        inside = {image for child in card["children"] for image in members(client, child)}
        assert set(members(client, number, level="coarse")) == inside
        assert set(card["children"]) <= set(chosen)


def test_images_come_from_surest_to_least_sure_in_pages(client: TestClient) -> None:
    whole = client.get("/api/clusters/0/images").json()
    confidence = [image["confidence"] for image in whole["images"]]
    assert confidence == sorted(confidence, reverse=True)
    paged = [
        image["id"]
        for offset in range(0, whole["total"], 3)
        for image in client.get("/api/clusters/0/images", params={"offset": offset, "limit": 3}).json()["images"]
    ]
    assert paged == [image["id"] for image in whole["images"]]
    assert members(client, 0, order="least_sure") == paged[::-1]
    assert sorted(members(client, 0, only="sure") + members(client, 0, only="unsure")) == sorted(paged)


def test_one_image_with_neighbours_and_probabilities(client: TestClient) -> None:
    image = members(client, 1)[0]
    found = client.get(f"/api/images/{image}").json()
    assert found["cluster"] == 1
    assert found["probabilities"][0]["cluster"] == 1
    assert found["probabilities"][0]["p"] == pytest.approx(found["confidence"], abs=2e-3)
    assert sum(one["p"] for one in found["probabilities"]) == pytest.approx(1, abs=1e-2)
    scores = [near["similarity"] for near in found["neighbours"]]
    assert scores == sorted(scores, reverse=True)
    assert image not in [near["id"] for near in found["neighbours"]]
    assert found["path"].startswith(found["label"] + "/")


def test_copies_point_at_each_other(client: TestClient) -> None:
    (group,) = client.get("/api/evidence").json()["duplicates"]
    for image in group:
        assert client.get(f"/api/images/{image}").json()["duplicates"] == [one for one in group if one != image]


def test_an_image_that_a_person_moved_is_no_cover(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.browse.prototypes.POOL", 4)
    number, *others = clusters(client)
    own = members(client, number)
    moved = [image for other in others for image in members(client, other)[:-3]]
    assert len(moved) > 4
    assert edit(client, "move", ids=moved, cluster=number).status_code == 200
    assert clusters(client)[number]["size"] == len(own) + len(moved)
    for level in ("chosen", "coarse"):
        assert all(card["prototypes"][0] not in moved for card in clusters(client, level).values()), level
    assert edit(client, "move", ids=own, cluster=None).status_code == 200
    assert set(clusters(client)[number]["prototypes"]) <= set(moved)  # where there is no other


def test_the_silhouette_says_of_how_many_images_it_is(client: TestClient) -> None:
    quality = client.get("/api/evidence").json()["quality"]
    assert quality["silhouette_images"] == quality["images"]
    first, other, *_ = clusters(client)
    changed = len(members(client, first)) + len(members(client, other))
    edit(client, "move", ids=members(client, first)[:1], cluster=other)
    quality = client.get("/api/evidence").json()["quality"]
    assert quality["silhouette_images"] == quality["images"] - changed


def test_among_many_clusters_prototypes_are_told_when_they_are_asked_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = {number: card["prototypes"] for number, card in clusters(client).items()}
    monkeypatch.setattr(overview, "PICTURED", 1)
    edit(client, "rename", cluster=0, name="any")
    apart = {number: card["prototypes"] for number, card in clusters(client).items()}
    assert sorted(map(bool, apart.values())) == [False, False, True]
    answer = client.get("/api/prototypes", params={"of": "2,0,1,7"}).json()
    assert {one["id"]: one["prototypes"] for one in answer["clusters"]} == together
    for wrong in ("", "1,", "a", "-1"):
        assert client.get("/api/prototypes", params={"of": wrong}).status_code == 422


def test_a_skipped_image_says_why(client: TestClient) -> None:
    (skipped,) = client.get("/api/evidence").json()["skipped"]
    found = client.get(f"/api/images/{skipped['id']}").json()
    assert found["path"] == "kind1/broken.jpg"
    assert found["status"] == "skipped"
    assert found["cluster"] is None
    assert client.get(f"/api/images/{skipped['id']}/thumb").status_code == 422


def test_evidence_has_the_metrics_of_the_clusters_now(client: TestClient) -> None:
    evidence = client.get("/api/evidence").json()
    assert [row["k"] for row in evidence["choose_k"]] == [3]
    assert evidence["metrics"]["acc"] > 0.9
    edit(client, "merge", clusters=[0, 1])
    assert client.get("/api/evidence").json()["metrics"]["acc"] < evidence["metrics"]["acc"]


def test_evidence_tells_the_rarest_reasons_first(root: Path) -> None:
    run = RunDir.open(root)
    images = run.read_images()
    path, reasons = images["path"].to_pylist(), images["reason"].to_pylist()
    status = images["status"].to_pylist()
    for row in range(3):
        status[row], reasons[row] = records.SKIPPED, "not an image (.ogg)"
    for name, values in (("status", status), ("reason", reasons)):
        place = images.column_names.index(name)
        images = images.set_column(place, images.schema.field(name), pa.array(values, images.schema.field(name).type))
    digest = run.read_state()["stages"]["images"]["digest"]

    def write(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        records.write_table(run_dir.new("images.parquet"), images)
        return StageResult(digest)

    run_stage(root, "images", write, ClusterConfig(("pictures",)))
    evidence = open_page(root).get("/api/evidence").json()
    assert evidence["skipped_total"] == 4
    assert [one["count"] for one in evidence["skipped_reasons"]] == [3, 1]
    assert [one["path"] for one in evidence["skipped"]] == ["kind1/broken.jpg", *path[:3]]


def test_what_is_not_there_is_404_in_one_line(client: TestClient) -> None:
    for address in (
        "/api/images/999",
        "/api/images/999/thumb",
        "/api/clusters/77/images",
        "/api/clusters?level=finest",
        "/api/images/0/thumb?size=1000",
        "/api/jobs/none",
        "/api/nothing",
        "/nothing.js",
    ):
        answer = client.get(address)
        assert answer.status_code == 404, address
        assert "\n" not in answer.json()["error"]


def test_openapi_describes_it(client: TestClient) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    assert {"/api/run", "/api/clusters", "/api/edits", "/api/search", "/api/find", "/api/export"} <= set(paths)


# -- pictures --------------------------------------------------------------------------------------------------------


def gps_image(client: TestClient) -> int:
    for cluster in clusters(client):
        for image in members(client, cluster):
            if client.get(f"/api/images/{image}").json()["path"] == "kind2/gps.jpg":
                return image
    raise AssertionError("the photograph is in no cluster")


@pytest.mark.parametrize("what", ["thumb?size=96", "thumb?size=384", "full"])
def test_pictures_are_upright_and_tell_nothing_else(client: TestClient, what: str) -> None:
    answer = client.get(f"/api/images/{gps_image(client)}/{what}")
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.width < picture.height <= 384
    assert not picture.getexif()
    assert not {"exif", "comment", "icc_profile", "xmp"} & set(picture.info)
    assert b"SECRET" not in answer.content


def test_a_thumbnail_is_made_once_and_known_by_its_tag(client: TestClient, root: Path, finished: Path) -> None:
    first = client.get("/api/images/3/thumb?size=96")
    assert Image.open(io.BytesIO(first.content)).size == (96, 96)
    tag = first.headers["etag"]
    assert client.get("/api/images/3/thumb?size=96", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/api/images/3/thumb?size=192").headers["etag"] != tag
    with taken_away(finished.parent / "pictures"):
        assert open_page(root).get("/api/images/3/thumb?size=96").content == first.content
    shutil.rmtree(root / "cache")
    assert client.get("/api/images/3/thumb?size=96").content == first.content


@contextmanager
def taken_away(source: Path) -> Iterator[None]:
    """Within it, nothing lies where the source was."""
    aside = source.with_name(f"{source.name}-away")
    source.rename(aside)
    try:
        yield
    finally:
        aside.rename(source)


def test_a_file_that_is_gone_costs_one_picture(finished: Path, root: Path) -> None:
    client = open_page(root)
    image = members(client, 0)[0]
    with taken_away(finished.parent / "pictures" / client.get(f"/api/images/{image}").json()["path"]):
        answer = client.get(f"/api/images/{image}/thumb")
        assert (answer.status_code, answer.json()) == (422, {"error": "gone from the source"})
        assert "etag" not in answer.headers  # it is asked for again when the file may be back
        assert client.get("/api/clusters").status_code == 200
    assert client.get(f"/api/images/{image}/thumb").status_code == 200


# -- who may ask -----------------------------------------------------------------------------------------------------

ADDRESSES = ("/api/run", "/api/clusters", "/api/map", "/api/images/1/thumb", "/api/images/1/full", "/api/openapi.json")


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_without_the_token(client: TestClient, address: str) -> None:
    assert stranger(client).get(address).status_code == 401
    assert stranger(client, **{"x-shoal-token": "A" * 43}).get(address).status_code == 401
    assert stranger(client, **{"x-shoal-token": ""}).get(address).status_code == 401
    token = client.headers["x-shoal-token"]
    assert stranger(client).get(address, params={"token": token}).status_code == 401
    assert stranger(client, authorization=f"Bearer {token}").get(address).status_code == 401


def test_the_cookie_opens_pictures_to_get_and_nothing_else(client: TestClient) -> None:
    answer = client.get("/api/session")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("shoal_session_8000=")
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert client.headers["x-shoal-token"] not in cookie
    holder = stranger(client, cookie=cookie.split(";")[0])
    assert holder.get("/api/images/1/thumb").status_code == 200
    assert holder.get("/api/images/1/full").status_code == 200
    for address in ("/api/run", "/api/map", "/api/images/1", "/api/session"):
        assert holder.get(address).status_code == 401
    assert holder.post("/api/edits", json={}).status_code == 401
    assert holder.post("/api/images/1/thumb").status_code == 401
    assert holder.get("/api/images/1/thumb", headers={"sec-fetch-site": "cross-site"}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_foreign_hosts_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/run", headers={"host": host}).status_code == 421
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9999", "[::1]:8000"])
def test_names_of_this_machine_and_tunnels_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/api/run", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8000", "x"]
)
def test_foreign_origins_are_refused(client: TestClient, origin: str) -> None:
    for answer in (
        client.get("/api/run", headers={"origin": origin}),
        client.post("/api/edits", json={}, headers={"origin": origin}),
        client.options("/api/run", headers={"origin": origin, "access-control-request-method": "GET"}),
    ):
        assert answer.status_code == 403
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_pages_own_origin_is_taken(client: TestClient) -> None:
    assert client.get("/api/run", headers={"origin": f"http://{HOST}"}).status_code == 200
    assert client.get("/api/run", headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert client.get("/api/run", headers={"sec-fetch-site": "same-site"}).status_code == 403


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    for answer in (
        client.get("/"),
        client.get("/api/run"),
        client.get("/api/nothing"),
        client.get("/api/images/1/thumb"),
        stranger(client).get("/api/run"),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


PATHS = (
    "/../run.json",
    "/..%2frun.json",
    "/%2e%2e/run.json",
    "/assets/../../../../etc/passwd",
    "/assets/..%2f..%2f..%2fetc%2fpasswd",
    "//etc/passwd",
    "/%2fetc%2fpasswd",
    "/run.json",
    "/edits.jsonl",
    "/labels.parquet",
    "/..\\run.json",
    "/%5c..%5crun.json",
    "/index.html%00.png",
    "/.sources",
    "/api/images/..%2f..%2frun.json/thumb",
    "/api/images/%2e%2e/full",
    "/api/images/-1/thumb",
    "/api/images/1e3/thumb",
    "/api/images/99999999999999999999999/thumb",
    "/api/jobs/..%2f..%2frun.json/file",
)


@contextmanager
def listening(app: Any) -> Iterator[int]:
    """The port of a real server, for requests that no client library would send."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def raw(port: int, request: str | bytes) -> bytes:
    """What a server answers to some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request.encode() if isinstance(request, str) else request)
        answer = b""
        with suppress(ConnectionResetError):  # the server would not hear it out
            while piece := connection.recv(1 << 16):
                answer += piece
        return answer


def test_no_path_of_the_disk_is_reached(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("<p>shell</p>")
    (page / "assets" / "a.js").write_text("1")
    (page / ".sources").write_text("digest")
    client = open_page(root, page)
    assert client.get("/").text == "<p>shell</p>"
    assert "immutable" in client.get("/assets/a.js").headers["cache-control"]
    with listening(client.app) as port:
        for path in PATHS:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{TOKEN}: {client.headers[TOKEN]}\r\n"
            answer = raw(port, f"{head}Connection: close\r\n\r\n")
            assert answer.split()[1] in (b"404", b"422", b"400"), (path, answer[:200])
            assert b"root:" not in answer
            assert b"format_version" not in answer


def test_the_page_needs_no_token_and_takes_nothing_but_get(root: Path, tmp_path: Path) -> None:
    client = open_page(root, tmp_path / "no page")
    assert stranger(client).get("/").status_code == 503
    assert "pip install" in stranger(client).get("/").text
    assert stranger(client).post("/").status_code == 405


def test_raw_requests_of_a_real_server(root: Path) -> None:
    """A process as people start it: the address it prints works, and broken requests do not stop it."""
    command = [sys.executable, "-m", "shoal", "browse", str(root), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            address, token = line.split()[-1].split("/#token=")
            port = address.rpartition(":")[2]
            for broken in (
                b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                b"GET /api/run HTTP/1.1\r\n\r\n",
                b"GET /api/run HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                b"\x00\x01\x02\r\n\r\n",
                b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
            ):
                answer = raw(int(port), broken)
                assert b"200 OK" not in answer
                assert b"root:" not in answer
            found = httpx.get(f"{address}/api/run", headers={"x-shoal-token": token}, timeout=PATIENCE).json()
            assert found["clusters"] == 3
            with pytest.raises(httpx.ConnectError):  # only loopback listens
                other = socket.gethostbyname(socket.gethostname())
                if other.startswith("127."):
                    raise httpx.ConnectError("this machine has no other address")
                httpx.get(f"http://{other}:{port}/", timeout=PATIENCE)
        finally:
            server.terminate()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a Shoal run"):
        create_app(tmp_path, Access("127.0.0.1", 1))


# -- uploads ---------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(b"\0" * 1000)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def upload(client: TestClient, data: bytes) -> httpx.Response:
    return client.post("/api/search", files={"image": ("any name/../x.png", data)})


def test_search_finds_the_cluster_and_the_nearest(client: TestClient, tmp_path: Path) -> None:
    fresh = paint(tmp_path / "new", each=1, seed=5) / "kind1" / "0.png"
    found = upload(client, fresh.read_bytes()).json()
    near = [client.get(f"/api/images/{one['id']}").json() for one in found["neighbours"]]
    assert all(one["path"].startswith("kind1/") for one in near[:8])
    assert found["cluster"] == near[0]["cluster"]
    assert 0 < found["confidence"] <= 1
    assert isinstance(found["unknown"], bool)
    assert [one["id"] for one in found["called"]] == [found["cluster"], found["runner_up"]]


def test_a_run_of_given_embeddings_is_searched_with_its_own_images(finished: Path, tmp_path: Path) -> None:
    source = finished.parent / "pictures"
    items = [item.path for item in open_source((str(source),)).listed().items()]
    rows = np.eye(KINDS, 8)[[int(path[4]) for path in items]] + np.random.default_rng(0).normal(0, 0.1, (len(items), 8))
    given = open_given(rows)
    config = ClusterConfig((str(source),), clusters="3", embeddings=given.asked)
    stages = pipeline.clustering_stages(open_source(config.source), given)
    client = open_page(pipeline.run(config, RunDir(tmp_path / "run"), stages, Progress()).root)
    assert client.get("/api/run").json()["backbone"] == "none: embeddings were given"
    found = upload(client, (source / "kind1" / "0.png").read_bytes()).json()
    near = [client.get(f"/api/images/{one['id']}").json()["path"] for one in found["neighbours"]]
    assert near[0] == "kind1/0.png"
    assert all(path.startswith("kind1/") for path in near[:8])
    fresh = paint(tmp_path / "new", each=1, seed=5) / "kind1" / "0.png"
    answer = upload(client, fresh.read_bytes())
    assert answer.status_code == 400
    assert "has no encoder for new images" in answer.json()["error"]


@pytest.mark.parametrize(
    ("data", "status", "named"),
    [
        (png_header(10_000, 6_000), 413, "10,000 × 6,000 pixels"),
        (png_header(25_000, 20_000), 422, "too many pixels (25,000 x 20,000"),
        (b"", 422, "empty"),
        (b"hello", 422, "not an image"),
        (b"\x89PNG\r\n\x1a\n broken", 422, "PNG"),
        (b"%PDF-1.4", 422, "PDF"),
        (b"\xff\xd8\xff" + b"\0" * (21 << 20), 413, "20 MiB"),
    ],
)
def test_uploads_are_limited_in_bytes_and_pixels(client: TestClient, data: bytes, status: int, named: str) -> None:
    answer = upload(client, data)
    assert answer.status_code == status
    assert named in answer.json()["error"]


def test_an_upload_that_hides_its_length_is_broken_off(client: TestClient) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for piece in [head] + [b"\0" * (1 << 20)] * 200:
            sent += len(piece)
            yield piece

    answer = client.post("/api/search", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"{}", "application/json"), (b"junk", "multipart/form-data; boundary=x"), (b"", "multipart/form-data")],
)
def test_uploads_of_another_form_are_told(client: TestClient, content: bytes, kind: str) -> None:
    assert client.post("/api/search", content=content, headers={"content-type": kind}).status_code == 400


def test_a_huge_body_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post("/api/edits", content=b"{}", headers={"content-length": str(1 << 40)})
    assert answer.status_code == 413


# -- edits -----------------------------------------------------------------------------------------------------------


def test_a_story_of_edits(client: TestClient, root: Path) -> None:
    before = {number: set(members(client, number)) for number in clusters(client)}
    assert edit(client, "rename", cluster=0, name="discs").json()["changed"] == [0]
    assert edit(client, "merge", clusters=[1, 2]).json()["changed"] == [1, 2]
    assert set(clusters(client)) == {0, 1}
    preview = client.post("/api/split/preview", json={"cluster": 1, "parts": 2}).json()
    assert sum(part["size"] for part in preview["parts"]) == len(before[1] | before[2])
    assert edit(client, "split", cluster=1, token=preview["token"]).status_code == 200
    parted = {frozenset(members(client, number)) for number in (1, 3)}
    assert parted == {frozenset(before[1]), frozenset(before[2])}  # k-means finds the two kinds again
    moved = members(client, 3)[:3]
    assert edit(client, "move", ids=moved, cluster=0).status_code == 200
    assert set(moved) <= set(members(client, 0))
    assert all(client.get(f"/api/images/{image}").json()["moved"] for image in moved)
    assert edit(client, "noise", ids=members(client, 0)[-1:]).status_code == 200
    assert [card["noise"] for card in clusters(client).values()].count(True) == 1
    assert edit(client, "undo").status_code == 200
    assert not any(card["noise"] for card in clusters(client).values())
    assert edit(client, "redo").status_code == 200
    assert client.get("/api/run").json()["version"] == 7
    again = open_page(root)  # everything is in the file
    assert clusters(again) == clusters(client)
    lines = [json.loads(line) for line in (root / "edits.jsonl").read_text().splitlines()]
    assert [line["op"] for line in lines] == ["rename", "merge", "split", "move", "noise", "undo", "redo"]
    told = client.get("/api/edits").json()["edits"]
    assert [line["op"] for line in told] == ["rename", "merge", "split", "move", "noise"]


def test_looking_writes_nothing_but_the_cache(client: TestClient, root: Path) -> None:
    def files() -> dict[str, int]:
        found = (path for path in root.rglob("*") if path.is_file() and "cache" not in path.relative_to(root).parts)
        return {str(path): path.stat().st_mtime_ns for path in found}

    before = files()
    for address in ("/", "/api/run", "/api/clusters", "/api/map", "/api/evidence", "/api/images/1/thumb", "/api/edits"):
        client.get(address)
    client.post("/api/split/preview", json={"cluster": 1, "parts": 2})
    assert files() == before
    edit(client, "rename", cluster=0, name="x")
    assert {Path(name).name for name in set(files()) - set(before)} <= {"edits.jsonl", "edits.lock"}


def test_two_windows_at_once_lose_no_edit(client: TestClient, root: Path) -> None:
    first, second = client, open_page(root)  # two windows of two servers, even
    seen = first.get("/api/run").json()
    assert edit(first, "rename", seen, cluster=0, name="a").status_code == 200
    assert edit(second, "rename", seen, cluster=1, name="b").status_code == 200
    clash = edit(second, "rename", seen, cluster=0, name="c")
    assert clash.status_code == 409
    assert "renamed" in clash.json()["error"]
    assert edit(second, "undo", seen).status_code == 409
    for window in (first, second):
        assert [clusters(window)[number]["name"] for number in (0, 1)] == ["a", "b"]


def test_many_edits_at_once_all_arrive(client: TestClient) -> None:
    seen = client.get("/api/run").json()
    images = members(client, 0)[:8]
    answers: list[int] = []

    def move(image: int) -> None:
        answers.append(edit(client, "move", seen, ids=[image], cluster=1).status_code)

    threads = [threading.Thread(target=move, args=(image,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert set(images) <= set(members(client, 1))
    assert client.get("/api/run").json()["version"] == 8


def test_windows_hear_of_each_other(client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = client.get("/api/run").json()
    waits = threading.Event()

    async def wait(seconds: float) -> None:
        waits.set()
        await asyncio.sleep(seconds / 10)

    monkeypatch.setattr(changing, "asyncio", SimpleNamespace(sleep=wait))
    monkeypatch.setattr(changing, "LONGEST_POLL_SECONDS", 100 * PATIENCE)  # it answers because of the edit, or never
    answers: list[dict[str, Any]] = []
    asked = {"since": seen["version"], "base": seen["base"], "wait": 100 * PATIENCE}
    waiting = threading.Thread(
        target=lambda: answers.append(open_page(root).get("/api/events", params=asked).json()), daemon=True
    )
    waiting.start()
    assert waits.wait(PATIENCE)
    assert answers == []
    edit(client, "rename", cluster=0, name="x")
    waiting.join(PATIENCE)
    assert answers == [{"version": 1, "base": seen["base"]}]
    assert client.get("/api/events", params={"since": 1, "wait": 0}).json()["version"] == 1


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"op": "paint"}, 422),
        ({"op": "rename", "cluster": 0}, 422),
        ({"op": "rename", "cluster": "0", "name": "x"}, 422),
        ({"op": "rename", "cluster": 0, "name": "x", "more": 1}, 422),
        ({"op": "rename", "cluster": 0, "name": "x" * 201}, 400),
        ({"op": "rename", "cluster": 44, "name": "x"}, 400),
        ({"op": "merge", "clusters": [1]}, 422),
        ({"op": "merge", "clusters": [1, 1]}, 400),
        ({"op": "move", "ids": [], "cluster": 1}, 422),
        ({"op": "move", "ids": [9999], "cluster": 1}, 400),
        ({"op": "move", "ids": [2**80], "cluster": 1}, 422),
        ({"op": "split", "cluster": 1, "token": "none"}, 404),
        ({"op": "undo"}, 400),
        ({"op": "redo"}, 400),
    ],
)
def test_wrong_edits_are_told_and_change_nothing(
    client: TestClient, root: Path, values: dict[str, Any], status: int
) -> None:
    answer = edit(client, values.pop("op"), **values)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]
    assert not (root / "edits.jsonl").exists()


def test_an_edit_on_other_clusters_than_shown_is_refused(client: TestClient) -> None:
    seen = client.get("/api/run").json() | {"base": "0" * 16}
    assert edit(client, "rename", seen, cluster=0, name="x").status_code == 409
    seen = client.get("/api/run").json() | {"version": 5}
    assert edit(client, "rename", seen, cluster=0, name="x").status_code == 409


def test_a_split_previewed_before_another_edit_of_its_images_is_refused(client: TestClient) -> None:
    preview = client.post("/api/split/preview", json={"cluster": 1, "parts": 2}).json()
    edit(client, "move", ids=members(client, 1)[:1], cluster=0)
    assert edit(client, "split", cluster=1, token=preview["token"]).status_code == 409


def test_too_many_parts_are_told(client: TestClient) -> None:
    assert client.post("/api/split/preview", json={"cluster": 1, "parts": 20}).status_code == 400
    assert client.post("/api/split/preview", json={"cluster": 1, "parts": 21}).status_code == 422
    assert client.post("/api/split/preview", json={"cluster": 9, "parts": 2}).status_code == 404


# -- what edits make of the rest ---------------------------------------------------------------------------------------


@pytest.fixture
def corrected(client: TestClient) -> TestClient:
    """Two kinds merged and named, three images of theirs moved out into a cluster of their own, one marked as noise."""
    edit(client, "merge", clusters=[1, 2])
    edit(client, "rename", cluster=1, name="stripes: and/or checks")
    surest = members(client, 1)
    edit(client, "move", ids=surest[:3], cluster=None, name="mine")
    edit(client, "noise", ids=surest[-1:])
    return client


def test_exports_respect_edits(corrected: TestClient, root: Path, tmp_path: Path) -> None:
    export(RunDir(root), "csv", tmp_path / "out.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    by_name: dict[str, int] = {}
    for row in rows:
        by_name[row["name"]] = by_name.get(row["name"], 0) + 1
    sizes = {card["name"] or "": card["size"] for card in clusters(corrected).values()}
    assert by_name == sizes
    assert set(by_name) == {"", "stripes: and/or checks", "mine", "noise"}
    export(RunDir(root), "folders", tmp_path / "sorted", mode="copy")
    folders = {path.name: len(list(path.iterdir())) for path in (tmp_path / "sorted").iterdir() if path.is_dir()}
    assert folders == {
        "cluster_000": sizes[""],
        "stripes_ and_or checks": sizes["stripes: and/or checks"],
        "mine": 3,
        "noise": 1,
    }


@pytest.mark.parametrize("kind", ["folders", "csv", "parquet", "imagefolder", "fiftyone", "labelstudio"])
def test_exports_of_the_page_are_those_of_the_command(
    corrected: TestClient, root: Path, tmp_path: Path, kind: str
) -> None:
    state = job(corrected, corrected.post("/api/export", json={"kind": kind}))
    assert state["state"] == "done", state
    answer = corrected.get(f"/api/jobs/{state['job']}/file")
    assert f'filename="{state["file"]}"' in answer.headers["content-disposition"]
    wanted = tmp_path / {"csv": "clusters.csv", "parquet": "clusters.parquet", "labelstudio": "labelstudio.json"}.get(
        kind, "images"
    )
    export(RunDir(root), kind, wanted)
    if kind in ("csv", "parquet"):
        assert answer.content == wanted.read_bytes()
        return
    base = wanted if wanted.is_dir() else tmp_path
    expected = {
        path.relative_to(base).as_posix(): path.read_bytes()
        for path in base.rglob("*")
        if path.is_file() and root not in path.parents and path.name != RECORD_NAME
    }
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == expected
    holder = stranger(corrected, cookie=corrected.get("/api/session").headers["set-cookie"].split(";")[0])
    assert holder.get(f"/api/jobs/{state['job']}/file").status_code == 200
    assert stranger(corrected).get(f"/api/jobs/{state['job']}/file").status_code == 401


def test_the_report_respects_edits(corrected: TestClient, root: Path) -> None:
    run = RunDir(root)
    config = ClusterConfig.from_json(run.read_state()["asked"])
    pipeline.run(config, run, pipeline.report_stages(), Progress())
    summary = json.loads((run.report / "summary.json").read_text())
    assert {(shown["name"], shown["size"]) for shown in summary["clusters"]} >= {("mine", 3), ("noise", 1)}
    page = (run.report / "index.html").read_text()
    assert "stripes: and/or checks" in page
    edit(corrected, "rename", cluster=0, name="only discs")
    pipeline.run(config, run, pipeline.report_stages(), Progress())  # an edit makes it stale
    assert "only discs" in (run.report / "index.html").read_text()


def test_new_images_are_assigned_to_corrected_clusters(corrected: TestClient, root: Path, tmp_path: Path) -> None:
    source = paint(tmp_path / "new", each=3, seed=8)
    for wanted in (root, copied_model(corrected, root, tmp_path)):
        batches = assign(Model.open(wanted), open_source((str(source),)), AssignSummary(), Progress())
        found = pa.Table.from_batches(batches).to_pylist()
        assert {image["name"] for image in found if image["path"].startswith("kind0/")} == {None}
        assert {image["name"] for image in found if not image["path"].startswith("kind0/")} <= {
            "stripes: and/or checks",
            "mine",
        }
        assert "noise" not in {image["name"] for image in found}


def copied_model(client: TestClient, root: Path, tmp_path: Path) -> Path:
    """A model folder as somebody else gets it, after the corrections were applied."""
    assert refit(client)["state"] == "done"
    return Path(shutil.copytree(root / "model", tmp_path / "model"))


def test_edits_survive_another_clustering(corrected: TestClient, root: Path, finished: Path) -> None:
    run = RunDir(root)
    before = read_corrected(run)
    config = ClusterConfig((str(finished.parent / "pictures"),), clusters="3", seed=7)
    pipeline.run(config, run, pipeline.clustering_stages(open_source(config.source)), Progress())
    after = read_corrected(run)
    assert after.conflicts == {}
    assert sorted(after.names.values()) == sorted(before.names.values())
    for number, name in before.names.items():
        (same,) = (other for other, given in after.names.items() if given == name)
        assert after.members(same).tolist() == before.members(number).tolist()
    assert corrected.get("/api/run").json()["clusters"] == 3  # the open page sees the new clusters; noise is none
    is_same = read_base(run).digest == before.base  # then the numbers of the edits are those of the clusters
    assert {line["earlier"] for line in corrected.get("/api/edits").json()["edits"]} == {not is_same}


# -- learning from corrections -----------------------------------------------------------------------------------------


def test_a_refit_keeps_what_people_did_and_can_be_undone(corrected: TestClient, root: Path) -> None:
    before = clusters(corrected)
    pinned = {
        number: members(corrected, number) for number, card in before.items() if card["name"] in ("mine", "noise")
    }
    state = refit(corrected)
    assert state["state"] == "done", state
    after = clusters(corrected)
    assert sorted(card["name"] or "" for card in after.values()) == sorted(
        card["name"] or "" for card in before.values()
    )
    for number, images in pinned.items():
        (same,) = (card["id"] for card in after.values() if card["name"] == before[number]["name"])
        assert set(images) <= set(members(corrected, same))
    assert RunDir(root).read_clusters(["cluster"])["cluster"].to_numpy().max() == len(after) - 1
    assert edit(corrected, "undo").status_code == 200
    assert clusters(corrected) == before
    assert edit(corrected, "redo").status_code == 200
    assert clusters(corrected) == after


def test_after_an_undone_refit_everything_speaks_of_the_clusters_that_there_are(
    corrected: TestClient, root: Path
) -> None:
    """Writers of the run, as the report's stage, see what readers see; texts do not tell of what was undone."""

    def told() -> dict[str, Any]:
        run = RunDir.open(root)
        with drafts.writing(root) as draft:
            for one in (draft.run_dir, draft.before):
                assert read_corrected(one).digest == read_corrected(run).digest
        facts, evidence = corrected.get("/api/run").json(), corrected.get("/api/evidence").json()
        findings = Findings.read(run)
        assert facts["sentence"] == evidence["sentence"] == findings.sentence == ImageClusterer.load(root).why_
        assert facts["clusters"] == evidence["quality"]["clusters"]
        return {
            "summary": [line for line in cluster_summary(run).splitlines() if "cluster" in line],
            "sentence": facts["sentence"],
            "unsure": facts["unsure"],
            "refitted": findings.is_refitted,
        }

    before = told()
    assert "by hand; made as 3 clusters" in before["sentence"]
    assert not before["refitted"]
    assert refit(corrected)["state"] == "done"
    assert told()["refitted"]
    assert edit(corrected, "undo").status_code == 200
    assert told() == before
    while corrected.get("/api/run").json()["can_undo"]:
        assert edit(corrected, "undo").status_code == 200
    assert told()["sentence"].startswith("3 clusters, as asked")


def test_edits_after_a_refit_and_a_second_one(corrected: TestClient) -> None:
    refit(corrected)
    names = {card["name"]: number for number, card in clusters(corrected).items()}
    image = members(corrected, names[None])[0]
    edit(corrected, "move", ids=[image], cluster=names["mine"])
    assert refit(corrected)["state"] == "done"
    names = {card["name"]: number for number, card in clusters(corrected).items()}
    assert image in members(corrected, names["mine"])
    for _ in range(7):  # four edits, a refit, an edit, a refit
        assert edit(corrected, "undo").status_code == 200
    assert {card["name"] for card in clusters(corrected).values()} == {None}
    assert not corrected.get("/api/run").json()["can_undo"]


def test_a_refit_takes_no_edit_for_applied_that_was_not_in_force(client: TestClient, root: Path) -> None:
    found = {number: members(client, number) for number in clusters(client)}
    strewn = [image for images in found.values() for image in images[:2]]
    line = {
        "n": 1,
        "op": "rename",
        "base": "0" * 16,
        "time": "2026-01-01T00:00:00+00:00",
        "clusters": [{"cluster": 0, "size": len(strewn), "ids": ranges_of(strewn)}],
        "name": "lost",
    }
    (root / "edits.jsonl").write_text(json.dumps(line) + "\n")
    edit(client, "move", ids=found[0][:1], cluster=1)
    assert refit(client)["state"] == "done"
    told = client.get("/api/edits").json()["edits"]
    assert [bool(one["conflict"]) for one in told] == [True, False, False]
    assert "after 1 correction by hand" in client.get("/api/run").json()["sentence"]


def test_a_refit_killed_before_its_line_is_in_the_log_has_it_all_the_same(corrected: TestClient, root: Path) -> None:
    """The new generation counts, and tells the line that edits.jsonl lacks: clusters, model and log go together."""
    assert refit(corrected)["state"] == "done"
    after, told = clusters(corrected), corrected.get("/api/edits").json()["edits"]
    model = corrected_model(RunDir.open(root), read_corrected(RunDir.open(root)))
    lines = (root / "edits.jsonl").read_bytes().splitlines(keepends=True)
    (root / "edits.jsonl").write_bytes(b"".join(lines[:-1]))
    again = open_page(root)
    assert clusters(again) == after
    assert again.get("/api/edits").json()["edits"] == told
    run = RunDir.open(root)
    same = corrected_model(run, read_corrected(run))
    assert (same.model.centroids == model.model.centroids).all()
    assert same.names == model.names
    edit(again, "rename", cluster=min(after), name="later")
    assert (root / "edits.jsonl").read_bytes().splitlines(keepends=True)[: len(lines)] == lines


def test_a_reader_of_before_a_refit_sees_nothing_of_it(corrected: TestClient, root: Path) -> None:
    run = RunDir.open(root)
    before = read_corrected(run)
    assert refit(corrected)["state"] == "done"
    after = read_corrected(run)
    assert (after.digest, after.version, after.base) == (before.digest, before.version, before.base)
    assert load_model(run.model).numbers.tolist() == load_model(before.source.model).numbers.tolist()


def test_a_run_that_is_taken_away_is_told(client: TestClient, root: Path) -> None:
    shutil.rmtree(root)
    for address in ("/api/run", "/api/clusters", "/api/images/1", "/api/evidence"):
        answer = client.get(address)
        assert answer.status_code in (400, 500)
        assert answer.json()["error"]
        assert answer.headers["x-frame-options"] == "DENY"


def test_a_refit_teaches_what_is_alike(client: TestClient, root: Path) -> None:
    """Half of a kind moved by hand out of a merged cluster brings most of the other half, and little else."""
    edit(client, "merge", clusters=[0, 1, 2])
    kinds = {image: client.get(f"/api/images/{image}").json()["path"].split("/")[0] for image in members(client, 0)}
    wanted = [image for image, kind in kinds.items() if kind == "kind1"]
    edit(client, "move", ids=wanted[::2], cluster=None, name="ones")
    assert refit(client)["state"] == "done"
    (ones,) = (number for number, card in clusters(client).items() if card["name"] == "ones")
    found = set(members(client, ones))
    assert len(found & set(wanted)) >= 0.75 * len(wanted)
    assert len(found - set(wanted)) <= 2


def test_without_corrections_there_is_nothing_to_apply(client: TestClient) -> None:
    edit(client, "rename", cluster=0, name="only a name")
    state = refit(client)
    assert state["state"] == "failed"
    assert "no corrections" in state["message"]


def test_a_refit_waits_for_nobody(client: TestClient, root: Path) -> None:
    edit(client, "merge", clusters=[0, 1])
    with RunDir(root).writing():
        state = refit(client)
    assert state["state"] == "failed"
    assert "being written by process" in state["message"]


def test_a_run_is_clustered_no_more_after_a_refit(corrected: TestClient, root: Path, finished: Path) -> None:
    refit(corrected)
    before = (root / "clusters.parquet").read_bytes()
    config = ClusterConfig((str(finished.parent / "pictures"),), clusters="3")
    pipeline.run(config, RunDir(root), pipeline.clustering_stages(open_source(config.source)), Progress())
    assert (root / "clusters.parquet").read_bytes() == before


# -- a model folder ----------------------------------------------------------------------------------------------------


def test_a_model_folder_is_there_to_be_tried(finished: Path, tmp_path: Path) -> None:
    client = open_page(Path(shutil.copytree(finished / "model", tmp_path / "model")))
    run = client.get("/api/run").json()
    assert (run["kind"], run["clusters"], run["images"]) == ("model", 3, 0)
    found = upload(client, (finished.parent / "pictures" / "kind0" / "1.png").read_bytes()).json()
    assert found["neighbours"] == []
    assert found["confidence"] > 0.5
    for address in ("/api/clusters", "/api/images/1", "/api/map", "/api/edits", "/api/evidence", "/api/find?words=dog"):
        assert client.get(address).status_code == 404


def test_a_server_for_others_answers_to_addresses_and_its_own_name() -> None:
    opened = Access("0.0.0.0", 8000)
    assert opened.knows_host("192.168.1.5")
    assert opened.knows_host(socket.gethostname().lower())
    assert not opened.knows_host("evil.example")
    assert not Access("127.0.0.1", 8000).knows_host("192.168.1.5")
    assert "token" not in repr(opened)
