"""Edits: the log, what it makes of a clustering, and how it is carried over to another one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import records
from shoal.browse.run_view import RunView
from shoal.corrections import changes
from shoal.corrections.base import Base
from shoal.corrections.changes import StaleError
from shoal.corrections.corrected import Corrected, corrected_by, read_corrected
from shoal.corrections.edit import REDO, SAMPLE, UNDO, Edit, Reference, Refitted, ids_of, ranges_of
from shoal.corrections.log import Log, append, in_force, read_log
from shoal.corrections.replay import MOST_BYTES, Replay, Replayer, _worth_keeping, replay
from shoal.errors import RequestError, RunError
from shoal.rundir import RunDir
from small_run import write_small_run


def write_clusters(run: RunDir, cluster: Sequence[int], runner_up: Sequence[int] | None = None) -> None:
    """Clusters of all images of a small run, duplicates too."""
    count = len(cluster)
    columns = {
        "id": pa.array(range(count), pa.int64()),
        "path": [f"{number}.png" for number in range(count)],
        "cluster": pa.array(cluster, pa.int32()),
        "confidence": pa.array(np.linspace(0.4, 0.9, count), pa.float32()),
        "unsure": [number % 4 == 0 for number in range(count)],
        "silhouette": pa.array(np.linspace(-0.1, 0.5, count), pa.float32()),
        "runner_up": pa.array(runner_up or [(one + 1) % (max(cluster) + 1) for one in cluster], pa.int32()),
    }
    records.write_table(run.clusters, pa.table(columns, schema=records.CLUSTERS))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Thirty images in three clusters of ten: 0-9, 10-19, 20-29; image 9 is a copy of 8."""
    statuses = [records.OK] * 30
    statuses[9] = records.DUPLICATE
    run = write_small_run(tmp_path / "run", np.eye(30, 4, dtype=np.float32) + 1, statuses)
    write_clusters(run, [number // 10 for number in range(30)])
    return run


def do(run: RunDir, make: object, *arguments: object) -> Corrected:
    """Append an edit as the server does, and return the clusters after it."""
    append(run, lambda log: make(read_corrected(run), *arguments))  # type: ignore[operator]
    return read_corrected(run)


def undo(run: RunDir) -> Corrected:
    append(run, lambda log: changes.undo(read_corrected(run), log))
    return read_corrected(run)


def redo(run: RunDir) -> Corrected:
    append(run, lambda log: changes.redo(read_corrected(run), log))
    return read_corrected(run)


def groups(corrected: Corrected) -> set[frozenset[int]]:
    return {frozenset(corrected.members(number).tolist()) for number in corrected.numbers}


# -- texts -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 300)))
def test_ranges_read_back_as_the_same_ids(ids: list[int]) -> None:
    assert ids_of(ranges_of(ids)).tolist() == sorted(set(ids))


def test_ranges_are_short_and_readable() -> None:
    assert ranges_of([9, 5, 7, 6, 8, 3]) == "3,5-9"
    assert ranges_of([]) == ""


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1,,2", "5-3", "1 2", "0-99999999999"])
def test_what_is_no_list_of_ids_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ids"):
        ids_of(text)


def test_a_line_says_operation_ids_clustering_and_time(run: RunDir) -> None:
    before = read_corrected(run)
    do(run, changes.move, [3, 4, 5], 1)
    line = json.loads(run.edits.read_text())
    assert {name: line[name] for name in ("n", "op", "ids", "base")} == {
        "n": 1,
        "op": "move",
        "ids": "3-5",
        "base": before.base,
    }
    assert line["clusters"][0]["cluster"] == 1
    assert line["time"].endswith("+00:00")
    assert Edit.from_line(run.edits.read_bytes(), 1).to_line() == run.edits.read_bytes()


def test_a_reference_to_a_huge_cluster_stays_small() -> None:
    reference = Reference.of(0, np.arange(0, 1_000_000, 2))
    assert len(reference.ids) == SAMPLE
    assert reference.size == 500_000


# -- operations ------------------------------------------------------------------------------------------------------


def test_nothing_changed_is_the_table(run: RunDir) -> None:
    corrected = read_corrected(run)
    assert not corrected.is_changed
    assert corrected.cluster.tolist() == [number // 10 for number in range(30)]
    assert corrected.names == {}


def test_clusters_with_an_image_twice_are_refused(run: RunDir) -> None:
    table = records.read_table(run.clusters)
    records.write_table(run.clusters, pa.concat_tables([table, table.slice(2, 1)]))
    with pytest.raises(RunError, match="column 'id' has a number twice"):
        read_corrected(run)


def test_rename(run: RunDir) -> None:
    assert do(run, changes.rename, 1, "  cats \n and dogs ").names == {1: "cats and dogs"}
    assert do(run, changes.rename, 1, "").names == {}


def test_merge_keeps_the_first_and_a_name(run: RunDir) -> None:
    do(run, changes.rename, 2, "dogs")
    corrected = do(run, changes.merge, [0, 2])
    assert corrected.numbers == [0, 1]
    assert corrected.members(0).tolist() == [*range(10), *range(20, 30)]
    assert corrected.names == {0: "dogs"}
    assert np.isnan(corrected.silhouette[0])
    assert not np.isnan(corrected.silhouette[15])


def test_doubt_between_merged_clusters_is_gone(run: RunDir) -> None:
    corrected = do(run, changes.merge, [0, 1])  # the runner-up of 0 is 1, of 1 is 2, of 2 is 0
    assert not corrected.unsure[:10].any()
    assert (corrected.runner_up[:10] == -1).all()
    assert corrected.unsure[12]
    assert (corrected.runner_up[20:] == 0).all()


def test_split_keeps_the_number_for_the_first_part(run: RunDir) -> None:
    corrected = do(run, changes.split, 1, [np.arange(10, 14), np.arange(14, 20)])
    assert corrected.members(1).tolist() == [10, 11, 12, 13]
    assert corrected.members(3).tolist() == [14, 15, 16, 17, 18, 19]


def test_a_split_of_other_images_than_previewed_is_stale(run: RunDir) -> None:
    with pytest.raises(StaleError, match="preview it again"):
        do(run, changes.split, 1, [np.arange(10, 14), np.arange(14, 19)])


def test_moved_images_are_sure_and_bring_their_copies(run: RunDir) -> None:
    corrected = do(run, changes.move, [8], 2)
    assert corrected.cluster[[8, 9]].tolist() == [2, 2]
    assert corrected.pinned[8]
    assert corrected.confidence[8] == 1
    assert not corrected.unsure[8]
    assert do(run, changes.move, [9], 1).cluster[[8, 9]].tolist() == [1, 1]


def test_images_go_with_their_originals_and_all_copies_of_these() -> None:
    draw = np.random.default_rng(0)
    original = np.arange(200)
    copies = draw.choice(np.arange(100, 200), 60, replace=False)
    original[copies] = draw.integers(0, 100, 60)
    empty = np.zeros(200, np.float32)
    whole = np.zeros(200, np.int32)
    base = Base(
        np.arange(200), original, whole, empty, empty > 0, empty, whole, "0" * 16, Path("model"), Path("levels")
    )
    for count in (0, 1, 7, 200):
        rows = draw.choice(200, count, replace=False)
        expected = np.flatnonzero(np.isin(original, original[rows]))
        assert np.array_equal(np.sort(base.together(rows)), expected)


def test_an_image_kept_where_it_is_is_sure_and_counts_as_a_change(run: RunDir) -> None:
    before = read_corrected(run)
    corrected = do(run, changes.move, [4], 0)
    assert before.unsure[4]
    assert not corrected.unsure[4]
    assert corrected.is_changed
    assert corrected.digest != before.digest  # what was told of its doubt is stale


def test_moving_to_nowhere_makes_a_cluster(run: RunDir) -> None:
    corrected = do(run, changes.move, [1, 11], None, "odd ones")
    assert corrected.members(3).tolist() == [1, 11]
    assert corrected.names == {3: "odd ones"}


def test_noise_is_one_cluster(run: RunDir) -> None:
    do(run, changes.mark_noise, [1])
    corrected = do(run, changes.mark_noise, [21])
    assert corrected.noise == 3
    assert corrected.members(3).tolist() == [1, 21]


@pytest.mark.parametrize(
    ("make", "arguments", "named"),
    [
        (changes.rename, (7, "x"), "cluster has value 7"),
        (changes.rename, (1, "x" * 201), "201 characters"),
        (changes.rename, (1, "a\x00b"), "cannot be shown"),
        (changes.merge, ([1, 1],), "at least two"),
        (changes.merge, ([1, 9],), "cluster has value 9"),
        (changes.move, ([], 1), "ids is empty"),
        (changes.move, ([3, 77], 1), "ids has value 77"),
        (changes.mark_noise, ([-4],), "ids has value -4"),
    ],
)
def test_wrong_requests_say_what_is_wrong(run: RunDir, make: object, arguments: tuple[object, ...], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        do(run, make, *arguments)
    assert not run.edits.exists()


# -- undo and redo ---------------------------------------------------------------------------------------------------

STEPS = (
    (changes.rename, (0, "zero")),
    (changes.merge, ([0, 1],)),
    (changes.move, ([22, 23], 0)),
    (changes.move, ([5, 6], None)),
    (changes.mark_noise, ([7],)),
    (changes.rename, (2, "two")),
)


def test_undo_takes_back_one_by_one_and_redo_brings_again(run: RunDir) -> None:
    seen = [read_corrected(run)] + [do(run, make, *arguments) for make, arguments in STEPS]
    for expected in reversed(seen[:-1]):
        assert undo(run).digest == expected.digest
    with pytest.raises(RequestError, match="nothing to undo"):
        undo(run)
    for expected in seen[1:]:
        assert redo(run).digest == expected.digest
    with pytest.raises(RequestError, match="nothing to redo"):
        redo(run)
    assert [edit.op for edit in read_log(run)].count(UNDO) == len(STEPS)


def test_a_new_edit_ends_what_can_be_redone(run: RunDir) -> None:
    do(run, changes.rename, 0, "a")
    undo(run)
    do(run, changes.rename, 0, "b")
    with pytest.raises(RequestError, match="nothing to redo"):
        redo(run)


def test_numbers_of_undone_clusters_are_not_given_again(run: RunDir) -> None:
    do(run, changes.move, [1], None)
    undo(run)
    assert do(run, changes.move, [2], None).numbers == [0, 1, 2, 4]


@settings(max_examples=12)
@given(st.lists(st.sampled_from([*range(len(STEPS)), UNDO, REDO]), max_size=10))
def test_a_log_gives_what_its_edits_in_force_give(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[object]
) -> None:
    run = write_small_run(tmp_path_factory.mktemp("log") / "run", np.eye(30, 4, dtype=np.float32) + 1)
    write_clusters(run, [number // 10 for number in range(30)])
    for step in wanted:
        try:
            if step == UNDO:
                undo(run)
            elif step == REDO:
                redo(run)
            else:
                make, arguments = STEPS[step]  # type: ignore[call-overload]
                do(run, make, *arguments)
        except RequestError:
            continue  # there was nothing to undo, or the cluster is gone
    log = read_log(run)
    whole = read_corrected(run)
    assert corrected_by(run, whole.source, in_force(log)[0]).cluster.tolist() == whole.cluster.tolist()
    assert whole.cluster.min() >= 0
    assert len(whole.ids) == 30


# -- the file --------------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_is_cut_off(run: RunDir) -> None:
    do(run, changes.rename, 0, "a")
    whole = run.edits.read_bytes()
    run.edits.write_bytes(whole + b'{"n":2,"op":"ren')
    assert [edit.n for edit in read_log(run)] == [1]
    do(run, changes.rename, 0, "b")
    assert run.edits.read_bytes().startswith(whole + b'{"n":2,"op":"rename"')
    assert read_corrected(run).names == {0: "b"}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"{}", "line 1 is not readable"),
        (b"not json", "line 1 is not readable"),
        (b'{"op":"paint","base":"0","time":""}', "op has value 'paint'"),
        (b'{"op":"move","ids":"x","base":"0","time":""}', "line 1 is not readable"),
        (b"[1]", "line 1 is not readable"),
    ],
)
def test_a_line_that_is_none_is_told(run: RunDir, line: bytes, named: str) -> None:
    run.edits.write_bytes(line + b"\n")
    with pytest.raises(RunError, match=named):
        read_corrected(run)


def test_many_writers_lose_no_line(run: RunDir) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: do(run, changes.rename, number % 3, f"name {number}"), range(30)))
    log = read_log(run)
    assert [edit.n for edit in log] == list(range(1, 31))
    assert {edit.name for edit in log} == {f"name {number}" for number in range(30)}


def by_hand(run: RunDir, change: Callable[[list[bytes]], list[bytes]]) -> None:
    run.edits.write_bytes(b"".join(change(run.edits.read_bytes().splitlines(keepends=True))))


RENAMED = {"same length": b'"name 1"', "longer": b'"another name"', "shorter": b'"n"'}


@pytest.mark.parametrize("name", RENAMED.values(), ids=RENAMED)
@pytest.mark.parametrize("is_longer", [False, True], ids=["", "and a line more"])
def test_a_log_that_was_changed_by_hand_is_read_anew(run: RunDir, name: bytes, is_longer: bool) -> None:
    log = Log(run.edits)
    for number in range(3):
        append(run, lambda lines, number=number: changes.rename(read_corrected(run), number, f"name {number}"), log)
    assert [edit.name for edit in log.read()] == ["name 0", "name 1", "name 2"]
    by_hand(run, lambda lines: [line.replace(b'"name 0"', name) for line in lines] + lines[1:2] * is_longer)
    assert [edit.to_line() for edit in log.read()] == [edit.to_line() for edit in read_log(run)]
    assert log.read()[0].name == json.loads(name)
    assert len(log.read()) == 3 + is_longer


def test_a_log_that_was_cut_or_taken_away_by_hand_is_read_anew(run: RunDir) -> None:
    log = Log(run.edits)
    for number in range(3):
        append(run, lambda lines, number=number: changes.rename(read_corrected(run), number, f"name {number}"), log)
    by_hand(run, lambda lines: lines[:1])
    assert [edit.name for edit in log.read()] == ["name 0"]
    append(run, lambda lines: changes.rename(read_corrected(run), 0, "after"), log)
    assert [(edit.n, edit.name) for edit in read_log(run)] == [(1, "name 0"), (2, "after")]
    run.edits.unlink()
    assert log.read() == []
    append(run, lambda lines: changes.rename(read_corrected(run), 0, "anew"), log)
    assert [(edit.n, edit.name) for edit in log.read()] == [(1, "anew")]


def test_what_was_written_by_hand_while_an_edit_was_made_is_not_cut_off(run: RunDir) -> None:
    do(run, changes.rename, 0, "a")
    log = Log(run.edits)

    def make(lines: Sequence[Edit]) -> Edit:
        by_hand(run, lambda lines: lines + lines)
        return changes.rename(read_corrected(run), 1, "b")

    append(run, make, log)
    assert [edit.name for edit in log.read()] == ["a", "a", "b"]


def test_a_line_that_is_none_is_told_each_time_and_forgotten_once_mended(run: RunDir) -> None:
    log = Log(run.edits)
    append(run, lambda lines: changes.rename(read_corrected(run), 0, "a"), log)
    whole = run.edits.read_bytes()
    run.edits.write_bytes(whole + b"{}\n")
    for _ in range(2):
        with pytest.raises(RunError, match="line 2 is not readable"):
            log.read()
    run.edits.write_bytes(whole)
    assert [edit.name for edit in log.read()] == ["a"]


def test_known_lines_are_the_same_objects(run: RunDir) -> None:
    log = Log(run.edits)
    append(run, lambda lines: changes.rename(read_corrected(run), 0, "a"), log)
    (first,) = log.read()
    do(run, changes.rename, 1, "by another window")
    append(run, lambda lines: changes.rename(read_corrected(run), 2, "c"), log)
    assert [edit.name for edit in log.read()] == ["a", "by another window", "c"]
    assert log.read()[0] is first
    assert all(one is other for one, other in zip(log.read(), log.read(), strict=True))


# -- a log that grows --------------------------------------------------------------------------------------------------


ROWS = 24
DIGESTS = ("a" * 16, "b" * 16)


def clustering(digest: str) -> Base:
    """24 images; row 5 is a copy of 4, and 17 of 16. In `a` they are in order, in `b` in turn."""
    rows = np.arange(ROWS)
    original = np.where(np.isin(rows, (5, 17)), rows - 1, rows)
    cluster = (rows[original] // 6 if digest == DIGESTS[0] else rows[original] % 3).astype(np.int32)
    values = np.linspace(0, 1, ROWS, dtype=np.float32)
    return Base(
        rows * 3,
        original,
        cluster,
        values,
        values < 0.3,
        values,
        cluster[::-1].copy(),
        digest,
        Path(digest),
        Path(digest),
    )


BASES = {digest: clustering(digest) for digest in DIGESTS}
IMAGES = st.lists(st.sampled_from([*range(0, ROWS * 3, 3), 1000]), min_size=1, max_size=6, unique=True).map(
    lambda ids: np.array(sorted(ids))
)
CLUSTERS = st.builds(Reference.of, st.integers(0, 7), IMAGES)
KNOWN = st.sampled_from(DIGESTS)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Any edit, on either clustering; most of what it names is there."""
    op = draw(st.sampled_from(["rename", "merge", "split", "move", "new", "noise", "refit", *[UNDO, REDO] * 2]))
    line: dict[str, Any] = {"n": 0, "op": op, "base": draw(KNOWN), "time": ""}
    number = (draw(st.integers(3, 9)),)
    about: dict[str, Any] = {}
    match op:
        case "rename":
            about = {"clusters": (draw(CLUSTERS),), "name": draw(st.sampled_from(["x", "y", None]))}
        case "merge":
            about = {"clusters": tuple(draw(st.lists(CLUSTERS, min_size=2, max_size=3)))}
        case "split":
            about = {"clusters": (draw(CLUSTERS),), "parts": (draw(IMAGES), draw(IMAGES)), "new": number}
        case "move":
            about = {"clusters": (draw(CLUSTERS),), "ids": draw(IMAGES)}
        case "new":
            about = {"op": "move", "ids": draw(IMAGES), "new": number, "name": draw(st.sampled_from(["z", None]))}
        case "noise":
            about = {"ids": draw(IMAGES), "new": draw(st.sampled_from([number, ()]))}
        case "refit":
            about = {"refitted": Refitted(draw(KNOWN), {0: "fitted"}, None, draw(IMAGES), {0: 1, 1: 0}, {})}
    return Edit(**line | about)


def numbered(log: Sequence[Edit]) -> list[Edit]:
    return [dataclasses.replace(edit, n=number) for number, edit in enumerate(log, 1)]


def assert_same(one: Replay, other: Replay) -> None:
    for field in dataclasses.fields(Replay):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.tolist() == theirs.tolist(), field.name
        else:
            assert ours == theirs, field.name


@settings(max_examples=300, deadline=None)
@given(st.lists(edits(), max_size=25), st.data())
def test_one_edit_more_gives_what_all_of_them_give(lines: list[Edit], data: st.DataObject) -> None:
    """Whatever was asked for before: a log that grew, how it was earlier, one changed by hand, another clustering."""
    log, base, length = numbered(lines), BASES[DIGESTS[0]], 0
    replayer = Replayer(BASES.get)
    for _ in range(12):
        match data.draw(st.sampled_from(["grow", "grow", "grow", "earlier", "by hand", "cluster"])):
            case "grow":
                length = min(len(log), length + data.draw(st.integers(1, 4)))
            case "earlier":
                earlier = data.draw(st.integers(0, length))
                assert_same(replayer.after(base, log[:earlier]), replay(base, log[:earlier], BASES.get))
            case "by hand":
                place = data.draw(st.integers(0, len(log)))
                log = numbered([*log[:place], *data.draw(st.lists(edits(), max_size=3)), *log[place + 1 :]])
                length = min(length, len(log))
            case "cluster":
                base = BASES[data.draw(KNOWN)]
        assert_same(replayer.after(base, log[:length]), replay(base, log[:length], BASES.get))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 6000), st.integers(0, 6000), st.integers(1, 200 << 20))
def test_states_are_kept_where_they_are_near_and_no_more_than_fit(count: int, more: int, state_bytes: int) -> None:
    total = count + more
    kept = np.array(sorted(_worth_keeping(count, total, state_bytes)))
    assert {0, count} <= set(kept.tolist()) <= set(range(total + 1))
    places = np.arange(total + 1)
    way = places - kept[np.searchsorted(kept, places, side="right") - 1]
    assert (way <= 2 * np.abs(places - count)).all()
    if state_bytes < 1 << 19:  # of 100,000 images
        assert (way <= np.abs(places - count) / 4).all()
    assert len(kept) * state_bytes <= MOST_BYTES or len(kept) <= 4 * np.log2(total + 2) + 4


def test_an_undo_and_a_line_of_another_window_are_seen(run: RunDir) -> None:
    view = RunView(run)
    do(run, changes.merge, [0, 1])
    assert view.snapshot().corrected.numbers == [0, 2]
    do(run, changes.move, [25], 0)
    assert view.snapshot().corrected.members(0).tolist() == [*range(20), 25]
    undo(run)
    undo(run)
    assert view.snapshot().corrected.numbers == [0, 1, 2]
    assert view.snapshot(1).corrected.numbers == [0, 2]
    by_hand(run, lambda lines: [line.replace(b'"cluster":0', b'"cluster":2') for line in lines[:1]])
    assert view.snapshot().corrected.members(2).tolist() == list(range(10, 30))


# -- carried over to another clustering --------------------------------------------------------------------------------


def test_a_new_cluster_that_was_carried_over_keeps_its_number(run: RunDir) -> None:
    do(run, changes.move, [1, 2, 3], None, "theirs")
    write_clusters(run, [(number // 10 + 1) % 3 for number in range(30)])
    carried = read_corrected(run)
    assert carried.names == {3: "theirs"}
    more = do(run, changes.move, [11], None, "mine")
    assert more.names == {3: "theirs", 4: "mine"}
    assert more.members(3).tolist() == [1, 2, 3]
    assert do(run, changes.rename, 3, "ours").names == {3: "ours", 4: "mine"}
    undo(run)
    undo(run)
    assert do(run, changes.move, [12], None).numbers == [0, 1, 2, 3, 5]  # 4 was given once


def test_edits_follow_their_clusters_to_other_numbers(run: RunDir) -> None:
    do(run, changes.rename, 0, "zero")
    do(run, changes.move, [12, 13], 0)
    before = do(run, changes.merge, [1, 2])
    write_clusters(run, [(number // 10 + 1) % 3 for number in range(30)])
    after = read_corrected(run)
    assert after.conflicts == {}
    assert groups(after) == groups(before)
    assert list(after.names.values()) == ["zero"]
    assert after.members(1).tolist() == [*range(10), 12, 13]


def test_edits_bear_images_that_changed_their_cluster(run: RunDir) -> None:
    do(run, changes.rename, 1, "one")
    do(run, changes.move, [0, 1], 1)
    write_clusters(run, [0] * 12 + [1] * 9 + [2] * 9)
    after = read_corrected(run)
    assert after.conflicts == {}
    assert after.names == {1: "one"}
    assert after.members(1).tolist() == [0, 1, *range(12, 21)]


def test_new_clusters_are_made_again(run: RunDir) -> None:
    do(run, changes.move, [1, 2], None, "mine")
    before = do(run, changes.rename, 3, "ours")
    write_clusters(run, [2 - number // 10 for number in range(30)])
    after = read_corrected(run)
    assert after.members(3).tolist() == [1, 2]
    assert after.names == before.names == {3: "ours"}


def test_a_split_that_the_clustering_came_to_itself_is_no_conflict(run: RunDir) -> None:
    do(run, changes.split, 1, [np.arange(10, 15), np.arange(15, 20)])
    write_clusters(run, [0] * 10 + [1] * 5 + [2] * 5 + [3] * 10)
    after = read_corrected(run)
    assert after.conflicts == {}
    assert after.numbers == [0, 1, 2, 3]


def test_a_cluster_that_is_gone_is_a_conflict_and_the_rest_stays(run: RunDir) -> None:
    do(run, changes.rename, 1, "one")
    do(run, changes.move, [25], 0)
    write_clusters(run, [0] * 10 + [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] + [11] * 10)
    after = read_corrected(run)
    assert list(after.conflicts) == [1]
    assert "no longer there" in after.conflicts[1]
    assert after.names == {}
    assert after.cluster[25] == 0


def test_images_that_are_gone_are_a_conflict_only_if_all_are(run: RunDir) -> None:
    do(run, changes.move, [28, 29], 0)
    do(run, changes.move, [29], 1)
    write_clusters(run, [number // 10 for number in range(29)])
    after = read_corrected(run)
    assert after.cluster[28] == 0
    assert list(after.conflicts) == [2]


def test_back_on_the_first_clustering_all_edits_hold_again(run: RunDir) -> None:
    before = do(run, changes.rename, 1, "one")
    write_clusters(run, list(range(30)))
    assert read_corrected(run).conflicts
    write_clusters(run, [number // 10 for number in range(30)])
    assert read_corrected(run).digest == before.digest


# -- two windows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ((changes.rename, 0, "a"), (changes.rename, 1, "b"), None),
        ((changes.rename, 0, "a"), (changes.rename, 0, "b"), "renamed cluster 0 to 'a'"),
        ((changes.merge, [0, 1]), (changes.rename, 1, "b"), "did away with cluster 1"),
        ((changes.merge, [0, 1]), (changes.merge, [1, 2]), "did away with cluster 1"),
        ((changes.move, [3], 1), (changes.move, [4], 1), None),
        ((changes.move, [3], 1), (changes.move, [3], 2), "moved some of these images"),
        ((changes.move, [3], 1), (changes.merge, [1, 2]), "changed the images of cluster 1"),
        ((changes.mark_noise, [3]), (changes.mark_noise, [13]), None),
        ((changes.rename, 0, "a"), (UNDO,), "another window changed something"),
    ],
)
def test_the_second_window_loses_nothing(
    run: RunDir, first: tuple[object, ...], second: tuple[object, ...], clash: str | None
) -> None:
    do(run, changes.rename, 2, "before")
    seen = read_corrected(run)
    do(run, *first)
    log, current = read_log(run), read_corrected(run)
    make, *arguments = second
    if clash is None:
        edit = make(current, *arguments)  # type: ignore[operator]
        changes.check_still_true(edit, seen, current, log[seen.version :])
        return
    with pytest.raises(StaleError, match=clash):
        edit = changes.undo(current, log) if make == UNDO else make(seen, *arguments)  # type: ignore[operator]
        changes.check_still_true(edit, seen, current, log[seen.version :])
