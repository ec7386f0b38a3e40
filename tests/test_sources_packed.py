"""Sources that pack many images: Parquet rows, tar members, storage that fsspec reaches."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from messy import encode, picture
from shoal.errors import DecodeError, SourceError
from shoal.images import members, rows
from shoal.images.gate import Gate
from shoal.images.reading import ImageReader
from shoal.images.sources import Source, open_source
from shoal.spool import Spool


def jpeg(seed: int) -> bytes:
    return encode(picture(seed), "JPEG")


def contents(source: Source) -> dict[str, bytes]:
    reader = ImageReader()
    return {item.path: reader.read(item.uri) for item in source.listed().items()}


def open_path(*specs: str | Path) -> Source:
    return open_source(tuple(map(str, specs)))


# -- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_rows_with_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    images = [jpeg(number) for number in range(7)]
    columns = {
        "path": [f"c/{number}.jpg" for number in range(7)],
        "image": pa.array(images, kind),
        "label": ["cat", None, "dog", "cat", "dog", "cat", "dog"],
    }
    pq.write_table(pa.table(columns), tmp_path / "set.parquet", row_group_size=3)
    source = open_path(tmp_path / "set.parquet")
    assert contents(source) == dict(zip(columns["path"], images, strict=True))
    assert [item.label for item in source.listed().items()] == columns["label"]
    assert source.name == "set"


def test_rows_as_hugging_face_writes_them(tmp_path: Path) -> None:
    images = [jpeg(number) for number in range(3)]
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    structs = [{"bytes": data, "path": "same.jpg" if number else None} for number, data in enumerate(images)]
    pq.write_table(pa.table({"image": structs, "label": [0, 1, 1]}, schema=schema), tmp_path / "hf.parquet")
    source = open_path(tmp_path / "hf.parquet")
    assert contents(source) == {"00000000": images[0], "same.jpg": images[1], "same.jpg#2": images[2]}
    assert [item.label for item in source.listed().items()] == ["cat", "dog", "dog"]


def test_shards_in_a_folder_and_by_a_pattern(tmp_path: Path) -> None:
    for shard in range(2):
        table = pa.table({"image": [jpeg(10 * shard), jpeg(10 * shard + 1)]})
        pq.write_table(table, tmp_path / f"train-{shard}.parquet")
    (tmp_path / "README.md").write_text("about")
    wanted = {f"train-{shard}/0000000{row}": jpeg(10 * shard + row) for shard in range(2) for row in range(2)}
    for spec in (tmp_path, tmp_path / "*.parquet"):
        assert contents(open_path(spec)) == wanted
    both = open_path(tmp_path / "train-1.parquet", tmp_path / "train-0.parquet")
    assert list(contents(both)) == list(wanted)


def test_rows_without_bytes_have_a_reason(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([None, jpeg(1)], pa.binary())}), tmp_path / "set.parquet")
    first, second = open_path(tmp_path / "set.parquet").listed().items()
    with pytest.raises(DecodeError, match="no image bytes"):
        ImageReader().read(first.uri)
    assert ImageReader().read(second.uri) == jpeg(1)
    with pytest.raises(DecodeError, match="does not have this row"):
        ImageReader().read(second.uri.replace("row=1", "row=2"))
    (tmp_path / "set.parquet").unlink()
    with pytest.raises(DecodeError, match="gone"):
        ImageReader().read(first.uri)


def test_rows_are_read_in_any_order_with_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = [rng.bytes(2000) for _ in range(600)]
    for shard in range(6):
        part = values[100 * shard : 100 * shard + 100]
        pq.write_table(pa.table({"image": part}), tmp_path / f"{shard}.parquet", row_group_size=50, data_page_size=4096)
    monkeypatch.setattr(rows, "BATCH_BYTES", 16_000)
    monkeypatch.setattr(rows, "WINDOW_BYTES", 40_000)
    uris = [item.uri for item in open_path(tmp_path).listed().items()]
    reader = rows.RowReader(Gate())
    for number in [*range(600), *rng.permutation(600)]:
        base, _, row = uris[number].partition("#row=")
        assert reader.read(base, int(row)) == values[number]
        groups = list(reader._groups.values())
        assert len(groups) <= rows.OPEN_GROUPS
        assert all(group.window_bytes <= 40_000 + 8 * 2100 for group in groups)


# -- tar -------------------------------------------------------------------------------------------------------------


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


WEB_DATASET = {
    "a/0001.jpg": jpeg(1),
    "a/0001.cls": b"3\n",
    "a/0001.json": b"{}",
    "a/0002.left.png": encode(picture(2), "PNG"),
    "a/0002.txt": b"a long description of the second picture",
    "b/0001.jpg": jpeg(3),
    "b/0001.cls": b"5",
    "notes.md": b"notes",
}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_web_dataset(tmp_path: Path, ending: str) -> None:
    write_tar(tmp_path / f"set.{ending}", WEB_DATASET)
    source = open_path(tmp_path / f"set.{ending}")
    wanted = ["a/0001.jpg", "a/0002.left.png", "b/0001.jpg", "notes.md"]
    assert contents(source) == {name: WEB_DATASET[name] for name in wanted}
    assert [item.label for item in source.listed().items()] == ["3", None, "5", None]
    assert source.name == "set"


def test_texts_that_repeat_are_labels(tmp_path: Path) -> None:
    files = {}
    for number in range(6):
        files[f"{number}.jpg"] = jpeg(number)
        files[f"{number}.txt"] = b"cat" if number % 2 else b"dog"
    write_tar(tmp_path / "set.tar", files)
    assert [item.label for item in open_path(tmp_path / "set.tar").listed().items()] == ["dog", "cat"] * 3


def test_tar_shards(tmp_path: Path) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"s-{shard}.tar", {"0.jpg": jpeg(shard), "1.jpg": jpeg(shard + 10)})
    wanted = {"s-0/0.jpg": jpeg(0), "s-0/1.jpg": jpeg(10), "s-1/0.jpg": jpeg(1), "s-1/1.jpg": jpeg(11)}
    for spec in (tmp_path, tmp_path / "*.tar"):
        assert contents(open_path(spec)) == wanted
    pq.write_table(pa.table({"image": [jpeg(1)]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="mixes Parquet and tar"):
        open_path(tmp_path / "s-0.tar", tmp_path / "x.parquet")


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_tar_that_breaks_off_gives_what_came_before(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"set.{ending}"
    write_tar(path, {f"{number}.jpg": jpeg(number) + rng.bytes(3000) for number in range(9)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    items = list(open_path(path).listed().items())
    assert [item.path for item in items[:3]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert "breaks off" in (items[-1].problem or "")
    assert ImageReader().read(items[2].uri).startswith(jpeg(2))
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(SourceError, match="cannot be read as a tar file"):
        list(open_path(path).listed().items())


def test_members_that_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert [(item.path, item.problem) for item in open_path(tmp_path / "set.tar").listed().items()] == [
        ("link.jpg", "not a regular file in the tar")
    ]


def test_gzipped_members_in_any_order_with_a_bounded_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "WINDOW_BYTES", 20_000)
    monkeypatch.setattr(members, "CHUNK_BYTES", 1000)
    rng = np.random.default_rng(0)
    data = rng.bytes(200_000)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(data))
    uri = (tmp_path / "x.tar.gz").as_uri()
    gate = Gate(Spool(most_bytes=0))  # no room for what is in it
    reader = members.MemberReader(gate)
    for offset in [0, 5000, 2000, 90_000, 80_000, 500, 199_000, 150_000]:
        assert reader.read(uri, offset, 700) == data[offset : offset + 700]
        assert sum(map(len, reader._streams[uri]._chunks)) <= 20_000 + 1000 + 700
    assert reader.read(uri, 100, 60_000) == data[100:60_100]  # larger than the window
    with pytest.raises(DecodeError, match="ends within"):
        reader.read(uri, 199_900, 700)


# -- fsspec ----------------------------------------------------------------------------------------------------------


def test_a_remote_folder(bucket: fsspec.AbstractFileSystem) -> None:
    files = {
        "cat/1.jpg": jpeg(1),
        "dog/1.jpg": jpeg(2),
        "dog/#2 %.jpg": jpeg(3),
        ".hidden/3.jpg": b"",
        "cat/Thumbs.db": b"",
    }
    for name, data in files.items():
        bucket.pipe(f"/bucket/set/{name}", data)
    source = open_path("memory://bucket/set/")
    assert contents(source) == {name: files[name] for name in ("cat/1.jpg", "dog/#2 %.jpg", "dog/1.jpg")}
    assert [item.label for item in source.listed().items()] == ["cat", "dog", "dog"]
    assert all(item.size_bytes and item.mtime for item in source.listed().items())
    assert (source.identity, source.name) == (open_path("memory://bucket/set").identity, "set")


def test_remote_files_and_patterns(bucket: fsspec.AbstractFileSystem) -> None:
    for number in range(3):
        bucket.pipe(f"/bucket/set/{number}.jpg", jpeg(number))
    single = open_path("memory://bucket/set/1.jpg")
    assert (contents(single), single.name) == ({"1.jpg": jpeg(1)}, "1")
    pattern = open_path("memory://bucket/s*/*.jpg")
    assert contents(pattern) == {f"set/{number}.jpg": jpeg(number) for number in range(3)}
    several = open_path("memory://bucket/set/0.jpg", "memory://bucket/set/2.jpg")
    assert contents(several) == {"0.jpg": jpeg(0), "2.jpg": jpeg(2)}
    reader = ImageReader()
    bucket.rm("/bucket/set/1.jpg")
    with pytest.raises(DecodeError, match="gone"):
        reader.read("memory://bucket/set/1.jpg")


@pytest.mark.parametrize("inside", ["", "set", "set/*.jpg"])
def test_images_in_an_archive_that_lies_elsewhere(bucket: fsspec.AbstractFileSystem, inside: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(2):
            archive.writestr(f"set/{number}.jpg", jpeg(number))
    bucket.pipe("/bucket/a.zip", packed.getvalue())
    source = open_path(f"zip://{inside}::memory://bucket/a.zip")
    images = contents(source)
    assert list(images.values()) == [jpeg(0), jpeg(1)]
    assert {path.rpartition("/")[2] for path in images} == {"0.jpg", "1.jpg"}
    assert not any("::" in path for path in images)


def test_a_zip_is_a_source_wherever_it_lies(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    packed = tmp_path / "my photos #1.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("cat/1.jpg", "dog/1.jpg", "__MACOSX/cat/._1.jpg"):
            archive.writestr(name, jpeg(len(name)))
    bucket.pipe("/bucket/a.zip", packed.read_bytes())
    for source in (open_path(packed), open_path("memory://bucket/a.zip")):
        assert contents(source) == {"cat/1.jpg": jpeg(9), "dog/1.jpg": jpeg(9)}
        assert [item.label for item in source.listed().items()] == ["cat", "dog"]
    assert open_path(packed).name == "my photos #1"
    packed.write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(SourceError, match="not readable as a zip file"):
        open_path(packed)


def test_remote_tables_and_tars(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a", "b"], "image": [jpeg(1), jpeg(2)]}), tmp_path / "t.parquet")
    write_tar(tmp_path / "s.tar", {"x.jpg": jpeg(3)})
    bucket.pipe("/bucket/t.parquet", (tmp_path / "t.parquet").read_bytes())
    bucket.pipe("/shards/s.tar", (tmp_path / "s.tar").read_bytes())
    assert contents(open_path("memory://bucket/t.parquet")) == {"a": jpeg(1), "b": jpeg(2)}
    assert contents(open_path("memory://shards")) == {"s/x.jpg": jpeg(3)}
    assert contents(open_path("memory://shards/s.tar")) == {"x.jpg": jpeg(3)}


def test_remote_manifests(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    local = tmp_path / "here.jpg"
    local.write_bytes(jpeg(9))
    for number in range(3):
        bucket.pipe(f"/bucket/set/{number}.jpg", jpeg(number))
    written = ["0.jpg", "./../set/1.jpg", "memory://bucket/set/2.jpg", str(local), "gone.jpg"]
    bucket.pipe("/bucket/set/list.csv", ("label,path\n" + "".join(f"x,{line}\n" for line in written)).encode())
    bucket.pipe("/bucket/set/list.txt", "\n".join(written).encode())
    pq.write_table(pa.table({"uri": written}), tmp_path / "list.parquet")
    bucket.pipe("/bucket/set/list.parquet", (tmp_path / "list.parquet").read_bytes())
    for ending in ("csv", "txt", "parquet"):
        source = open_path(f"memory://bucket/set/list.{ending}")
        *there, gone = source.listed().items()
        reader = ImageReader()
        assert [reader.read(item.uri) for item in there] == [jpeg(0), jpeg(1), jpeg(2), jpeg(9)]
        assert [item.path for item in there[:3]] == ["0.jpg", "../set/1.jpg", "memory://bucket/set/2.jpg"]
        with pytest.raises(DecodeError, match="gone"):
            reader.read(gone.uri)
        assert {item.label for item in source.listed().items()} == {"x" if ending == "csv" else None}
    bucket.pipe("/bucket/set/bad.csv", b"n\n1\n")
    with pytest.raises(SourceError, match=r"bad.csv has the columns n; expected one called path"):
        list(open_path("memory://bucket/set/bad.csv").listed().items())


def test_remote_sources_that_are_refused(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="memory://bucket/nowhere does not exist"):
        open_path("memory://bucket/nowhere")
    with pytest.raises(SourceError, match="mixes memory://bucket/a with local files"):
        open_path("memory://bucket/a", tmp_path)


@pytest.mark.parametrize(("uri", "package"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, uri: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SourceError, match=rf"needs the package {package} \(pip install {package}\)"):
        open_path(uri)
