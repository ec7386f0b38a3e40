"""Where a source is now: beside a run that was moved with it, or where a person says, after a look."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shoal.embed.stage
from pictures import paint
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.errors import RunError, SourceError
from shoal.images.location import file_uri
from shoal.images.reading import ImageReader
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.relink import relink
from shoal.rundir import RunDir, digest_bytes

KINDS, EACH = 3, 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, and a run of it beside."""
    home = tmp_path_factory.mktemp("home")
    paint(home / "pictures", each=EACH)
    cluster(home)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """The same, moved together to another place."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def cluster(home: Path, source: str = "pictures") -> RunDir:
    config = ClusterConfig((str(home / source),), clusters="3")
    return pipeline.run(
        config, RunDir(home / "run.shoal"), pipeline.clustering_stages(open_source(config.source)), Progress()
    )


def contents(root: Path) -> list[bytes]:
    """Bytes of all images of a run, read by where the run says they are."""
    reader = ImageReader()
    return [reader.read(uri) for uri in RunDir.open(root).read_images()["uri"].to_pylist()]


def test_a_run_moved_with_its_source_finds_it(made: Path, home: Path, tmp_path: Path) -> None:
    shutil.move(made / "pictures", tmp_path / "away")
    try:
        expected = RunDir.open(home / "run.shoal").read_images()["sha256"].to_pylist()
        assert [digest_bytes(data) for data in contents(home / "run.shoal")] == expected
        shutil.rmtree(home / "pictures")  # nothing there: the run says where it was
        uris = RunDir.open(home / "run.shoal").read_images()["uri"].to_pylist()
        assert uris[0].startswith(file_uri(str(made)))
    finally:
        shutil.move(tmp_path / "away", made / "pictures")


def test_the_same_command_goes_on_where_both_were_moved(
    made: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shoal.embed.batches, "_embed", lambda *given: pytest.fail("it is embedded already"))
    shutil.move(made / "pictures", tmp_path / "away")
    try:
        before = (home / "run.shoal" / "clusters.parquet").read_bytes()
        run = cluster(home)
        assert run.clusters.read_bytes() == before
        assert run.read_state()["source"]["folder"] == str(home / "pictures")
        assert all(uri.startswith(file_uri(str(home))) for uri in run.read_images()["uri"].to_pylist())
    finally:
        shutil.move(tmp_path / "away", made / "pictures")


def test_a_source_is_where_it_is_said_to_be(home: Path) -> None:
    root = home / "run.shoal"
    shutil.move(home / "pictures", home / "moved")
    before = {name: (root / name).read_bytes() for name in ("clusters.parquet", "choose_k.parquet")}
    with pytest.raises(RunError, match=r"expected the same source.*: shoal relink .*run\.shoal .*moved\)"):
        cluster(home, "moved")
    found, source = relink(root, (str(home / "moved"),), Progress())
    assert (found.images, found.found) == (KINDS * EACH, KINDS * EACH)
    assert found.summary(root, source).startswith(f"{root}: 18 of 18 images found in {home / 'moved'}")
    run = RunDir.open(root)
    assert [digest_bytes(data) for data in contents(root)] == run.read_images()["sha256"].to_pylist()
    assert run.read_listing()["uri"].equals(run.read_images()["uri"])
    assert {name: (root / name).read_bytes() for name in before} == before
    assert pq.read_table(root / "images.parquet")["uri"].to_pylist() == run.read_images()["uri"].to_pylist()
    assert cluster(home, "moved").clusters.read_bytes() == before["clusters.parquet"]


def test_what_is_missing_in_the_new_place_is_told_and_keeps_its_place(home: Path) -> None:
    shutil.move(home / "pictures", home / "moved")
    (home / "moved" / "kind0" / "0.png").unlink()
    found, source = relink(home / "run.shoal", (str(home / "moved"),), Progress())
    assert found.summary(home / "run.shoal", source).endswith("; 1 is not there")
    uris = RunDir.open(home / "run.shoal").read_images()["uri"].to_pylist()
    assert sum("/moved/" in uri for uri in uris) == KINDS * EACH - 1


@pytest.mark.parametrize("fault", ["another image", "another size", "few", "none", "no folder"])
def test_another_place_is_refused_and_nothing_changes(home: Path, fault: str) -> None:
    root, moved = home / "run.shoal", home / "moved"
    shutil.copytree(home / "pictures", moved)
    first = moved / "kind0" / "0.png"
    match fault:
        case "another image":
            data = bytearray(first.read_bytes())
            data[-20] ^= 1
            first.write_bytes(data)
        case "another size":
            first.write_bytes(first.read_bytes() + b"x")
        case "few":
            for kind in ("kind0", "kind1"):
                shutil.rmtree(moved / kind)
        case "none":
            shutil.rmtree(moved)
            paint(moved / "other", each=2)
        case _:
            shutil.rmtree(moved)
    before = (root / "images.parquet").read_bytes(), (root / "run.json").read_bytes()
    with pytest.raises(SourceError, match=r"does not exist|is not where the images are now: "):
        relink(root, (str(moved),), Progress())
    assert ((root / "images.parquet").read_bytes(), (root / "run.json").read_bytes()) == before


def test_a_table_that_was_moved(home: Path) -> None:
    files = sorted((home / "pictures").rglob("*.png"))
    table = pa.table(
        {"path": [file.name + file.parent.name for file in files], "image": [f.read_bytes() for f in files]}
    )
    (home / "tables").mkdir()
    pq.write_table(table, home / "tables" / "set.parquet")
    shutil.rmtree(home / "run.shoal")
    cluster(home, "tables/set.parquet")
    shutil.move(home / "tables", home / "elsewhere")
    found, _ = relink(home / "run.shoal", (str(home / "elsewhere" / "set.parquet"),), Progress())
    assert found.found == len(files)
    assert contents(home / "run.shoal") == [file.read_bytes() for file in files]


def test_a_run_without_clusters_has_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a Shoal run"):
        relink(tmp_path, ("pictures",), Progress())
