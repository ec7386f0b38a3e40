"""What people do with a finished run needs its source no more: each such command, with the source gone, from elsewhere.

The source was given as a relative path.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pictures import paint
from shoal import ImageClusterer
from shoal.browse.app import create_app
from shoal.browse.security import Access
from shoal.cli import main
from shoal.config import ClusterConfig
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append
from shoal.corrections.refit import refit
from shoal.progress import Progress
from shoal.report import build
from shoal.report import map as mapping
from shoal.rundir import RunDir, StageResult

Shoal = Callable[..., str]
TABLES = {
    "clusters.csv": ("csv",),
    "wide.csv": ("csv", "--layout", "wide"),
    "clusters.parquet": ("parquet",),
    "tasks.json": ("labelstudio",),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures/, the run of it, clustered from within that folder, and in before/ what was made of it."""
    base = tmp_path_factory.mktemp("moved")
    for file in paint(base / "pictures", each=10).rglob("*.png"):  # larger than any picture that is kept
        Image.open(file).resize((480, 400)).save(file)
    exports = [["export", "pictures.shoal", f"before/{name}", "--to", *how] for name, how in TABLES.items()]
    exports.append(["publish", "pictures.shoal", "--to", "before/model", "--with-images"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        for words in (["cluster", "pictures", "--clusters", "3"], *exports):
            with pytest.raises(SystemExit) as done:
                main(words)
            assert done.value.code in (0, None)
    return base


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """The run, its source gone, seen from a folder that has nothing to do with either."""
    shutil.copytree(finished / "pictures.shoal", tmp_path / "pictures.shoal", ignore=shutil.ignore_patterns("*lock"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (finished / "pictures").rename(finished / "aside")
    yield RunDir(Path("..") / "pictures.shoal")
    (finished / "aside").rename(finished / "pictures")


@pytest.fixture
def shoal(capsys: pytest.CaptureFixture[str]) -> Shoal:
    def command(*words: object) -> str:
        """Run a command in this process; what it printed."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert done.value.code in (0, None), said.err
        return said.out

    return command


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Pictures that the run has not seen."""
    return paint(tmp_path / "new", each=2, seed=5)


def test_new_images_are_assigned(run: RunDir, shoal: Shoal, new: Path) -> None:
    rows = list(csv.DictReader(shoal("assign", run.root, new).splitlines()))
    clusters = {kind: {row["cluster"] for row in rows if row["path"].startswith(kind)} for kind in ("kind0", "kind1")}
    assert len(rows) == 6
    assert len(clusters["kind0"]) == len(clusters["kind1"]) == 1
    assert clusters["kind0"] != clusters["kind1"]


def test_similar_images_are_found(run: RunDir, shoal: Shoal, new: Path) -> None:
    lines = shoal("similar", run.root, new / "kind2" / "0.png", "-n", 5).splitlines()
    assert len(lines) == 6
    assert all("kind2/" in line for line in lines[1:])


def test_clusters_are_evaluated_by_the_names_of_folders(run: RunDir, shoal: Shoal) -> None:
    found = json.loads(shoal("evaluate", run.root, "--labels", "folders", "--json"))
    assert (found["n"], found["acc"]) == (30, 1.0)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_exported(run: RunDir, shoal: Shoal, finished: Path, name: str) -> None:
    shoal("export", run.root, name, "--to", *TABLES[name])
    assert Path(name).read_bytes() == (finished / "before" / name).read_bytes()


def test_the_model_is_published_with_the_pictures_that_the_report_had(
    run: RunDir, shoal: Shoal, finished: Path
) -> None:
    said = shoal("publish", run.root, "--to", "model", "--with-images")
    assert "could not be had" not in said
    assert Path("model/prototypes.png").read_bytes() == (finished / "before" / "model" / "prototypes.png").read_bytes()


def report_again(run: RunDir) -> StageResult:
    config = ClusterConfig.from_json(run.read_state()["asked"])
    mapping.run(config, run, Progress())
    return build.run(config, run, Progress())


def test_map_and_report_are_made_again_with_their_pictures(run: RunDir) -> None:
    assert report_again(run).facts["missing_pictures"] == 0
    assert "could not be had" not in (run.report / "index.html").read_text(encoding="utf-8")


def test_after_a_refit_the_report_has_its_pictures_too(run: RunDir) -> None:
    corrected = read_corrected(run)
    ids = np.flatnonzero(corrected.cluster == 0)[:4].tolist()
    append(run, lambda log: changes.move(read_corrected(run), ids, 1))
    refit(run, 1, Progress())
    assert report_again(run).facts["missing_pictures"] == 0


def test_the_page_shows_everything_and_takes_corrections(run: RunDir) -> None:
    access = Access("127.0.0.1", 8000)
    app = create_app(run.root, access)
    client = TestClient(app, base_url="http://127.0.0.1:8000", headers={"x-shoal-token": access.token})
    for address in ("run", "clusters", "map", "evidence", "edits", "images/3", "clusters/0/images"):
        assert client.get(f"/api/{address}").status_code == 200, address
    for image in range(30):
        for size in (96, 192, 384):
            assert client.get(f"/api/images/{image}/thumb?size={size}").status_code == 200
    answer = client.get("/api/images/3/full")
    assert answer.status_code == 422
    assert "shoal relink pictures.shoal SOURCE" in answer.json()["error"]
    seen = client.get("/api/run").json()
    edit = {"op": "merge", "clusters": [0, 1], "base": seen["base"], "base_version": seen["version"]}
    assert client.post("/api/edits", json=edit).status_code == 200
    assert len(client.get("/api/clusters").json()["clusters"]) == 2


def test_python_opens_it_and_predicts(run: RunDir, new: Path) -> None:
    clusterer = ImageClusterer.load(run.root)
    assert len(clusterer.clusters_) == 30
    assert len(clusterer.predict(new)) == 6
    assert len(clusterer.similar(new / "kind0" / "0.png", 3)) == 3
