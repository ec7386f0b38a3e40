"""A small finished run of real files, for tests of what is made of one."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pyarrow as pa
from PIL import Image

from shoal import records
from shoal.export import JOURNAL_NAME
from shoal.export.placement import own_file
from shoal.export.record import RECORD_NAME
from shoal.export.transfer import rename_into_place
from shoal.images.location import file_uri
from shoal.rundir import RunDir
from shoal.runfiles import FORMAT_VERSION, write_run_json

# path -> cluster; "b/x.png" has the bytes of "a/x.png"
FILES = {"a/x.png": 0, "a/y.png": 2, "b/X.PNG": 0, "b/x.png": 0, 'c/=1+1,"ä".png': 2, "top.png": 11}


def make_source(folder: Path) -> Path:
    """The files of FILES, each a picture of its own but for the copy."""
    for number, path in enumerate(FILES):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number * 20, 0, 0)).save(file, "PNG")
        os.utime(file, ns=(10**18 + number, 10**18 + number))
    (folder / "b/x.png").write_bytes((folder / "a/x.png").read_bytes())
    return folder


def make_run(root: Path, source: Path) -> RunDir:
    """A finished run of `make_source`."""
    return write_run(root, [(path, uri_of(source / path), cluster) for path, cluster in FILES.items()])


def uri_of(path: Path) -> str:
    return file_uri(str(path))


def write_run(root: Path, images: list[tuple[str, str, int]]) -> RunDir:
    """A finished run of (path, uri, cluster); images of equal bytes are duplicates of the first of them."""
    run_dir = RunDir(root)
    numbers = range(len(images))
    paths = [path for path, _, _ in images]
    data = [local.read_bytes() if (local := own_file(uri)) else f"bytes of {uri}".encode() for _, uri, _ in images]
    digests = [hashlib.sha256(content).hexdigest() for content in data]
    originals = [digests.index(digest) for digest in digests]
    is_copy = [original != number for number, original in zip(numbers, originals, strict=True)]
    columns = {
        "id": list(numbers),
        "path": paths,
        "uri": [uri for _, uri, _ in images],
        "size_bytes": [len(content) for content in data],
        "mtime": [10**9 + number for number in numbers],
        "sha256": digests,
        "width": [4 for _ in numbers],
        "height": [3 for _ in numbers],
        "status": [records.DUPLICATE if copy else records.OK for copy in is_copy],
        "reason": [None for _ in numbers],
        "duplicate_of": [original if copy else None for original, copy in zip(originals, is_copy, strict=True)],
    }
    records.write_table(run_dir.images, pa.table(columns, schema=records.IMAGES))
    clusters = {
        "id": list(numbers),
        "path": paths,
        "cluster": [cluster for _, _, cluster in images],
        "confidence": [0.1 * number for number in numbers],
        "unsure": [number == 1 for number in numbers],
        "silhouette": [0.3 - 0.1 * number for number in numbers],
        "runner_up": [None if number == 1 else 2 for number in numbers],
    }
    records.write_table(run_dir.clusters, pa.table(clusters, schema=records.CLUSTERS))
    write_run_json(run_dir.root, {"format_version": FORMAT_VERSION, "stages": {}})
    return run_dir


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder and its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# a/x keeps its name; b/X.PNG and b/x.png would be the same file on macOS and Windows
EXPECTED = {
    "cluster_000/x.png": "a/x.png",
    "cluster_000/X-2.PNG": "b/X.PNG",
    "cluster_000/x-3.png": "b/x.png",
    "cluster_002/y.png": "a/y.png",
    "cluster_002/=1+1,_ä_.png": 'c/=1+1,"ä".png',
    "cluster_011/top.png": "top.png",
}


def expected_tree(before: dict[str, bytes]) -> dict[str, bytes]:
    return {target: before[path] for target, path in sorted(EXPECTED.items())}


def images_in(folder: Path) -> dict[str, bytes]:
    """What lies in an export, without what Shoal writes down about it."""
    return {path: data for path, data in tree(folder).items() if path not in (JOURNAL_NAME, RECORD_NAME)}


def crossing(source: Path, target: Path) -> None:
    """A rename as between two disks: only what lies beside its target can be renamed."""
    if source.parent != target.parent:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
    rename_into_place(source, target)
