"""`shoal undo`: what it puts back, and that no journal makes it touch anything else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kills import count_writes, kill
from shoal.cli import main
from shoal.errors import RequestError, RunLockedError
from shoal.export import JOURNAL_NAME, export, undo
from shoal.export.journal import Journal, Move
from shoal.export.names import safe_name
from shoal.export.record import RECORD_NAME
from shoal.export.seal import key_file, own_key
from shoal.export.transfer import Place, rename_into_place
from shoal.lock import alone
from shoal.rundir import RunDir
from small_export import FILES, crossing, expected_tree, images_in, make_run, make_source, tree

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def run(tmp_path: Path, source: Path) -> RunDir:
    return make_run(tmp_path / "run", source)


@pytest.fixture
def moved(run: RunDir, tmp_path: Path) -> Path:
    """An export by moving."""
    export(run, "folders", tmp_path / "out", mode="move")
    return tmp_path / "out"


def plant(dest: Path, *lines: object, targets: tuple[str, ...] = ("c/x.png",)) -> Path:
    """A folder as somebody may hand it over: files that say hello, and a journal of any lines."""
    for target in targets:
        (dest / target).parent.mkdir(parents=True, exist_ok=True)
        (dest / target).write_bytes(b"hello")
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (dest / JOURNAL_NAME).write_bytes(b"".join(text + b"\n" for text in texts))
    return dest


def line(source: object, target: object = "c/x.png", **others: Any) -> dict[str, Any]:
    return {"source": str(source), "target": target, "size": 5, "sha256": HELLO, **others}


# -- the journal as a file ---------------------------------------------------------------------------------------------

PATHS = st.text(st.characters(codec=None, exclude_characters="\0/"), min_size=1).filter(lambda name: name not in "..")
MOVES = st.builds(
    Move,
    PATHS.map(lambda name: f"/{name}"),
    st.builds(lambda folder, name: f"{safe_name(folder)}/{safe_name(name)}", PATHS, PATHS),
    st.integers(0, 2**50),
    st.binary(max_size=3).map(lambda data: hashlib.sha256(data).hexdigest()),
)


@pytest.mark.skipif(os.name == "nt", reason="a path that begins with / is not absolute there")
@settings(max_examples=40, deadline=None)
@given(
    moves=st.lists(MOVES, max_size=5, unique_by=(lambda move: move.source, lambda move: move.target)),
    torn=st.integers(0, 30),
)
def test_a_round_trip_with_a_torn_last_line(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Move], torn: int
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / JOURNAL_NAME)
    journal.append(moves)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"source": "/a/b/c", "target": "d"}'[:torn])
    assert journal.read() == moves
    journal.append(moves)
    assert journal.path.read_bytes() == whole * 2
    assert journal.read() == moves


@given(move=MOVES, key=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32))
def test_a_seal_is_of_one_key_and_one_move(move: Move, key: bytes, other: bytes) -> None:
    sealed = Move.sealed(key, move.source, move.target, move.size, move.sha256)
    assert sealed.is_sealed_by(key)
    assert sealed.is_sealed_by(other) == (key == other)
    assert not sealed.is_sealed_by(None)
    for change in (
        Move(move.source + "x", move.target, move.size, move.sha256, sealed.seal),
        Move(move.source, move.target + "x", move.size, move.sha256, sealed.seal),
        Move(move.source, move.target, move.size + 1, move.sha256, sealed.seal),
        Move(move.source, move.target, move.size, HELLO, sealed.seal),
        Move(move.source, move.target, move.size, move.sha256),
    ):
        assert not change.is_sealed_by(key)


def test_the_key_is_its_owners_alone_and_stays(run: RunDir, moved: Path) -> None:
    key = own_key()
    assert key is not None
    assert key == own_key() == key_file().read_bytes()
    assert os.name == "nt" or key_file().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file().parent.iterdir()] == ["seal.key"]


# -- journals that nobody here wrote -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [{}, {"seal": None}, {"seal": "0" * 64}])
def test_a_planted_journal_writes_nothing(
    tmp_path: Path, sealed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    dest = plant(tmp_path / "downloaded", line(home / ".bash_aliases", **sealed))
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["undo", str(dest)])
    said = capsys.readouterr().err.splitlines()
    assert done.value.code == 2
    assert len(said) == 1
    assert f"{JOURNAL_NAME}, line 1: it was not written by your own Shoal here" in said[0]
    assert "--source FOLDER" in said[0]
    assert tree(tmp_path) == before


def test_with_consent_files_go_into_that_folder_and_nowhere_else(tmp_path: Path) -> None:
    photos, home = tmp_path / "photos", tmp_path / "home"
    home.mkdir()
    good, bad = line(photos / "sub" / "x.png"), line(home / ".bash_aliases", "c/y.png")
    dest = plant(tmp_path / "downloaded", good, bad, targets=("c/x.png", "c/y.png"))
    before = tree(tmp_path)
    with pytest.raises(RequestError, match=r"line 2: .*bash_aliases lies outside of --source"):
        undo(dest, source=photos)
    assert tree(tmp_path) == before
    plant(dest, good)
    assert undo(dest, source=photos).restored == 1
    assert tree(photos) == {"sub/x.png": b"hello"}
    assert tree(dest) == {"c/y.png": b"hello"}


@pytest.mark.parametrize(
    "spoilt",
    [
        {"source": "relative/x.png"},
        {"source": "SOURCE/../home/x.png"},
        {"source": "SOURCE/./x.png"},
        {"source": "SOURCE/x\0.png"},
        {"source": 7},
        {"source": None},
        {"target": "../home/secret.txt"},
        {"target": "c/../../home/secret.txt"},
        {"target": "/etc/passwd"},
        {"target": ".."},
        {"target": "x.png"},
        {"target": "a/b/x.png"},
        {"target": "c\\x.png"},
        {"target": "C:/x.png"},
        {"target": "c/"},
        {"target": ["c", "x.png"]},
        {"size": -1},
        {"size": "5"},
        {"size": True},
        {"size": 5.0},
        {"sha256": "0" * 63},
        {"sha256": None},
        {"seal": "no"},
        {"more": 1},
        {"target": "c/y.png"},  # of a source that has another one already
        {"source": "SOURCE/other.png"},  # for a target that is another's already
    ],
)
def test_one_bad_line_among_good_ones_and_nothing_is_touched(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    photos = tmp_path / "photos"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret.txt").write_text("secret")
    value = spoilt.get("source")
    if isinstance(value, str):
        spoilt = {"source": value.replace("SOURCE", str(photos))}
    lines = line(photos / "x.png"), {**line(photos / "x.png"), **spoilt}
    dest = plant(tmp_path / "out", *lines, line(photos / "z.png", "c/z.png"), targets=("c/x.png", "c/y.png", "c/z.png"))
    before = tree(tmp_path)
    with pytest.raises(RequestError, match=r"line 2, is not a line of a Shoal move journal: .*; nothing was touched"):
        undo(dest, source=photos)
    assert tree(tmp_path) == before
    assert not photos.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b'{"source": 1}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 100_000,
        b"1" * 60_000 + b"\n",
    ],
)
def test_a_file_that_is_no_journal(tmp_path: Path, data: bytes) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(data)
    with pytest.raises(RequestError, match="line 1, is not a line of a Shoal move journal"):
        undo(tmp_path)
    with pytest.raises(RequestError, match="is not there"):
        undo(tmp_path / "elsewhere")


def test_a_journal_of_a_terabyte_is_no_more_work_than_its_first_line(tmp_path: Path) -> None:
    with (tmp_path / JOURNAL_NAME).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RequestError, match="line 1, is not a line of a Shoal move journal: it has over 65,536 bytes"):
        undo(tmp_path)


def test_what_a_journal_says_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    for bad in (line("\x1b]0;owned\x07/x.png"), line("/x.png", "c/\x1b[2J")):
        with pytest.raises(RequestError) as caught:
            undo(plant(tmp_path / "out", bad))
        assert str(caught.value).isprintable()
    dest = plant(tmp_path / "out", line(tmp_path / "photos" / "\x1b[2J.png"), targets=())
    shutil.rmtree(dest / "c")
    assert "\x1b" not in undo(dest, source=tmp_path / "photos").summary()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_journal_that_is_a_pipe_a_link_or_a_folder_is_not_read(tmp_path: Path) -> None:
    makes: list[Callable[[Path], object]] = [
        os.mkfifo,
        lambda path: path.symlink_to(tmp_path / "elsewhere"),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
    ]
    (tmp_path / "elsewhere").write_text("")
    for number, make in enumerate(makes):
        dest = tmp_path / str(number)
        dest.mkdir()
        make(dest / JOURNAL_NAME)
        with pytest.raises(RequestError, match="is no regular file"):
            undo(dest)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_lead_nowhere_out(tmp_path: Path) -> None:
    photos, home = tmp_path / "photos", tmp_path / "home"
    for folder in (photos, home):
        folder.mkdir()
    (home / "x.png").write_bytes(b"hello")
    out = tmp_path / "out"
    out.mkdir()
    (out / "c").symlink_to(home)
    dest = plant(out, line(photos / "x.png"), targets=())
    (photos / "inside").symlink_to(home)
    (photos / "circle").symlink_to(photos / "circle")
    (photos / "soon").symlink_to(home / "not-yet")
    with pytest.raises(RequestError, match="is a link that leads out of"):
        undo(dest, source=photos)
    (out / "c").unlink()
    for folder in ("inside", "circle", "soon"):
        plant(dest, line(photos / folder / "y.png"))
        with pytest.raises(RequestError, match="lies outside of --source"):
            undo(dest, source=photos)
    assert tree(home) == {"x.png": b"hello"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_only_plain_files_are_put_back(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"hello")
    photos, dest = tmp_path / "photos", tmp_path / "out"
    names = ("link.png", "pipe.png", "folder.png")
    plant(dest, *(line(photos / name, f"c/{name}") for name in names))
    (dest / "c" / "link.png").symlink_to(secret)
    os.mkfifo(dest / "c" / "pipe.png")
    (dest / "c" / "folder.png").mkdir()
    back = undo(dest, source=photos)
    assert (back.restored, len(back.left)) == (0, 3)
    assert not photos.exists()
    assert secret.read_bytes() == b"hello"


# -- the user's own journal, in other hands ----------------------------------------------------------------------------


def test_a_file_that_is_not_what_was_moved_does_not_come_back(moved: Path, source: Path) -> None:
    (moved / "cluster_011/top.png").write_bytes(b"#!/bin/sh")
    same_size = (moved / "cluster_002/y.png").read_bytes()
    (moved / "cluster_002/y.png").write_bytes(same_size[:-1] + b"!")
    back = undo(moved)
    assert (back.restored, dict(back.left).keys()) == (4, {str(source / "top.png"), str(source / "a/y.png")})
    assert "is not what was moved there" in back.summary()
    assert not (source / "top.png").exists()
    assert (moved / "cluster_011/top.png").read_bytes() == b"#!/bin/sh"


def test_a_file_that_changed_between_clustering_and_moving_comes_back_as_it_was_moved(
    run: RunDir, source: Path, tmp_path: Path
) -> None:
    (source / "top.png").write_bytes(b"edited since")
    before = tree(source)
    export(run, "folders", tmp_path / "out", mode="move")
    assert undo(tmp_path / "out").left == ()
    assert tree(source) == before


def test_lines_of_two_journals_do_not_mix_with_a_strangers(moved: Path, source: Path, tmp_path: Path) -> None:
    lines = (moved / JOURNAL_NAME).read_bytes().splitlines()
    dest = plant(tmp_path / "given", *lines, line(source / "new.png"))
    before = tree(source)
    with pytest.raises(RequestError, match="line 7: it was not written by your own Shoal"):
        undo(dest)
    assert tree(source) == before


def test_another_machine_asks_where_to(
    moved: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = images_in(moved)
    monkeypatch.setenv("SHOAL_STATE", str(tmp_path / "another home"))
    with pytest.raises(RequestError, match="not written by your own Shoal"):
        undo(moved)
    with pytest.raises(RequestError, match="lies outside of --source"):
        undo(moved, source=source / "a")
    assert images_in(moved) == contents
    assert undo(moved, source=source).restored == 6
    assert expected_tree(tree(source)) == contents


def test_where_no_key_can_be_kept_moving_says_so_and_undo_asks_where_to(
    run: RunDir, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(source)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHOAL_STATE", str(tmp_path / "file" / "state"))
    said: list[str] = []
    export(run, "folders", tmp_path / "out", mode="move", say=said.append)
    assert len(said) == 1
    assert "undoing will have to name the images' folder with --source" in said[0]
    with pytest.raises(RequestError, match="--source FOLDER"):
        undo(tmp_path / "out")
    assert undo(tmp_path / "out", source=source).left == ()
    assert tree(source) == before


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_source_that_became_a_link_to_elsewhere_is_refused(moved: Path, source: Path, tmp_path: Path) -> None:
    contents = tree(moved)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (source / "a").rmdir()
    (source / "a").symlink_to(elsewhere)
    with pytest.raises(RequestError, match="has become a link to elsewhere since; name it with --source"):
        undo(moved)
    assert tree(moved) == contents
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_source_behind_a_link_comes_back(source: Path, tmp_path: Path) -> None:
    before = tree(source)
    (tmp_path / "photos").symlink_to(source)
    export(make_run(tmp_path / "run", tmp_path / "photos"), "folders", tmp_path / "out", mode="move")
    again = export(RunDir(tmp_path / "run"), "folders", tmp_path / "out", mode="move")
    assert (again.written, again.already) == (0, 6)
    assert undo(tmp_path / "out").left == ()
    assert tree(source) == before


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_left_at_the_old_place_is_no_second_copy(moved: Path, source: Path) -> None:
    (source / "top.png").symlink_to(moved / "cluster_011/top.png")
    content = (moved / "cluster_011/top.png").read_bytes()
    assert len(undo(moved).left) == 1
    assert (moved / "cluster_011/top.png").read_bytes() == content


# -- what it leaves ----------------------------------------------------------------------------------------------------


def test_what_others_put_there_stays(run: RunDir, source: Path, moved: Path) -> None:
    before = tree(moved)
    (source / "top.png").write_bytes(b"another picture")
    (moved / "cluster_002/y.png").unlink()
    back = undo(moved)
    assert back.restored == 4
    assert dict(back.left).keys() == {str(source / "top.png"), str(source / "a/y.png")}
    assert (source / "top.png").read_bytes() == b"another picture"
    assert (moved / "cluster_011/top.png").read_bytes() == before["cluster_011/top.png"]
    assert "top.png: another file is in its place" in back.summary()


def test_a_file_where_a_folder_was_stays(source: Path, moved: Path) -> None:
    (source / "c").rmdir()
    (source / "c").write_text("mine")
    back = undo(moved)
    assert (back.restored, len(back.left)) == (5, 1)
    assert "there is a file where its folder was" in back.summary()
    assert (source / "c").read_text() == "mine"


def test_it_works_after_dest_was_renamed_and_source_folders_were_removed(
    source: Path, moved: Path, tmp_path: Path
) -> None:
    contents = images_in(moved)
    for folder in ("a", "b", "c", "."):
        (source / folder).rmdir()
    moved.rename(tmp_path / "renamed")
    undo(tmp_path / "renamed")
    assert expected_tree(tree(source)) == contents
    assert list((tmp_path / "renamed").iterdir()) == []


def test_files_of_others_in_dest_stay_and_so_does_what_is_known_of_them(run: RunDir, moved: Path) -> None:
    (moved / "cluster_000" / "mine.txt").write_text("mine")
    assert undo(moved).left == ()
    assert tree(moved).keys() == {"cluster_000/mine.txt", RECORD_NAME}
    assert export(run, "folders", moved, mode="move").written == 6


def test_parts_of_others_stay(source: Path, moved: Path) -> None:
    (source / "a" / ".123.shoal-part").write_text("mine")
    undo(moved)
    assert (source / "a" / ".123.shoal-part").read_text() == "mine"


def test_while_another_shoal_writes_there_it_waits(moved: Path) -> None:
    before = tree(moved)
    with alone(moved), pytest.raises(RunLockedError, match="another Shoal is writing into"):
        undo(moved)
    assert tree(moved) == before


# -- deaths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [rename_into_place, crossing])
@pytest.mark.parametrize("torn", [False, True])
def test_killed_anywhere_it_goes_on_to_the_same_end(tmp_path: Path, torn: bool, place: Place) -> None:
    before = tree(make_source(tmp_path / "source"))
    run = make_run(tmp_path / "run", tmp_path / "source")
    out = tmp_path / "out"
    export(run, "folders", out, mode="move")
    shutil.copytree(out, tmp_path / "kept", symlinks=True)
    writes = count_writes(tmp_path, lambda: undo(out, place=place))
    assert writes > len(FILES)
    for write in range(writes):
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "kept", out)
        for file in [path for path in (tmp_path / "source").rglob("*") if path.is_file()]:
            file.unlink()
        kill(tmp_path, write, lambda: undo(out, place=place), torn=torn)
        there = [*tree(out).values(), *tree(tmp_path / "source").values()]
        assert all(data in there for data in before.values())
        if (out / JOURNAL_NAME).exists():
            assert undo(out, place=place).left == ()
        assert tree(tmp_path / "source") == before
        assert list(out.iterdir()) == []
