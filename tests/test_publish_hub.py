"""Publishing to the Hub and opening from it: huggingface_hub itself talks to a stand-in of the Hub's HTTP API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_stand_in import Hub, point_at, serving
from patience import PATIENCE
from pictures import paint
from shoal import ImageClusterer, cache, pipeline
from shoal.cli import main
from shoal.config import ClusterConfig
from shoal.errors import RequestError, RunError, WorkError
from shoal.hub import is_on_hub, model_place, repository
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.publish.publish import publish
from shoal.rundir import RunDir

NAME = "hf://me/shapes"

# Said of huggingface_hub's own upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("hub") / "pictures")


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run_dir = RunDir(tmp_path_factory.mktemp("runs") / "run.shoal")
    pipeline.run(
        ClusterConfig((str(source),), clusters="3"),
        run_dir,
        pipeline.clustering_stages(open_source((str(source),))),
        Progress(),
    )
    return run_dir


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub of its own, as HF_ENDPOINT, HF_HOME and HF_HUB_DISABLE_XET would name it before the client is imported."""
    with serving(Hub()) as served:
        point_at(served.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in ("HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        yield served


# -- there and back ----------------------------------------------------------------------------------------------------


def test_a_model_goes_there_private_and_comes_back_the_same(
    hub: Hub, run: RunDir, source: Path, tmp_path: Path
) -> None:
    done = publish(run, NAME)
    publish(run, tmp_path / "shapes")
    repo = hub.repos["me/shapes"]
    assert repo.private
    assert len(repo.commits) == 2  # the Hub's own, and one of ours
    ours = {path.name: path.read_bytes() for path in (tmp_path / "shapes").iterdir()}
    assert set(repo.files) == {*ours, ".gitattributes"}
    assert {name for name in ours if repo.files[name] != ours[name]} == {"README.md", "publication.json"}  # the address
    assert {len(data) for data in hub.large.values()} >= {len(ours["encoder.safetensors"])}
    assert NAME in repo.files["README.md"].decode()
    assert done.address == NAME
    assert "private" in done.summary()
    expected = ImageClusterer.load(run.root).predict(source)
    assert ImageClusterer.load(NAME).predict(source).equals(expected)


def test_only_what_opening_needs_is_fetched_and_only_once(hub: Hub, run: RunDir) -> None:
    publish(run, NAME, with_images=True)
    before = len(hub.requests)
    folder = model_place(NAME)
    fetched = {
        line.rsplit("/", 1)[1] for line in hub.requests[before:] if line.startswith("GET") and "/resolve/" in line
    }
    assert "prototypes.png" not in fetched | {path.name for path in folder.iterdir()}
    before = len(hub.requests)
    assert model_place(NAME) == folder
    assert not [line for line in hub.requests[before:] if line.startswith("GET") and "/cdn/" in line]


def test_what_was_fetched_serves_without_the_hub(hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run, NAME)
    folder = model_place(NAME)
    point_at("http://127.0.0.1:9", monkeypatch)
    assert model_place(NAME) == folder


def test_a_cache_that_cannot_be_written_is_replaced(
    hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.setattr(cache, "_stand_in", cache._StandIn())
    publish(run, NAME)
    publish(run, NAME)  # which looks at what is there
    folder = model_place(NAME)
    assert (folder / "config.json").is_file()
    (told,) = [record.getMessage() for record in caplog.records if record.name == "shoal.cache"]
    assert told.startswith(f"{tmp_path}/file/hub cannot be written (")
    assert "HF_HOME" in told


def test_published_again_it_is_one_more_commit_without_what_is_no_longer_in_it(hub: Hub, run: RunDir) -> None:
    publish(run, NAME, with_images=True)
    repo = hub.repos["me/shapes"]
    repo.commit({**repo.files, "usage.md": b"theirs"}, "notes")
    publish(run, NAME)
    assert len(repo.commits) == 4
    assert "prototypes.png" not in repo.files
    assert repo.files["usage.md"] == b"theirs"
    before = len(repo.commits)
    publish(run, NAME)  # nothing has changed
    assert len(repo.commits) == before


def test_an_empty_repository_is_filled(hub: Hub, run: RunDir) -> None:
    hub.create("me/shapes", private=True)
    publish(run, NAME)
    assert "config.json" in hub.repos["me/shapes"].files


def test_public_is_asked_for(hub: Hub, run: RunDir) -> None:
    done = publish(run, NAME, public=True)
    assert not hub.repos["me/shapes"].private
    assert "public" in done.summary()


# -- what it refuses ---------------------------------------------------------------------------------------------------


def refused(hub: Hub, run: RunDir, match: str, error: type[Exception] = RequestError, **options: bool) -> None:
    before = {name: list(repo.commits) for name, repo in hub.repos.items()}
    with pytest.raises(error, match=match) as raised:
        publish(run, NAME, **options)
    assert "\n" not in str(raised.value)
    assert {name: list(repo.commits) for name, repo in hub.repos.items()} == before


def test_somebody_elses_model_under_the_name_stays(hub: Hub, run: RunDir) -> None:
    repo = hub.create("me/shapes", private=True)
    repo.commit({**repo.files, "model.safetensors": b"theirs"}, "theirs")
    refused(hub, run, "hf://me/shapes exists already and was not published by Shoal")
    repo.commit({**repo.files, "publication.json": b"{}"}, "theirs too")
    refused(hub, run, "was not published by Shoal")


def test_a_card_that_was_edited_there_stays(hub: Hub, run: RunDir) -> None:
    publish(run, NAME)
    repo = hub.repos["me/shapes"]
    repo.commit({**repo.files, "README.md": b"# Better"}, "better")
    refused(hub, run, "the card of hf://me/shapes was edited there")


@pytest.mark.parametrize("first", [True, False])
def test_who_may_see_it_does_not_change_unnoticed(first: bool, hub: Hub, run: RunDir) -> None:
    publish(run, NAME, public=first)
    words = "is public, not private; add --public" if first else "is private, not public; choose another name"
    refused(hub, run, words, public=not first)


def test_somebody_who_changes_it_at_the_same_time_wins(hub: Hub, run: RunDir) -> None:
    publish(run, NAME)
    repo = hub.repos["me/shapes"]
    hub.before_commit = lambda: repo.commit({**repo.files, "usage.md": b"theirs"}, "theirs")
    with pytest.raises(WorkError, match="A commit has happened since"):
        publish(run, NAME, with_images=True)
    assert repo.messages[-1] == "theirs"


def test_no_token_a_wrong_one_and_another_owners(hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    refused(hub, run, "needs a token of yours: log in with `hf auth login`, or set HF_TOKEN")
    assert hub.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(hub, run, "the Hub does not know your token")
    hub.owners["hf_theirs"] = "them"
    monkeypatch.setenv("HF_TOKEN", "hf_theirs")
    refused(hub, run, "your token may not write hf://me/shapes")


def test_metadata_that_the_hub_does_not_take(hub: Hub, run: RunDir) -> None:
    with pytest.raises(WorkError, match=r'the Hub does not take hf://me/shapes: .*"license" must be one of') as raised:
        publish(run, NAME, license="bsd")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("place", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_no_network(place: str, hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(place, monkeypatch)
    for use in (lambda: publish(run, NAME), lambda: ImageClusterer.load(NAME)):
        with pytest.raises(
            WorkError, match=r"hf://me/shapes could not be reached at http://.*is there a network"
        ) as told:
            use()
        assert "\n" not in str(told.value)
        assert "Errno" not in str(told.value)


def test_offline_by_wish(hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WorkError, match="while HF_HUB_OFFLINE is set"):
        ImageClusterer.load(NAME)


@pytest.mark.parametrize(
    "address", ["hf://shapes", "hf://me/shapes/main", "hf://me/sha pes", "hf://me/shapes..git", "hf://", "hf://me/-x"]
)
def test_names_that_cannot_be(address: str, run: RunDir) -> None:
    for use in (lambda: publish(run, address), lambda: ImageClusterer.load(address)):
        with pytest.raises(RequestError, match=r"is no name of a model on the Hub.*expected hf://OWNER/NAME"):
            use()


def test_an_address_that_was_made_a_path_is_still_one() -> None:
    assert is_on_hub(Path(NAME))
    assert repository(Path(NAME)) == "me/shapes"
    assert not is_on_hub("hf-models/me")


def test_there_is_no_such_model_or_it_is_another_kind(hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="there is no model hf://me/shapes"):
        ImageClusterer.load(NAME)
    publish(run, NAME)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RequestError, match="or it is private and not yours: log in"):
        ImageClusterer.load(NAME)
    repo = hub.create("them/bert", private=False)
    repo.commit({**repo.files, "config.json": b"{}", "model.safetensors": b"large"}, "theirs")
    before = len(hub.requests)
    with pytest.raises(RunError, match="hf://them/bert holds no model of Shoal's"):
        ImageClusterer.load("hf://them/bert")
    assert not [line for line in hub.requests[before:] if "model.safetensors" in line]  # it may be large


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_commands_speak_to_hf_endpoint(hub: Hub, run: RunDir, source: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_mine",
    }

    def shoal(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shoal", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)

    done = shoal("publish", run.root, "--to", NAME, "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAME}: 8 files")
    done = shoal("assign", NAME, source, "--cluster", 0)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9
    assert "Traceback" not in done.stderr


def test_wrong_requests_end_with_2_and_a_hub_out_of_reach_with_1(
    hub: Hub, run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def code(*words: object) -> int:
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in words])
        assert capsys.readouterr().err.count("shoal: ") == 1
        return int(done.value.code or 0)

    assert code("publish", run.root, "--to", "hf://shapes") == 2
    assert code("assign", NAME, ".") == 2
    assert code("browse", NAME) == 2
    point_at("http://127.0.0.1:9", monkeypatch)
    assert code("publish", run.root, "--to", NAME) == 1
