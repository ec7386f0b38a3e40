"""The gate for bytes: what is refused before it is opened, where reading stops, and how often anything is fetched."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shoal.images.gate
from messy import encode, picture
from pictures import paint
from shoal import pipeline, records
from shoal.config import ClusterConfig
from shoal.errors import DecodeError, SourceError
from shoal.images import members, web
from shoal.images.gate import Gate, canonical
from shoal.images.reading import ImageReader
from shoal.images.sources import open_source
from shoal.images.tar import TarSource
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.spool import Spool
from web_server import Server, serving

JPEG = encode(picture(1), "JPEG")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


# -- what is refused before it is opened -----------------------------------------------------------------------------

REFUSED = [
    "reference://a.jpg::file:///tmp/x.json",
    "simplecache::https://example.org/a.jpg",
    "blockcache::s3://bucket/a.jpg",
    "filecache::memory://a.jpg",
    "github://owner:repository@main/a.jpg",
    "ftp://example.org/a.jpg",
    "sftp://example.org/a.jpg",
    "smb://host/share/a.jpg",
    "dask://worker/a.jpg",
    "dir::file:///tmp",
    "generic://a.jpg",
    "libarchive://a.jpg::file:///tmp/a.rar",
    "zip://a.jpg::zip://b.zip::file:///tmp/c.zip",
    "zip://a.jpg::reference://b::file:///tmp/x.json",
    "zip://a.jpg",
    "FILECACHE::memory://a.jpg",
    "javascript://x",
]


@pytest.mark.parametrize("uri", REFUSED)
def test_other_protocols_and_chains_are_refused_before_anything_is_opened(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object, **options: object) -> Any:
        raise AssertionError("something was opened")

    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path\n{uri}\n")
    (item,) = open_source((str(manifest),)).listed().items()
    monkeypatch.setattr(fsspec.core, "url_to_fs", opened)
    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(DecodeError, match="is not read"):
        Gate().read(uri)
    with pytest.raises(DecodeError, match="is not read"):
        ImageReader().read(item.uri)
    if "://" in uri:
        assert item.problem is not None
        with pytest.raises(SourceError, match="is not read"):
            open_source((uri,))


@pytest.mark.parametrize("prefix", ["file://", "local://", "file:", "FILE://", "Local://", "file://localhost"])
def test_a_local_file_is_looked_at_however_it_is_spelt(prefix: str, tmp_path: Path) -> None:
    image, pipe = tmp_path / "a.jpg", tmp_path / "pipe.jpg"
    image.write_bytes(JPEG)
    os.mkfifo(pipe)
    gate = Gate()
    assert gate.read(f"{prefix}{image}") == JPEG
    for path, reason in ((pipe, "FIFO"), (Path("/dev/zero"), "device"), (tmp_path, "a folder")):
        for read in (gate.read, gate.open, lambda uri: gate.read_range(uri, 0, 9)):
            with pytest.raises(DecodeError, match=reason):
                read(f"{prefix}{path}")
    (tmp_path / "list.csv").write_text(f"path\n{prefix}{pipe}\n{prefix}{image}\n" if "://" in prefix else "path\n")
    for item in open_source((str(tmp_path / "list.csv"),)).listed().items():
        assert item.uri in (pipe.as_uri(), image.as_uri())
        assert (item.problem or "").startswith("not a regular file (FIFO)") == (item.uri == pipe.as_uri())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.parquet", "a.csv", "a.txt", "a.jpg"])
def test_a_pipe_or_a_device_is_no_source_of_any_kind(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="FIFO"):
        list(open_source((str(tmp_path / name),)).listed().items())
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="device"):
        list(open_source((str(tmp_path / name),)).listed().items())


def test_one_spelling_of_a_uri() -> None:
    assert canonical("S3://Bucket/A.jpg") == "s3://Bucket/A.jpg"
    assert canonical("local:///a.jpg") == "file:///a.jpg"
    assert canonical("zip://a.jpg::/b c.zip") == "zip://a.jpg::file:///b%20c.zip"


# -- where reading stops ---------------------------------------------------------------------------------------------


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Connection", "close")
    request.end_headers()
    request.close_connection = True
    try:
        while True:
            request.wfile.write(bytes(1 << 16))
    except OSError:  # the reader has gone
        return


def test_reading_stops_at_the_cap(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LARGEST_FILE", 1 << 20)
    server.answers["/endless.jpg"] = endless
    server.answers["/large.jpg"] = bytes((1 << 20) + 1)
    for name in ("endless", "large"):
        with pytest.raises(DecodeError, match="too large"):
            Gate().read(f"{server.url}/{name}.jpg")


def test_a_member_of_an_archive_is_unpacked_up_to_the_cap(
    bucket: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shoal.images.gate, "LARGEST_FILE", 1 << 20)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(1 << 24))
        archive.writestr("a.jpg", JPEG)
    bucket.pipe("/a.zip", packed.getvalue())
    bucket.pipe("/large.jpg", bytes(1 << 24))
    gate = Gate()
    assert gate.read("zip://a.jpg::memory://a.zip") == JPEG
    for uri in ("zip://bomb.jpg::memory://a.zip", "memory://large.jpg"):
        with pytest.raises(DecodeError, match="too large"):
            gate.read(uri)


# -- where a web server may lead -------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as if it were another machine's, but for the name localhost."""
    monkeypatch.setattr(web, "is_own_address", lambda url: "//localhost" in url or "//169.254." in url)
    monkeypatch.setattr(web, "_require_elsewhere", lambda response: None)
    return server


def test_redirects_stay_among_web_servers(server: Server) -> None:
    server.answers["/a.jpg"] = JPEG
    assert Gate().read(server.redirect("/moved.jpg", "/a.jpg")) == JPEG
    for target in ("file:///etc/hostname", "ftp://example.org/a.jpg"):
        with pytest.raises(DecodeError, match=r"redirected to (file|ftp):, which is not followed"):
            Gate().read(server.redirect("/away.jpg", target))
    with pytest.raises(DecodeError, match="more than 10 redirects"):
        Gate().read(server.redirect("/round.jpg", "/round.jpg"))


def test_nothing_leads_to_this_machine(elsewhere: Server) -> None:
    elsewhere.answers["/secret"] = JPEG
    port = elsewhere.url.rpartition(":")[2]
    for target in (f"http://localhost:{port}/secret", "http://169.254.169.254/latest/meta-data/"):
        with pytest.raises(DecodeError, match="an address of this machine"):
            Gate().read(elsewhere.redirect("/a.jpg", target))
    assert elsewhere.asked["GET", "/secret"] == 0


def test_a_manifest_from_elsewhere_does_not_name_this_machine(
    bucket: fsspec.AbstractFileSystem, server: Server
) -> None:
    server.answers["/a.jpg"] = JPEG
    server.answers["/list.csv"] = f"path\n{server.url}/a.jpg\n".encode()
    bucket.pipe("/list.csv", server.answers["/list.csv"])
    (refused,) = open_source(("memory://list.csv",)).listed().items()
    assert refused.problem == "an address of this machine, in a manifest from elsewhere"
    (own,) = open_source((f"{server.url}/list.csv",)).listed().items()  # that manifest is this machine's own
    assert own.problem is None
    assert server.asked["GET", "/a.jpg"] == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "169.254.1.1"]
)
def test_own_addresses_are_known_by_every_name(host: str) -> None:
    assert web.is_own_address(f"http://{host}:8080/a.jpg")
    assert not web.is_own_address("http://192.0.2.7/a.jpg")
    assert not web.is_own_address("file:///a.jpg")


def test_answers_that_are_errors_have_reasons(server: Server) -> None:
    def forbidden(request: BaseHTTPRequestHandler) -> None:
        request.send_response(403)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def broken_off(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x")
        request.close_connection = True

    server.answers.update({"/forbidden": forbidden, "/broken": broken_off})
    for name, reason in (("forbidden", "HTTP 403"), ("broken", "cannot be read"), ("nothing", "gone")):
        with pytest.raises(DecodeError, match=reason):
            Gate().read(f"{server.url}/{name}")
    for uri in ("http://", "http://[::1", "https:///a.jpg", "http://exa mple.org/a.jpg"):
        with pytest.raises(DecodeError, match=r"not a possible URL|cannot be read"):
            Gate().read(uri)


# -- how often anything is fetched -----------------------------------------------------------------------------------


def index_page(names: list[str]) -> bytes:
    links = "".join(f'<a href="{name}">{name}</a>' for name in ["../", "?C=N;O=D", *names])
    return f"<html><body>{links}</body></html>".encode()


def test_a_web_folder_is_listed_once_and_each_image_fetched_once(server: Server, tmp_path: Path) -> None:
    images = sorted(paint(tmp_path / "photos", kinds=2, each=12).rglob("*.png"))
    kinds = sorted({path.parent.name for path in images})
    server.answers["/photos/"] = index_page([f"{kind}/" for kind in kinds])
    for kind in kinds:
        server.answers[f"/photos/{kind}/"] = index_page([path.name for path in images if path.parent.name == kind])
    for path in images:
        server.answers[f"/photos/{path.parent.name}/{path.name}"] = path.read_bytes()
    run = _clustered(f"{server.url}/photos/", tmp_path / "run")
    assert set(server.asked) == {("GET", path) for path in server.answers}
    assert set(server.asked.values()) == {1}
    table = run.read_images()
    assert table["status"].to_pylist() == [records.OK] * 24
    assert table["path"].to_pylist()[0] == f"{kinds[0]}/{images[0].name}"
    assert not list(run.cache.glob("tmp*"))


def test_a_bucket_is_listed_once_and_each_object_fetched_once(
    bucket: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted(paint(tmp_path / "photos", kinds=2, each=12).rglob("*.png"))
    for path in images:
        bucket.pipe(f"/photos/{path.parent.name}/{path.name}", path.read_bytes())
    fetched: list[str] = []
    listed: list[str] = []
    whole, find = type(bucket).cat_file, type(bucket).find
    monkeypatch.setattr(
        type(bucket), "cat_file", lambda self, path, **how: fetched.append(path) or whole(self, path, **how)
    )
    monkeypatch.setattr(type(bucket), "find", lambda self, path, **how: listed.append(path) or find(self, path, **how))
    _clustered("memory://photos", tmp_path / "run")
    assert len(listed) == 1
    assert sorted(fetched) == sorted(f"/photos/{path.parent.name}/{path.name}" for path in images)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "parquet", "zip"])
def test_an_archive_on_the_web_is_fetched_once(kind: str, server: Server, tmp_path: Path) -> None:
    images = sorted(paint(tmp_path / "photos", kinds=2, each=12).rglob("*.png"))
    packed = tmp_path / f"set.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"image": [path.read_bytes() for path in images]}), packed)
    elif kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for path in images:
                archive.write(path, f"{path.parent.name}/{path.name}")
    else:
        with tarfile.open(packed, "w:gz" if kind.endswith("gz") else "w") as tar:
            for path in images:
                tar.add(path, f"{path.parent.name}/{path.name}")
    server.answers[f"/set.{kind}"] = packed.read_bytes()
    url = f"{server.url}/set.{kind}"
    run = _clustered(f"zip://::{url}" if kind == "zip" else url, tmp_path / "run")
    assert run.read_images()["status"].to_pylist() == [records.OK] * 24
    gets = {path: count for (method, path), count in server.asked.items() if method == "GET"}
    assert gets == {f"/set.{kind}": 1}


def test_a_gzipped_tar_is_unpacked_once_by_many_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"{number}.jpg": JPEG + os.urandom(100_000) for number in range(64)}
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    times = itertools.count()
    unpack = members._unpack
    monkeypatch.setattr(members, "_unpack", lambda packed, target: (next(times), unpack(packed, target))[1])
    spool = Spool(tmp_path)
    shards = (((tmp_path / "set.tar.gz").as_uri(), ""),)
    items = list(TarSource("set", "set", shards, spool).listed().items())
    reader = ImageReader(spool)
    wrong: list[str] = []

    def read(start: int) -> None:
        wrong.extend(item.path for item in items[start::8] if reader.read(item.uri) != contents[item.path])

    threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, next(times)) == ([], 1)


# -- the spool -------------------------------------------------------------------------------------------------------


def test_what_has_no_room_is_fetched_again(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.answers.update({"/a.jpg": JPEG, "/b.jpg": JPEG})
    spool = Spool(most_bytes=len(JPEG))
    spool.settle(tmp_path)
    gate = Gate(spool)
    for _ in range(3):
        assert gate.read(f"{server.url}/a.jpg") == gate.read(f"{server.url}/b.jpg") == JPEG
    assert server.asked == {("GET", "/a.jpg"): 1, ("GET", "/b.jpg"): 3}
    assert caplog.text.count("has no more room for what is fetched") == 1


def test_an_archive_for_which_there_is_no_room_is_still_read(tmp_path: Path) -> None:
    contents = {f"{number}.jpg": JPEG + bytes([number]) for number in range(9)}
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    spool = Spool(tmp_path, most_bytes=100)
    reader = ImageReader(spool)
    source = TarSource("set", "set", (((tmp_path / "set.tar.gz").as_uri(), ""),), spool)
    found = {item.path: reader.read(item.uri) for item in source.listed().items()}
    assert found == contents


def test_nothing_is_left_of_a_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()  # made when it is needed
    spool.put("a", b"1")
    spool.put("b", b"22")
    file = spool.file("c", lambda target: target.write(b"333" * 1000) and None)
    assert (spool.get("a"), spool.get("b"), spool.get("c")) == (b"1", b"22", None)
    assert file is not None
    file.seek(2999)
    assert file.read(9) == b"3"
    assert os.name == "nt" or not list((tmp_path / "cache").iterdir())
    spool.close()
    assert not list((tmp_path / "cache").iterdir())


def _clustered(uri: str, root: Path) -> RunDir:
    config = ClusterConfig((uri,), clusters="2")
    stages = pipeline.clustering_stages(open_source(config.source))
    return pipeline.run(config, RunDir(root), stages, Progress(), pipeline.report_stages)
