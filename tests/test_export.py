"""Exporting a run: names, folders by copy, link and move with its journal, tables, other programs' formats."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from kills import Killed, count_writes, kill
from shoal import records
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append
from shoal.errors import DecodeError, DiskSpaceError, RequestError, RunError, RunLockedError, WorkError
from shoal.export import JOURNAL_NAME, export, undo
from shoal.export.journal import Journal
from shoal.export.names import cluster_name, cluster_width, safe_name, same_file_key, told_apart, unique_names
from shoal.export.placement import own_file
from shoal.export.record import RECORD_NAME, Record
from shoal.export.rows import Row
from shoal.export.transfer import Place, rename_into_place
from shoal.images import manifest
from shoal.lock import alone
from shoal.rundir import RunDir
from shoal.runfiles import write_run_json
from small_export import (
    EXPECTED,
    FILES,
    crossing,
    expected_tree,
    images_in,
    make_run,
    make_source,
    tree,
    uri_of,
    write_run,
)

# -- a run of real files -----------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def run(tmp_path: Path, source: Path) -> RunDir:
    return make_run(tmp_path / "run", source)


# -- names -------------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec=None), max_size=12)
TRICKY = st.sampled_from(
    ["CON", "nul.png", "com1.tar.gz", "LPT³", "a.", "a ", "..", "", "x.png", "X.PNG", "x-2.png", "é", "e\u0301"]
)
NAMES = st.one_of(TRICKY, TEXT, st.builds(lambda text, times: text * times, TEXT, st.integers(1, 60)))


def test_a_path_seen_before_keeps_its_extension() -> None:
    names = {"x/a.jpg#2": "a#2.jpg", "a.jpg": "a.jpg", "a#2": "a#2", "b.tar.gz#10": "b.tar#10.gz", "x.y/#3": "#3"}
    for path, expected in names.items():
        assert Row(0, path, "", "", 1, None, "", 0, None, False, None, None, None).file_name == expected


def test_marks_that_turn_the_direction_of_writing_are_replaced() -> None:
    assert safe_name("photo\u202egpj.exe") == "photo_gpj.exe"


@given(NAMES, st.sampled_from(["", "-2", "-12345"]))
@example("CON" + " " * 300 + "x", "")
@example(" " * 300 + "b", "")
@example("NUL." + "x" * 300, "")
def test_a_safe_name_is_one_that_every_system_takes(name: str, suffix: str) -> None:
    safe = safe_name(name, suffix)
    assert 0 < len(safe.encode()) <= 255
    assert not set(safe) & set('<>:"/\\|?*\x7f')
    assert min(safe) >= " "
    assert not safe.endswith((".", " "))
    assert not PureWindowsPath(safe).is_reserved()
    assert safe_name(safe) == safe


@given(st.lists(NAMES, max_size=12))
@example(["x.png", "x.png", "x-2.png", "X-2.png", "x.png"])
@example(["é.png", "e\u0301.png", "ß", "SS", "ſſ"])
@example(["a" * 300 + ".png", "a" * 301 + ".png", "a" * 249 + "-2.png"])
def test_unique_names_are_never_the_same_file(names: list[str]) -> None:
    unique = unique_names(names)
    assert len({same_file_key(name) for name in unique}) == len(names)
    for name in unique:
        assert safe_name(name) == name


@given(st.lists(st.sampled_from(["x.png", "x-2.png", "X.png", "y"]), max_size=8))
def test_the_first_of_a_name_keeps_it(names: list[str]) -> None:
    unique = unique_names(names)
    first = {same_file_key(name): position for position, name in reversed(list(enumerate(names)))}
    assert all(unique[position] == names[position] for position in first.values())


def test_long_names_keep_their_extension_and_whole_characters() -> None:
    assert safe_name("ä" * 200 + ".jpeg") == "ä" * 125 + ".jpeg"
    assert safe_name("a" * 200 + "." + "b" * 200) == "a" * 200 + "." + "b" * 54


def test_many_files_of_one_name_are_told_apart_quickly() -> None:
    assert unique_names(["x.png"] * 20_000)[-1] == "x-20000.png"


def test_clusters_are_padded_to_sort_as_numbers_do() -> None:
    assert cluster_name(7, cluster_width(11)) == "cluster_007"
    assert cluster_name(7, cluster_width(1234)) == "cluster_0007"
    assert cluster_name(7) == "cluster_7"


@pytest.mark.skipif(os.name == "nt", reason="Windows names are Unicode")
def test_addresses_of_files_whose_names_are_not_utf8() -> None:
    assert os.fsencode(own_file("file:///a/%FF%20%23.png") or "") == b"/a/\xff #.png"
    assert own_file("s3://bucket/x.png") is None
    assert own_file("file:///a/table.parquet#row=3") is None


# -- copy, link, move --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folders", "imagefolder"])
def test_copy_keeps_bytes_times_and_the_source(run: RunDir, source: Path, tmp_path: Path, kind: str) -> None:
    before = tree(source)
    result = export(run, kind, tmp_path / "out")
    assert images_in(tmp_path / "out") == expected_tree(before)
    assert tree(source) == before
    for target, path in EXPECTED.items():
        assert (tmp_path / "out" / target).stat().st_mtime_ns == (source / path).stat().st_mtime_ns
    assert (result.images, result.written, result.already, result.hows) == (6, 6, 0, (("copied", 6),))


def test_link_makes_hard_links(run: RunDir, source: Path, tmp_path: Path) -> None:
    result = export(run, "folders", tmp_path / "out", mode="link")
    assert result.hows == (("hard link", 6),)
    for target, path in EXPECTED.items():
        assert (tmp_path / "out" / target).samefile(source / path)


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than tmp_path."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def test_link_across_file_systems_is_symbolic(run: RunDir, source: Path, other_disk: Path) -> None:
    before = tree(source)
    result = export(run, "folders", other_disk / "out", mode="link")
    assert result.hows == (("symbolic link", 6),)
    assert images_in(other_disk / "out") == expected_tree(before)
    assert export(run, "folders", other_disk / "out", mode="link").already == 6


def test_move_and_undo_restore_every_byte_name_and_time(run: RunDir, source: Path, tmp_path: Path) -> None:
    before, times = tree(source), {path: (source / path).stat().st_mtime_ns for path in FILES}
    out = tmp_path / "out"
    result = export(run, "folders", out, mode="move")
    assert tree(source) == {}
    assert images_in(out) == expected_tree(before)
    assert result.journal == out / JOURNAL_NAME
    back = undo(out)
    assert (back.restored, back.already, back.left) == (6, 0, ())
    assert tree(source) == before
    assert {path: (source / path).stat().st_mtime_ns for path in FILES} == times
    assert list(out.iterdir()) == []


def test_move_across_file_systems_and_back(run: RunDir, source: Path, other_disk: Path) -> None:
    before = tree(source)
    export(run, "folders", other_disk / "out", mode="move")
    assert tree(source) == {}
    assert images_in(other_disk / "out") == expected_tree(before)
    undo(other_disk / "out" / JOURNAL_NAME)
    assert tree(source) == before


def killed_before(count: int, place: Place) -> Place:
    """The process dies when rename number `count`, from 0, is about to be made."""
    done = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal done
        if done == count:
            raise Killed
        place(source, target)
        done += 1

    return rename


def killed_after(count: int, place: Place) -> Place:
    """The process dies when rename number `count`, from 0, has just been made."""
    done = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal done
        place(source, target)
        if done == count:
            raise Killed
        done += 1

    return rename


def linked_then_killed(source: Path, target: Path) -> None:
    """The process dies between the two halves of a rename."""
    os.link(source, target)
    raise Killed


@pytest.mark.parametrize("place", [rename_into_place, crossing])
@pytest.mark.parametrize("killed", [killed_before, killed_after])
@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_killed_move_goes_on_or_goes_back(
    run: RunDir, source: Path, tmp_path: Path, place: Place, killed: Callable[[int, Place], Place], count: int
) -> None:
    before, out = tree(source), tmp_path / "out"
    with pytest.raises(Killed):
        export(run, "folders", out, mode="move", place=killed(count, place))
    assert undo(out, place=place).left == ()
    assert tree(source) == before
    assert images_in(out) == {}

    with pytest.raises(Killed):
        export(run, "folders", out, mode="move", place=killed(count, place))
    result = export(run, "folders", out, mode="move", place=place)
    assert (result.written + result.already, result.left_out) == (6, ())
    assert images_in(out) == expected_tree(before)
    assert tree(source) == {}

    with pytest.raises(Killed):
        undo(out, place=killed(count, place))
    back = undo(out, place=place)
    assert (back.restored + back.already, back.left) == (6, ())
    assert tree(source) == before
    assert list(out.iterdir()) == []


def test_a_kill_between_the_halves_of_a_rename_is_made_good(run: RunDir, source: Path, tmp_path: Path) -> None:
    before, out = tree(source), tmp_path / "out"
    with pytest.raises(Killed):
        export(run, "folders", out, mode="move", place=linked_then_killed)
    export(run, "folders", out, mode="move")
    assert tree(source) == {}
    assert images_in(out) == expected_tree(before)
    with pytest.raises(Killed):
        undo(out, place=linked_then_killed)
    assert undo(out).left == ()
    assert tree(source) == before


def test_a_killed_copy_goes_on_and_leaves_no_parts(run: RunDir, source: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        export(run, "folders", tmp_path / "out", place=killed_before(2, rename_into_place))
    result = export(run, "folders", tmp_path / "out")
    assert (result.written, result.already) == (4, 2)
    assert images_in(tmp_path / "out") == expected_tree(tree(source))


def test_a_part_that_is_a_second_name_of_a_finished_copy_is_not_written_to(
    run: RunDir, source: Path, tmp_path: Path
) -> None:
    for _ in range(7):  # one more file is done each time; this process always has the same part names
        with contextlib.suppress(Killed):
            export(run, "folders", tmp_path / "out", place=linked_then_killed)
    assert images_in(tmp_path / "out") == expected_tree(tree(source))


def test_a_read_only_file_moves_across_file_systems(source: Path, tmp_path: Path) -> None:
    file = source / "top.png"
    file.chmod(0o444)
    run_dir = write_run(tmp_path / "run", [("top.png", uri_of(file), 0)])
    export(run_dir, "folders", tmp_path / "out", mode="move", place=crossing)
    assert (tmp_path / "out/cluster_000/top.png").stat().st_mode & 0o777 == 0o444
    undo(tmp_path / "out", place=crossing)
    assert file.stat().st_mode & 0o777 == 0o444


def test_the_journal_is_on_the_disk_before_the_first_move(run: RunDir, source: Path, tmp_path: Path) -> None:
    lines = []

    def rename(one: Path, other: Path) -> None:
        lines.append({move.source for move in Journal(tmp_path / "out" / JOURNAL_NAME).read()})
        assert str(one) in lines[-1]
        rename_into_place(one, other)

    export(run, "folders", tmp_path / "out", mode="move", place=rename)
    assert lines[0] == {str(source / path) for path in FILES}


def test_exporting_again_does_nothing(run: RunDir, tmp_path: Path) -> None:
    for mode in ("copy", "link", "move"):
        out = tmp_path / mode
        export(run, "folders", out, mode=mode)
        before = tree(out)
        again = export(run, "folders", out, mode=mode)
        assert (again.written, again.already, again.left_out) == (0, 6, ())
        assert tree(out) == before


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_a_foreign_file_is_never_overwritten(run: RunDir, source: Path, tmp_path: Path, mode: str) -> None:
    foreign = tmp_path / "out/cluster_002/y.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    before = tree(source)
    with pytest.raises(RequestError, match=r"y\.png is there already and is another file"):
        export(run, "folders", tmp_path / "out", mode=mode)
    assert tree(tmp_path / "out") == {"cluster_002/y.png": b"mine"}
    assert tree(source) == before


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(run: RunDir, source: Path, tmp_path: Path, mode: str) -> None:
    target = tmp_path / "out/cluster_000/x.png"

    def rename(one: Path, other: Path) -> None:
        target.write_bytes(b"mine") if not target.exists() else None
        rename_into_place(one, other)

    if mode == "link":
        target.parent.mkdir(parents=True)
        target.symlink_to("nowhere")
        with pytest.raises(RequestError, match="is there already"):
            export(run, "folders", tmp_path / "out", mode=mode)
        assert target.is_symlink()
        return
    with pytest.raises(RequestError, match="is there already and is left as it is"):
        export(run, "folders", tmp_path / "out", mode=mode, place=rename)
    assert target.read_bytes() == b"mine"
    assert (source / "a/x.png").exists()


def test_identical_content_counts_as_done(run: RunDir, source: Path, tmp_path: Path) -> None:
    there = tmp_path / "out/cluster_011/top.png"
    there.parent.mkdir(parents=True)
    there.write_bytes((source / "top.png").read_bytes())
    assert export(run, "folders", tmp_path / "out").already == 1


def test_moving_onto_copies_made_before_can_still_be_undone(run: RunDir, source: Path, tmp_path: Path) -> None:
    before = tree(source)
    export(run, "folders", tmp_path / "out", mode="link")
    export(run, "folders", tmp_path / "out", mode="move")
    assert tree(source) == {}
    undo(tmp_path / "out")
    assert tree(source) == before


def test_moving_onto_symbolic_links_to_the_source_is_refused(run: RunDir, source: Path, tmp_path: Path) -> None:
    before = tree(source)
    target = tmp_path / "out/cluster_000/x.png"
    target.parent.mkdir(parents=True)
    target.symlink_to(source / "a/x.png")
    with pytest.raises(RequestError, match="is there already"):
        export(run, "folders", tmp_path / "out", mode="move")
    assert tree(source) == before


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_a_source_that_is_in_its_place_already_stays(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "out/cluster_000/x.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"picture")
    run_dir = write_run(tmp_path / "run", [("cluster_000/x.png", uri_of(file), 0)])
    assert export(run_dir, "folders", tmp_path / "out", mode=mode).already == 1
    assert images_in(tmp_path / "out") == {"cluster_000/x.png": b"picture"}


INTO_THE_SOURCE = [
    ("source", "is the source of the run"),
    ("source/sorted", "lies in .*source, the source of the run"),
    ("linked/sorted", "lies in .*source, the source of the run"),
]
INTO_THE_RUN = [("run", "is the run itself"), ("run/report/sorted", "lies in the run")]


def of_source(run: RunDir, *words: Path | str) -> RunDir:
    """The run, made of these words."""
    state = run.read_state()
    write_run_json(run.root, {**state, "asked": {"source": [str(word) for word in words]}})
    return run


@pytest.mark.parametrize("kind", ["folders", "imagefolder", "fiftyone"])
@pytest.mark.parametrize(
    ("dest", "why", "mode"),
    [
        *((*case, mode) for case in INTO_THE_SOURCE for mode in ("copy", "link")),
        *((*case, mode) for case in INTO_THE_RUN for mode in ("copy", "link", "move")),
    ],
)
def test_nothing_is_exported_to_where_it_would_be_found_as_images_again(
    run: RunDir, source: Path, tmp_path: Path, kind: str, mode: str, dest: str, why: str
) -> None:
    (tmp_path / "linked").symlink_to("source")
    before = tree(tmp_path)
    of_source(run, source)
    state = tree(run.root)
    for dry_run in (True, False):
        with pytest.raises(RequestError, match=why) as refused:
            export(run, kind, tmp_path / dest, mode=mode, dry_run=dry_run)
        assert "\n" not in str(refused.value)
    assert tree(source) == {path[7:]: data for path, data in before.items() if path.startswith("source/")}
    assert tree(run.root) == state


def test_a_source_can_be_sorted_in_its_place(run: RunDir, source: Path) -> None:
    before = sorted(tree(source).values())
    assert export(of_source(run, source), "folders", source, mode="move").written == len(FILES)
    assert sorted(images_in(source).values()) == before
    assert {path.parent.name.rpartition("_")[0] for path in source.rglob("*.png")} == {"cluster"}


@pytest.mark.parametrize(
    ("pattern", "dest", "is_read"),
    [
        ("source/*.png", "source/sorted", False),
        ("source/*", "source/sorted", True),
        ("source/*/*.png", "source", True),
        ("**/*.png", "out", True),
        ("*.png", "out", False),
    ],
)
def test_an_export_lies_where_no_pattern_looks(
    run: RunDir, tmp_path: Path, pattern: str, dest: str, is_read: bool
) -> None:
    of_source(run, tmp_path / pattern)
    with pytest.raises(RequestError, match="the source of the run") if is_read else nullcontext():
        assert export(run, "folders", tmp_path / dest).written == len(FILES)


def test_a_run_that_moved_with_its_source_knows_where_that_is(run: RunDir, source: Path, tmp_path: Path) -> None:
    of_source(run, tmp_path / "earlier/source")
    place = {"folder": str(tmp_path / "earlier/source"), "beside": "../source"}
    write_run_json(run.root, {**run.read_state(), "source": place})
    with pytest.raises(RequestError, match="the source of the run"):
        export(run, "folders", source / "sorted")
    assert export(run, "folders", tmp_path / "sorted").written == len(FILES)


def test_tables_may_lie_beside_the_images(run: RunDir, source: Path) -> None:
    assert export(of_source(run, source), "csv", source).dest == source / "clusters.csv"


def test_images_that_are_in_their_places_may_be_the_source(tmp_path: Path) -> None:
    file = tmp_path / "out/cluster_000/x.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"picture")
    run = write_run(tmp_path / "run", [("cluster_000/x.png", uri_of(file), 0)])
    assert export(of_source(run, tmp_path / "out"), "folders", tmp_path / "out").already == 1


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_a_vanished_source_is_listed(run: RunDir, source: Path, tmp_path: Path, mode: str) -> None:
    (source / "a/y.png").unlink()
    result = export(run, "folders", tmp_path / "out", mode=mode)
    assert result.left_out == (("a/y.png", "no longer in the source"),)
    assert result.written == 5
    assert "a/y.png: no longer in the source" in result.summary()


def test_a_source_that_vanishes_meanwhile_is_listed(run: RunDir, source: Path, tmp_path: Path) -> None:
    def rename(one: Path, other: Path) -> None:
        (source / "top.png").unlink(missing_ok=True)
        rename_into_place(one, other)

    result = export(run, "folders", tmp_path / "out", mode="move", place=rename)
    assert result.left_out == (("top.png", "no longer in the source"),)
    assert undo(tmp_path / "out").left[0][0] == str(source / "top.png")


def test_a_source_listed_twice_is_moved_once(source: Path, tmp_path: Path) -> None:
    uri = uri_of(source / "top.png")
    run_dir = write_run(tmp_path / "run", [("top.png", uri, 0), ("top.png", uri, 0)])
    result = export(run_dir, "folders", tmp_path / "out", mode="move")
    assert (result.written, result.already, result.left_out) == (1, 1, ())


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
@pytest.mark.parametrize("kind", ["folders", "imagefolder", "fiftyone"])
def test_a_dry_run_writes_nothing(run: RunDir, source: Path, tmp_path: Path, kind: str, mode: str) -> None:
    before, said = tree(tmp_path), list[str]()
    result = export(run, kind, tmp_path / "out", mode=mode, dry_run=True, say=said.append)
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert (result.written, result.dry_run, result.journal) == (6, True, None)
    assert any(line.startswith(f"would {mode} 6 images") for line in said)
    assert any("a/x.png -> " in line for line in said)


@pytest.mark.parametrize("kind", ["csv", "parquet", "labelstudio"])
def test_a_dry_run_of_a_table_writes_nothing(run: RunDir, tmp_path: Path, kind: str) -> None:
    before, said = tree(tmp_path), list[str]()
    export(run, kind, tmp_path / "out", dry_run=True, say=said.append)
    assert tree(tmp_path) == before
    assert any(line.startswith("would write ") for line in said)


def test_bytes_that_are_no_files_are_copied_but_not_moved_or_linked(tmp_path: Path) -> None:
    uris = ["memory://bucket/a.png", "file:///x.tar#offset=512&size=9"]
    run_dir = write_run(tmp_path / "run", [("a.png", uris[0], 0), ("sub/a.png", uris[1], 0)])
    for mode in ("move", "link"):
        with pytest.raises(RequestError, match=f"--mode {mode} needs images that are files.*use --mode copy"):
            export(run_dir, "folders", tmp_path / "out", mode=mode)
    contents = {uri: f"bytes of {uri}".encode() for uri in uris}
    export(run_dir, "folders", tmp_path / "out", read=contents.__getitem__)
    assert images_in(tmp_path / "out") == {
        "cluster_000/a-2.png": contents[uris[1]],
        "cluster_000/a.png": contents[uris[0]],
    }
    assert (tmp_path / "out/cluster_000/a-2.png").stat().st_mtime == 10**9 + 1
    assert export(run_dir, "folders", tmp_path / "out", read=contents.__getitem__).already == 2


def test_members_of_a_tar_are_written_out(source: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(source / "top.png", "one.png")
        archive.add(source / "a/y.png", "two.png")
    with tarfile.open(tmp_path / "x.tar") as archive:
        places = [(m.name, f"{uri_of(tmp_path / 'x.tar')}#offset={m.offset_data}&size={m.size}", 0) for m in archive]
    run_dir = write_run(tmp_path / "run", places)
    export(run_dir, "folders", tmp_path / "out")
    assert images_in(tmp_path / "out") == {
        "cluster_000/one.png": (source / "top.png").read_bytes(),
        "cluster_000/two.png": (source / "a/y.png").read_bytes(),
    }


def test_an_image_that_cannot_be_read_is_left_out_with_its_reason(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", [("a.png", "memory://a.png", 0), ("b.png", "memory://b.png", 0)])

    def read(uri: str) -> bytes:
        if uri.endswith("a.png"):
            raise DecodeError("cannot be read: connection reset")
        return b"b"

    result = export(run_dir, "folders", tmp_path / "out", read=read)
    assert result.left_out == (("a.png", "cannot be read: connection reset"),)
    assert list(images_in(tmp_path / "out")) == ["cluster_000/b.png"]


def test_a_symbolic_link_is_not_moved(source: Path, tmp_path: Path) -> None:
    (source / "link.png").symlink_to("top.png")
    run_dir = write_run(tmp_path / "run", [("link.png", uri_of(source / "link.png"), 0)])
    with pytest.raises(RequestError, match=r"would break .*link\.png, which is a symbolic link"):
        export(run_dir, "folders", tmp_path / "out", mode="move")
    (source / "more.png").symlink_to("a/y.png")
    two = [(name, uri_of(source / name), 0) for name in ("top.png", "link.png", "more.png")]
    with pytest.raises(RequestError, match=r"would break .*link\.png and 1 more, which are symbolic links"):
        export(write_run(tmp_path / "two", two), "folders", tmp_path / "out", mode="move")
    assert export(run_dir, "folders", tmp_path / "copy").written == 1
    assert export(run_dir, "folders", tmp_path / "linked", mode="link").written == 1
    assert images_in(tmp_path / "linked") == {"cluster_000/link.png": (source / "top.png").read_bytes()}


@pytest.mark.skipif(os.name == "nt", reason="Windows names are Unicode")
def test_names_that_are_not_utf8_are_shown_encoded_and_move_back(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    try:
        file.write_bytes(b"picture")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    run_dir = write_run(tmp_path / "run", [("%FF.png", uri_of(file), 0)])
    export(run_dir, "folders", tmp_path / "out", mode="move")
    assert images_in(tmp_path / "out") == {"cluster_000/%FF.png": b"picture"}
    undo(tmp_path / "out")
    assert file.read_bytes() == b"picture"


def test_too_little_space_is_said_before_anything_is_written(run: RunDir, tmp_path: Path) -> None:
    images = run.read_images()
    sizes = pa.array([2**60] * len(images), pa.int64())
    records.write_table(run.images, images.set_column(3, "size_bytes", sizes))
    with pytest.raises(DiskSpaceError, match="needs"):
        export(run, "folders", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(run, "folders", tmp_path / "out", mode="link").written == 6


def test_a_disk_that_runs_full_is_an_error_that_says_so(run: RunDir, tmp_path: Path) -> None:
    def rename(one: Path, other: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(other))

    with pytest.raises(DiskSpaceError, match="is full"):
        export(run, "folders", tmp_path / "out", place=rename)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(run: RunDir, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(WorkError, match="Permission denied"):
        export(run, "folders", locked / "out")


# -- another clustering ------------------------------------------------------------------------------------------------


def cluster_all(run: RunDir, cluster: int) -> None:
    """Another clustering of the same images."""
    clusters = run.read_clusters()
    changed = clusters.set_column(2, "cluster", pa.array([cluster] * len(clusters), pa.int32()))
    records.write_table(run.clusters, changed)


@pytest.mark.parametrize("kind", ["folders", "imagefolder"])
@pytest.mark.parametrize(("mode", "first"), [("copy", "delete"), ("link", "delete"), ("move", "undo")])
def test_two_clusterings_are_not_mixed_in_one_folder(
    run: RunDir, source: Path, tmp_path: Path, mode: str, first: str, kind: str
) -> None:
    out = tmp_path / "out"
    export(run, kind, out, mode=mode)
    (out / "notes.txt").write_text("mine")
    before = tree(out), tree(source)
    cluster_all(run, 5)
    for dry_run in (True, False):
        with pytest.raises(RequestError, match=f"another clustering, which this one would be mixed with; {first} that"):
            export(run, kind, out, mode=mode, dry_run=dry_run)
    assert (tree(out), tree(source)) == before


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_an_export_that_was_deleted_or_undone_is_in_nobodys_way(run: RunDir, tmp_path: Path, mode: str) -> None:
    out = tmp_path / "out"
    export(run, "folders", out, mode=mode)
    for path in EXPECTED:
        (out / path).unlink()
    cluster_all(run, 5)
    assert export(run, "folders", out, mode="move").written == 6
    undo(out)
    cluster_all(run, 6)
    assert export(run, "folders", out).written == 6
    assert {path.split("/")[0] for path in images_in(out)} == {"cluster_006"}


def test_a_journal_without_a_record_is_of_another_clustering_too(run: RunDir, tmp_path: Path) -> None:
    export(run, "folders", tmp_path / "out", mode="move")
    (tmp_path / "out" / RECORD_NAME).unlink()
    cluster_all(run, 5)
    with pytest.raises(RequestError, match="undo that export first"):
        export(run, "folders", tmp_path / "out", mode="move")


@pytest.mark.parametrize("text", ["{}\n", "[]\n", '{"shoal_export": 2}\n', "[" * 60_000 + "\n", "mine", "\n"])
def test_a_record_that_shoal_did_not_write_stays(run: RunDir, tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / RECORD_NAME).write_text(text)
    with pytest.raises(RequestError, match="is not readable as Shoal's record of an export"):
        export(run, "folders", out)
    assert tree(out) == {RECORD_NAME: text.encode()}


def test_a_record_that_was_not_finished_is_none(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run, "folders", out)
    whole = (out / RECORD_NAME).read_bytes()
    record = Record.read(out)
    assert record is not None
    for length in range(len(whole)):
        (out / RECORD_NAME).write_bytes(whole[:length])
        assert Record.read(out) is None
    (out / RECORD_NAME).write_bytes(whole + b'{"labels": "0')
    assert Record.read(out) == record


def test_fiftyones_labels_are_those_of_the_clustering_now(run: RunDir, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hidden = tmp_path / "hidden.png"
    (source / "top.png").rename(hidden)
    export(run, "fiftyone", out)
    hidden.rename(source / "top.png")
    export(run, "fiftyone", out)  # the image that could not be taken before
    assert len(json.loads((out / "labels.json").read_text(encoding="utf-8"))["labels"]) == 6
    cluster_all(run, 5)
    export(run, "fiftyone", out)
    assert json.loads((out / "labels.json").read_text(encoding="utf-8"))["classes"] == ["cluster_005"]
    (out / "labels.json").write_text("mine")
    cluster_all(run, 6)
    with pytest.raises(RequestError, match=r"labels\.json is there already, with other content"):
        export(run, "fiftyone", out)
    assert (out / "labels.json").read_text() == "mine"


# -- what is nobody's to touch -----------------------------------------------------------------------------------------


def test_parts_of_others_stay(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        export(run, "folders", out, place=killed_before(2, rename_into_place))
    (out / "cluster_000" / ".123.shoal-part").write_text("mine")
    (out / "cluster_000" / f".{os.getpid()}.shoal-part").write_text("mine too")
    export(run, "folders", out)
    parts = {path.name: path.read_text() for path in out.rglob(".*.shoal-part")}
    assert parts == {".123.shoal-part": "mine", f".{os.getpid()}.shoal-part": "mine too"}


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_a_cluster_folder_that_leads_out_of_dest_is_not_written_to(
    run: RunDir, source: Path, tmp_path: Path, mode: str
) -> None:
    before = tree(source)
    for folder in ("out", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / "cluster_002").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="cluster_002 is a link that leads out of DEST"):
        export(run, "folders", tmp_path / "out", mode=mode)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert tree(source) == before


def test_two_shoals_do_not_export_into_one_folder_at_once(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with alone(out), pytest.raises(RunLockedError, match="another Shoal is writing into"):
        export(run, "folders", out)
    assert list(out.iterdir()) == []
    assert export(run, "folders", out).written == 6


# -- nothing left to take ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("mode", ["copy", "link", "move"])
@pytest.mark.parametrize("kind", ["folders", "imagefolder", "fiftyone"])
def test_a_source_without_one_image_left_is_an_error(
    run: RunDir, source: Path, tmp_path: Path, kind: str, mode: str, dry_run: bool
) -> None:
    source.rename(tmp_path / "moved away")
    with pytest.raises(WorkError, match=r"none of the 6 images is left where it was \(the first: .*x\.png\)"):
        export(run, kind, tmp_path / "out", mode=mode, dry_run=dry_run)
    assert not (tmp_path / "out").exists()


def test_images_of_which_none_can_be_fetched_are_an_error(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", [("a.png", "memory://a.png", 0), ("b.png", "memory://b.png", 1)])

    def read(uri: str) -> bytes:
        raise DecodeError("cannot be read: connection reset")

    with pytest.raises(WorkError, match=r"none of the 2 images could be taken .*connection reset"):
        export(run_dir, "folders", tmp_path / "out", read=read)
    assert export(run_dir, "folders", tmp_path / "out", read=lambda uri: uri.encode()).written == 2


def test_an_export_that_is_there_needs_no_source(run: RunDir, source: Path, tmp_path: Path) -> None:
    export(run, "folders", tmp_path / "out")
    source.rename(tmp_path / "moved away")
    assert export(run, "folders", tmp_path / "out").already == 6


# -- deaths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize(
    ("kind", "mode", "place"),
    [
        ("folders", "copy", rename_into_place),
        ("folders", "link", rename_into_place),
        ("folders", "move", rename_into_place),
        ("folders", "move", crossing),
        ("fiftyone", "copy", rename_into_place),
        ("csv", "copy", rename_into_place),
        ("labelstudio", "copy", rename_into_place),
    ],
)
def test_killed_anywhere_nothing_is_lost_and_the_same_command_goes_on(
    tmp_path: Path, kind: str, mode: str, place: Place, torn: bool
) -> None:
    source = make_source(tmp_path / "source")
    before = tree(source)
    run = make_run(tmp_path / "run", source)
    out = tmp_path / "out"

    def work() -> object:
        return export(run, kind, out if kind in ("folders", "fiftyone") else out / "table", mode=mode, place=place)

    writes = count_writes(tmp_path, work)
    expected = images_in(out)
    assert writes > len(expected)
    for write in range(writes):
        shutil.rmtree(out)
        shutil.rmtree(source)
        make_source(source)
        kill(tmp_path, write, work, torn=torn)
        there = [*tree(source).values(), *tree(out).values()]
        assert all(data in there for data in before.values())
        work()
        assert images_in(out) == expected
        assert tree(source) == ({} if mode == "move" else before)


# -- tables ------------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True))


def test_long_csv_has_every_image_and_its_values(run: RunDir, tmp_path: Path) -> None:
    export(run, "csv", tmp_path / "out.csv")
    header, *lines = read_csv(tmp_path / "out.csv")
    assert header == [
        "path",
        "cluster",
        "confidence",
        "unsure",
        "runner_up",
        "silhouette",
        "duplicate_of",
        "uri",
        "name",
        "name_strength",
    ]
    assert [line[0] for line in lines] == list(FILES)
    assert [int(line[1]) for line in lines] == list(FILES.values())
    stored = run.read_clusters()["confidence"].to_pylist()
    assert [float(np.float32(line[2])) for line in lines] == stored
    assert lines[1][3:5] == ["true", ""]
    assert lines[3][6] == "a/x.png"


def test_wide_csv_has_a_column_a_cluster(run: RunDir, tmp_path: Path) -> None:
    export(run, "csv", tmp_path / "out.csv", layout="wide")
    assert read_csv(tmp_path / "out.csv") == [
        ["cluster_0", "cluster_2", "cluster_11"],
        ["a/x.png", "y", "top"],  # two files are called x
        ["X", """'=1+1,"ä\"""", ""],
        ["b/x.png", "", ""],
    ]


def test_clusters_that_people_gave_one_name_stay_apart(run: RunDir, tmp_path: Path) -> None:
    for cluster in (0, 11):
        append(run, lambda log, cluster=cluster: changes.rename(read_corrected(run), cluster, "dogs"))
    export(run, "csv", tmp_path / "out.csv", layout="wide")
    assert read_csv(tmp_path / "out.csv")[0] == ["dogs (cluster_0)", "cluster_2", "dogs (cluster_11)"]
    export(run, "labelstudio", tmp_path / "out.json")
    assert choices(tmp_path / "out.xml") == ["dogs (cluster_000)", "cluster_002", "dogs (cluster_011)"]


def test_a_name_that_is_anothers_number_stays_apart(run: RunDir, tmp_path: Path) -> None:
    append(run, lambda log: changes.rename(read_corrected(run), 0, "cluster_2"))
    export(run, "csv", tmp_path / "out.csv", layout="wide")
    assert read_csv(tmp_path / "out.csv")[0] == ["cluster_2 (cluster_0)", "cluster_2", "cluster_11"]
    append(run, lambda log: changes.rename(read_corrected(run), 0, "cluster_002"))
    export(run, "labelstudio", tmp_path / "out.json")
    assert choices(tmp_path / "out.xml") == ["cluster_002 (cluster_000)", "cluster_002", "cluster_011"]
    export(run, "fiftyone", tmp_path / "fiftyone")
    told = json.loads((tmp_path / "fiftyone/labels.json").read_bytes())["classes"]
    assert told == ["cluster_002 (cluster_000)", "cluster_002", "cluster_011"]


def choices(interface: Path) -> list[str]:
    """The clusters among which Label Studio lets people choose."""
    return [found.attrib["value"] for found in ElementTree.parse(interface).iter("Choice")]


@given(st.lists(st.sampled_from(["dogs", "cluster_1", "dogs (cluster_1)", "cluster_1 (cluster_0)"]), max_size=4))
def test_no_two_clusters_are_called_the_same(called: list[str]) -> None:
    numbered = {number: cluster_name(number) for number in range(5)}
    tags = {number: numbered[number] for number in range(len(called))}
    found = told_apart(numbered | dict(enumerate(called)), tags)
    assert len(set(found.values())) == len(found)
    assert [name for number, name in found.items() if number not in tags] == list(numbered.values())[len(called) :]
    assert all(found[number].startswith(name) for number, name in enumerate(called))


PATHS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@settings(max_examples=30)
@given(paths=st.lists(PATHS, min_size=1, max_size=6))
@example(paths=["=SUM(A1)", "+1", "-1", "@x", 'a"b', "a,b", "a\r\nb", " "])
def test_paths_come_back_from_csv_and_parquet_as_they_were(tmp_path_factory, paths: list[str]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    run_dir = write_run(folder / "run", [(path, f"memory://{number}", 0) for number, path in enumerate(paths)])
    export(run_dir, "csv", folder)
    assert [line[0] for line in list(manifest.table_rows((folder / "clusters.csv").read_bytes()))[1:]] == paths
    assert not any(line[0].lstrip().startswith(tuple("=+-@")) for line in read_csv(folder / "clusters.csv"))
    export(run_dir, "parquet", folder)
    assert pq.read_table(folder / "clusters.parquet")["path"].to_pylist() == paths


class Elsewhere:
    """Does the work of others in this process; dies after one piece where `dies`."""

    is_here = False

    def __init__(self, dies: bool = False) -> None:
        self.dies, self.asked = dies, list[int]()

    def run(self, work: Any, pieces: Any) -> Any:
        self.asked += pieces
        worker = work.portable("cpu").start()
        assert set(worker.kind) == {"engine", "shoal", "pyarrow"}  # not the processor: a table is the same by all
        yield from worker.do(pieces[:1] if self.dies else pieces)
        if self.dies:
            raise WorkError("it dies")


def test_parquet_by_others_is_what_it_is_here_and_goes_on_after_a_death(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("table_blocks", "tables"):
        monkeypatch.setattr(f"shoal.export.{module}.PARQUET_ROWS", 4)  # two blocks
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    export(run, "parquet", here)
    assert pq.ParquetFile(here).num_row_groups == 2
    with pytest.raises(WorkError, match="it dies"):
        export(run, "parquet", there, executor=Elsewhere(dies=True))
    assert not there.exists()
    going_on = Elsewhere()
    assert export(run, "parquet", there, executor=going_on).written == len(FILES)
    assert going_on.asked == [1]
    assert there.read_bytes() == here.read_bytes()
    assert sorted(file.name for file in tmp_path.glob("*here*")) == ["here.parquet", "there.parquet"]
    # Of a run that was corrected meanwhile no block is of use.
    with pytest.raises(WorkError, match="it dies"):
        export(run, "parquet", tmp_path / "corrected.parquet", executor=Elsewhere(dies=True))
    append(run, lambda log: changes.rename(read_corrected(run), 0, "squares"))
    corrected = Elsewhere()
    export(run, "parquet", tmp_path / "corrected.parquet", executor=corrected)
    assert corrected.asked == [0, 1]
    assert "squares" in pq.read_table(tmp_path / "corrected.parquet")["name"].to_pylist()


def test_parquet_by_others_leaves_what_is_not_its_own(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "out.parquet.parts").mkdir()
    (tmp_path / "out.parquet.parts" / "mine").write_text("mine")
    with pytest.raises(RequestError, match="holds no blocks of an export"):
        export(run, "parquet", tmp_path / "out.parquet", executor=Elsewhere())
    assert [file.name for file in (tmp_path / "out.parquet.parts").iterdir()] == ["mine"]


def test_parquet_has_the_columns_of_the_csv_with_types(run: RunDir, tmp_path: Path) -> None:
    export(run, "parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names[:3] == ["path", "cluster", "confidence"]
    assert table.schema.field("cluster").type == pa.int32()
    assert table["confidence"].equals(run.read_clusters()["confidence"])


def test_a_table_of_others_is_not_overwritten(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "clusters.csv").write_text("mine")
    with pytest.raises(RequestError, match=r"clusters\.csv is there already, with other content"):
        export(run, "csv", tmp_path)
    assert (tmp_path / "clusters.csv").read_text() == "mine"
    export(run, "csv", tmp_path / "new/out.csv")
    assert export(run, "csv", tmp_path / "new/out.csv").already == 6


# -- other programs ----------------------------------------------------------------------------------------------------


def test_fiftyone_finds_each_image_by_its_name_without_extension(run: RunDir, source: Path, tmp_path: Path) -> None:
    (source / "a/y.png").unlink()
    export(run, "fiftyone", tmp_path / "out")
    labels = json.loads((tmp_path / "out/labels.json").read_text(encoding="utf-8"))
    # What FiftyOne does: every file of data/ by its name without extension, then the labels by that name.
    files = {os.path.splitext(file.name)[0]: file for file in (tmp_path / "out/data").iterdir()}  # noqa: PTH122
    assert files.keys() == labels["labels"].keys()
    assert len(files) == 5
    found = {
        entry["attributes"]["source_path"]: labels["classes"][entry["label"]] for entry in labels["labels"].values()
    }
    assert found == {path: f"cluster_{cluster:03d}" for path, cluster in FILES.items() if path != "a/y.png"}


def test_labelstudio_tasks_fit_their_configuration(run: RunDir, source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    export(run, "labelstudio", tmp_path / "out.json", say=said.append)
    tasks = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    config = ElementTree.parse(tmp_path / "out.xml").getroot()
    choices = config.find("Choices")
    assert choices is not None
    offered = {choice.get("value") for choice in choices}
    for task, (path, cluster) in zip(tasks, FILES.items(), strict=True):
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (choices.get("name"), choices.get("toName"))
        assert result["value"]["choices"] == [f"cluster_{cluster:03d}"]
        assert set(result["value"]["choices"]) <= offered
        assert 0 <= prediction["score"] <= 1
        assert task["data"]["path"] == path
    assert tasks[5]["data"]["image"] == "/data/local-files/?d=source/top.png"
    assert f"DOCUMENT_ROOT={source.parent}," in said[0]


def test_labelstudio_cannot_open_rows_of_tables(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", [("a.png", "s3://bucket/a.png", 0), ("b.png", "file:///x.parquet#row=3", 0)])
    with pytest.raises(RequestError, match=r"no way to open b\.png .*--to folders"):
        export(run_dir, "labelstudio", tmp_path / "out.json")


def test_torchvision_reads_an_image_folder(run: RunDir, tmp_path: Path) -> None:
    export(run, "imagefolder", tmp_path / "out")
    dataset = ImageFolder(tmp_path / "out")
    assert dataset.classes == ["cluster_000", "cluster_002", "cluster_011"]
    assert sorted(dataset.targets) == [0, 0, 0, 1, 1, 2]
    assert all(image.size == (4, 3) for image, _ in dataset)


def test_imagefolder_says_which_files_torchvision_passes_over(run: RunDir, source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    export(run, "imagefolder", tmp_path / "out", say=said.append)
    assert said == []
    run_dir = write_run(tmp_path / "other", [("x.heic", uri_of(source / "top.png"), 0)])
    export(run_dir, "imagefolder", tmp_path / "more", say=said.append)
    assert said[0].endswith(": .heic")


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "pdf"}, "--to has value 'pdf'; expected one of folders, csv"),
        ({"kind": "folders", "mode": "steal"}, "--mode has value 'steal'"),
        ({"kind": "csv", "layout": "round"}, "--layout has value 'round'"),
        ({"kind": "csv", "mode": "move"}, "--mode move does not go with --to csv"),
        ({"kind": "parquet", "layout": "wide"}, "--layout wide does not go with --to parquet"),
    ],
)
def test_arguments_that_do_not_go(run: RunDir, tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        export(run, dest=tmp_path / "out", **arguments)  # type: ignore[arg-type]


def test_dest_that_is_a_file(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RequestError, match="is a file; expected a folder"):
        export(run, "folders", tmp_path / "out")


def test_a_run_without_clusters(run: RunDir, tmp_path: Path) -> None:
    run.clusters.unlink()
    with pytest.raises(RunError, match="no clusters yet"):
        export(run, "csv", tmp_path / "out.csv")
