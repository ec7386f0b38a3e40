"""A publication takes an earlier one's place: at every moment one of the two is there, whole; what is others' stays."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from kills import count_writes, kill
from shoal import lock
from shoal.errors import DiskSpaceError, RequestError, RunLockedError
from shoal.publication import MANIFEST, Folder, Manifest, read_whole, staging_folder
from shoal.publish import placing
from shoal.publish.placing import check_replaceable, put
from small_export import tree

OLD = {"config.json": b"old", "encoder.safetensors": b"the same", "names.json": b"old names"}
NEW = {"config.json": b"new", "encoder.safetensors": b"the same", "clusters.json": b"new clusters"}
OTHER = {"config.json": b"other", "encoder.safetensors": b"others"}
NAMES = sorted({*OLD, *NEW, *OTHER})


def make(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    Manifest.of(folder).write(folder)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    named = {"old": OLD, "new": NEW, "other": OTHER}
    return {name: make(tmp_path / f"made-{name}", files) for name, files in named.items()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model"


def seen(folder: Path) -> dict[str, bytes]:
    """What a reader of Shoal's finds there."""

    def read(files: Folder) -> dict[str, bytes]:
        return {name: (files / name).read_bytes() for name in NAMES if (files / name).is_file()}

    return read_whole(folder, read)


def whole(made: Path) -> dict[str, bytes]:
    return tree(made)


# -- one or the other --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [{}, OLD])
@pytest.mark.parametrize("torn", [False, True])
def test_killed_anywhere_the_old_or_the_new_is_there_and_the_same_command_goes_on(
    made: dict[str, Path], target: Path, first: dict[str, bytes], torn: bool
) -> None:
    def start() -> None:
        shutil.rmtree(target, ignore_errors=True)
        if first:
            put(made["old"], target)

    start()
    writes = count_writes(target, lambda: put(made["new"], target))
    assert writes > 8
    found = []
    for write in range(writes):
        start()
        kill(target, write, lambda: put(made["new"], target), torn=torn)
        found.append(seen(target) if target.exists() else {})
        assert found[-1] in (first, NEW)
        assert put(made["new"], target) == []
        assert tree(target) == whole(made["new"])
    assert [one == NEW for one in found] == sorted(one == NEW for one in found)
    assert {len(one) for one in found} == {len(first), len(NEW)}  # both were seen


@pytest.mark.parametrize("torn", [False, True])
def test_killed_anywhere_another_one_takes_the_place_of_both(made: dict[str, Path], target: Path, torn: bool) -> None:
    put(made["old"], target)
    writes = count_writes(target, lambda: put(made["new"], target))
    for write in range(writes):
        shutil.rmtree(target)
        put(made["old"], target)
        kill(target, write, lambda: put(made["new"], target), torn=torn)
        left = put(made["other"], target)
        assert seen(target) == OTHER
        at_top = {name: data for name, data in tree(target).items() if "/" not in name}
        assert at_top == whole(made["other"])
        assert len(left) == (1 if tree(target) != at_top else 0)  # what could be anybody's is told of


def test_killed_twice_it_still_goes_on(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    writes = count_writes(target, lambda: put(made["new"], target))
    for first in range(writes):
        for second in range(0, 4):
            shutil.rmtree(target)
            put(made["old"], target)
            kill(target, first, lambda: put(made["new"], target))
            before = seen(target)
            kill(target, second, lambda: put(made["other"], target))
            assert seen(target) in (before, NEW, OTHER)
            put(made["other"], target)
            assert seen(target) == OTHER


def test_a_reader_meets_no_mixture_while_it_reads(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    publications = iter([made["new"], made["other"]])

    def read(files: Folder) -> dict[str, bytes]:
        found = {}
        for name in NAMES:
            if (files / name).is_file():
                found[name] = (files / name).read_bytes()
            if (coming := next(publications, None)) is not None:
                put(coming, target)
        return found

    assert read_whole(target, read) == OTHER


def test_a_reader_reads_again_what_moved_under_its_hands(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    writes = count_writes(target, lambda: put(made["new"], target))
    shutil.rmtree(target)
    put(made["old"], target)
    kill(target, writes - 6, lambda: put(made["new"], target))
    assert seen(target) == NEW
    is_first = True

    def read(files: Folder) -> bytes:
        nonlocal is_first
        path = files / "config.json"
        if is_first:
            is_first = False
            put(made["new"], target)
        return path.read_bytes()

    assert read_whole(target, read) == b"new"


def test_what_cannot_be_read_is_an_error_at_once(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    with pytest.raises(FileNotFoundError):
        read_whole(target, lambda files: (files / "nothing").read_bytes())


def test_what_is_there_already_is_not_written_again(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    assert count_writes(target, lambda: put(made["old"], target)) == 0
    weights = (target / "encoder.safetensors").stat().st_ino
    put(made["new"], target)
    assert (target / "encoder.safetensors").stat().st_ino == weights


def test_a_file_that_somebody_deleted_comes_back(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    (target / "names.json").unlink()
    put(made["old"], target)
    assert tree(target) == whole(made["old"])


# -- what is nobody's to touch -----------------------------------------------------------------------------------------


def arriving(made: dict[str, Path], target: Path) -> Path:
    """The new publication, committed and not yet in place; where it is made ready."""
    put(made["old"], target)
    staging = staging_folder(target, (made["new"] / MANIFEST).read_bytes())
    for write in range(100):
        kill(target, write, lambda: put(made["new"], target))
        if not (staging / MANIFEST).exists() and staging.exists() and seen(target) == NEW:
            return staging
        shutil.rmtree(target)
        put(made["old"], target)
    raise AssertionError("it never was on its way")


def test_a_file_that_was_edited_while_one_arrives_stays(made: dict[str, Path], target: Path) -> None:
    arriving(made, target)
    (target / "config.json").write_bytes(b"mine")
    before = tree(target)
    for coming in ("new", "other"):
        with pytest.raises(RequestError, match=r"config\.json was changed since it was published; move it elsewhere"):
            put(made[coming], target)
    assert tree(target) == before
    assert seen(target) == NEW
    (target / "config.json").unlink()
    put(made["new"], target)
    assert tree(target) == whole(made["new"])


def test_a_file_that_the_new_one_lacks_goes_only_if_it_is_the_earlier_ones(made: dict[str, Path], target: Path) -> None:
    arriving(made, target)
    (target / "names.json").write_bytes(b"mine")
    with pytest.raises(RequestError, match=r"names\.json was changed since it was published"):
        put(made["new"], target)
    assert (target / "names.json").read_bytes() == b"mine"


@pytest.mark.parametrize("name", [".model.4194304.ab.tmp", ".4194304.shoal-part", ".shoal-publishing-mine"])
def test_what_looks_like_a_leftover_stays(made: dict[str, Path], target: Path, name: str) -> None:
    beside = target.parent / name
    beside.mkdir()
    (beside / "README.md").write_text("mine")
    put(made["old"], target)
    assert tree(beside) == {"README.md": b"mine"}
    shutil.copytree(beside, target / name)
    with pytest.raises(RequestError, match="which shoal publish has not written"):
        put(made["new"], target)
    assert (target / name / "README.md").read_text() == "mine"
    assert seen(target) == OLD


def test_only_what_a_cut_off_publication_wrote_down_is_removed(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    staging = staging_folder(target, (made["new"] / MANIFEST).read_bytes())
    writes = count_writes(target, lambda: put(made["new"], target))
    shutil.rmtree(target)
    put(made["old"], target)
    for write in range(writes):  # as far as it gets before it is there
        kill(target, write, lambda: put(made["new"], target))
        if (staging / "clusters.json").exists() and seen(target) == OLD:
            break
        shutil.rmtree(target)
        put(made["old"], target)
    (staging / "notes.txt").write_text("mine")
    (staging / "names.json").write_text("mine too")  # a name that the new one does not have
    (said,) = put(made["other"], target)
    assert str(staging) in said
    assert tree(staging) == {"notes.txt": b"mine", "names.json": b"mine too"}
    assert seen(target) == OTHER


def test_a_folder_whose_manifest_is_not_what_its_name_says_is_not_shoals(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    strange = target / f".shoal-publishing-{'0' * 64}"
    shutil.copytree(made["new"], strange)
    before = tree(strange)
    assert len(put(made["other"], target)) == 1
    assert tree(strange) == before
    assert seen(target) == OTHER


@pytest.mark.parametrize("name", ["../outside.txt", "..", "sub/file", "/etc/hosts", "a\\b", ""])
def test_a_manifest_that_names_what_is_no_file_of_the_folder_is_none(
    made: dict[str, Path], target: Path, name: str
) -> None:
    shutil.copytree(made["old"], target)
    Manifest({**Manifest.of(target).files, name: "0" * 64}).write(target)
    with pytest.raises(RequestError, match="has not written"):
        check_replaceable(target)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_are_not_replaced(made: dict[str, Path], target: Path) -> None:
    for name in ("config.json", MANIFEST):
        put(made["old"], target)
        (target / name).rename(target.parent / "kept")
        (target / name).symlink_to(target.parent / "kept")
        with pytest.raises(RequestError, match=r"was changed since|has not written"):
            put(made["new"], target)
        assert (target / name).is_symlink()
        shutil.rmtree(target)


def test_two_do_not_publish_to_one_folder_at_once(made: dict[str, Path], target: Path) -> None:
    put(made["old"], target)
    with lock.alone(target), pytest.raises(RunLockedError, match="another Shoal is writing into"):
        put(made["new"], target)
    assert tree(target) == whole(made["old"])


@pytest.mark.parametrize("is_first", [True, False])
def test_a_full_disk_leaves_what_was_there(
    made: dict[str, Path], target: Path, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_first:
        put(made["old"], target)
    before = tree(target.parent)
    copy, left = placing._copy, [2]

    def full(source: Path, to: Path) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
        left[0] -= 1
        copy(source, to)

    monkeypatch.setattr(placing, "_copy", full)
    with pytest.raises(DiskSpaceError, match="is full; nothing there has changed"):
        put(made["new"], target)
    assert tree(target.parent) == before
    assert target.exists() != is_first
