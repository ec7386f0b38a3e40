"""The index stage: ids that never shift, reasons, duplicates, limits, labels; nothing is read twice."""

from __future__ import annotations

import itertools
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drafted import run_index, run_stage
from messy import OK, encode, make_messy_folder, picture
from shoal import records
from shoal.config import ClusterConfig
from shoal.embed import join
from shoal.embed.batches import Failure
from shoal.embed.failures import write_failures
from shoal.errors import NoImagesError, SourceError
from shoal.images import catalogue, index
from shoal.images.contents import SCHEMA as CONTENTS
from shoal.images.contents import Content, read_all
from shoal.images.decode import Header
from shoal.images.item import Item
from shoal.images.listed import Listed, is_image_name, named_like_images
from shoal.progress import Progress, Task
from shoal.rundir import RunDir, StageResult

Rows = dict[str, dict[str, Any]]


class Watched(Progress):
    """Counts the files read, and can act before each chunk of them."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.read = 0
        self._act = act

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        self._act()
        yield self

    def advance(self, count: int = 1) -> None:
        self.read += count


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(picture(seed), "JPEG"))
    return path


def run(source: Path, out: Path, progress: Progress | None = None, **options: Any) -> StageResult:
    return run_index(out, source, progress, **options)


def rows(out: Path) -> Rows:
    table = pq.read_table(RunDir.open(out).listing)
    assert table.schema.equals(records.IMAGES)
    assert table["id"].to_pylist() == list(range(table.num_rows))
    return {row["path"]: row for row in table.to_pylist()}


def labels(out: Path) -> dict[int, str]:
    table = pq.read_table(out / "labels.parquet")
    return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(5):
        put(tmp_path / "photos" / f"{number}.jpg", number)
    return tmp_path / "photos"


# -- what is found ---------------------------------------------------------------------------------------------------


def test_a_messy_folder_is_indexed_with_a_reason_for_everything(tmp_path: Path) -> None:
    expected = make_messy_folder(tmp_path / "messy")
    result = run(tmp_path / "messy", tmp_path / "run")
    found = rows(tmp_path / "run")
    assert list(found) == sorted(expected)
    assert len([outcome for outcome in expected.values() if outcome != OK]) >= 25
    late = (
        "truncated",
        "JPEG",
        "PNG",
        "GIF",
        "WebP",
        "TIFF",
        "HEIF",
        "AVIF",
    )  # the pixels are the embed stage's to judge
    for path, outcome in expected.items():
        row = found[path]
        if outcome == OK:
            assert (row["status"], row["reason"]) == (records.OK, None), path
            assert row["width"] >= 1
            assert len(row["sha256"]) == 64
        elif row["status"] == records.OK:
            assert any(word in outcome for word in late), path
        else:
            assert row["status"] == records.SKIPPED
            assert outcome in row["reason"], path
    facts = result.facts
    assert facts["images"] == len(expected) == facts["ok"] + facts["skipped"]
    assert sum(facts["reasons"].values()) == facts["skipped"]
    assert facts["reasons"]["not an image"] >= 6
    assert facts["source"] == "messy"


def test_files_are_described(photos: Path, tmp_path: Path) -> None:
    import hashlib

    run(photos, tmp_path / "run")
    row = rows(tmp_path / "run")["3.jpg"]
    data = (photos / "3.jpg").read_bytes()
    assert row == {
        "id": 3,
        "path": "3.jpg",
        "uri": (photos / "3.jpg").as_uri(),
        "size_bytes": len(data),
        "mtime": (photos / "3.jpg").stat().st_mtime,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 64,
        "height": 48,
        "status": "ok",
        "reason": None,
        "duplicate_of": None,
    }


def test_the_same_source_gives_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    first, second = run(photos, tmp_path / "a"), run(photos, tmp_path / "b")
    again = run(photos, tmp_path / "a")
    assert first == second == again
    assert RunDir.open(tmp_path / "a").listing.read_bytes() == RunDir.open(tmp_path / "b").listing.read_bytes()


def test_a_run_inside_its_own_source_is_not_indexed(photos: Path) -> None:
    out = photos / "photos.shoal"
    run(photos, out)
    put(out / "cache" / "thumbnail.jpg", 9)
    run(photos, out)
    assert list(rows(out)) == [f"{number}.jpg" for number in range(5)]


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.txt").write_text("text")
    (tmp_path / "photos" / "x.jpg").write_bytes(b"")
    with pytest.raises(NoImagesError, match=r"photos: 4 files, 4 skipped: 3 not an image \(.txt\), 1 empty file"):
        run(tmp_path / "photos", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImagesError, match="it holds no file"):
        run(tmp_path / "empty", tmp_path / "run2")
    with pytest.raises(SourceError):
        run(tmp_path / "nowhere", tmp_path / "run3")


# -- running again ---------------------------------------------------------------------------------------------------


def test_ids_stay_and_only_what_is_new_or_changed_is_read(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run(photos, out)
    put(photos / "0-new.jpg", 50)
    put(photos / "2.jpg", 51)
    (photos / "4.jpg").unlink()
    watched = Watched()
    second = run(photos, out, watched)
    found = rows(out)
    assert watched.read == 2
    assert {path: row["id"] for path, row in found.items()} == {f"{n}.jpg": n for n in range(5)} | {"0-new.jpg": 5}
    assert (found["4.jpg"]["status"], found["4.jpg"]["reason"]) == (records.VANISHED, "no longer in the source")
    assert second.digest != first.digest
    put(photos / "4.jpg", 4)
    run(photos, out)
    assert rows(out)["4.jpg"]["status"] == records.OK


def test_a_touched_file_is_read_again_and_changes_no_digest(photos: Path, tmp_path: Path) -> None:
    first = run(photos, tmp_path / "run")
    os.utime(photos / "1.jpg", (1, 1))
    watched = Watched()
    assert run(photos, tmp_path / "run", watched).digest == first.digest
    assert watched.read == 1
    assert rows(tmp_path / "run")["1.jpg"]["mtime"] == 1


def test_failed_files_are_not_read_again_until_they_change(photos: Path, tmp_path: Path) -> None:
    (photos / "note.txt").write_text("text")
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    run(photos, tmp_path / "run")
    watched = Watched()
    run(photos, tmp_path / "run", watched)
    assert watched.read == 0
    put(photos / "bad.png", 7)
    run(photos, tmp_path / "run", watched)
    assert watched.read == 1
    assert rows(tmp_path / "run")["bad.png"]["status"] == records.OK


def test_what_an_earlier_decoder_refused_is_looked_at_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "note.txt").write_text("text")
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with monkeypatch.context() as earlier:
        earlier.setattr(index, "VERSION", index.VERSION - 1)
        run(photos, tmp_path / "run")
    for count in (2, 0):
        watched = Watched()
        run(photos, tmp_path / "run", watched)
        assert watched.read == count


def test_files_that_could_not_be_read_are_tried_again(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "run")
    listing = RunDir.open(tmp_path / "run").listing
    table = pq.read_table(listing).to_pylist()
    table[1].update(
        status="skipped", reason="cannot be read (Input/output error)", sha256=None, width=None, height=None
    )
    records.write_table(listing, pa.Table.from_pylist(table, schema=records.IMAGES))
    watched = Watched()
    run(photos, tmp_path / "run", watched)
    assert watched.read == 1
    assert rows(tmp_path / "run")["1.jpg"]["status"] == records.OK


def test_a_file_that_vanishes_while_it_is_indexed_has_a_reason(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "run", Watched((photos / "2.jpg").unlink))
    row = rows(tmp_path / "run")["2.jpg"]
    assert (row["status"], row["reason"]) == (records.VANISHED, "gone before it was read")
    put(photos / "2.jpg", 2)
    run(photos, tmp_path / "run")
    assert rows(tmp_path / "run")["2.jpg"]["status"] == records.OK


def test_a_file_that_grows_while_it_is_indexed_is_read_again(photos: Path, tmp_path: Path) -> None:
    def grow() -> None:
        with (photos / "2.jpg").open("ab") as file:
            file.write(b"more")

    run(photos, tmp_path / "run", Watched(grow))
    watched = Watched()
    run(photos, tmp_path / "run", watched)
    assert watched.read == 1
    assert rows(tmp_path / "run")["2.jpg"]["size_bytes"] == (photos / "2.jpg").stat().st_size


def test_what_embedding_found_out_is_joined_and_is_no_news_to_the_index(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    put(photos / "copy of 3.jpg", 3)
    first = run(photos, out)
    ids = {path: row["id"] for path, row in rows(out).items()}
    failures = {ids["3.jpg"]: Failure("decode", "truncated JPEG"), ids["2.jpg"]: Failure("read", "gone")}
    joined = _join(out, failures)
    found = {row["path"]: row for row in RunDir.open(out).read_images().to_pylist()}
    for path in ("3.jpg", "copy of 3.jpg"):
        row = found[path]
        assert (row["status"], row["reason"], row["duplicate_of"]) == ("skipped", "truncated JPEG", None)
    assert (found["2.jpg"]["status"], found["2.jpg"]["reason"]) == ("vanished", "gone")
    assert (found["1.jpg"]["status"], found["1.jpg"]["reason"]) == (records.OK, "frame 2")
    again = run(photos, out)
    assert again.digest == first.digest
    assert again.facts == first.facts
    assert _join(out, {}).digest != joined.digest


def _join(out: Path, failures: dict[int, Failure]) -> StageResult:
    def both(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
        write_failures(run_dir, failures, {1: "frame 2", **dict.fromkeys(failures, "frame 3")})
        return join.run(config, run_dir, progress)

    return run_stage(out, "images", both, ClusterConfig(source=("photos",)))


# -- duplicates ------------------------------------------------------------------------------------------------------


def test_exact_duplicates_point_to_the_lowest_id(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    put(photos / "a copy.jpg", 2)
    put(photos / "another.jpg", 2)
    result = run(photos, out)
    assert result.facts["duplicate"] == 2
    found = rows(out)
    assert [(path, row["duplicate_of"]) for path, row in found.items() if row["status"] == "duplicate"] == [
        ("a copy.jpg", 2),
        ("another.jpg", 2),
    ]
    (photos / "2.jpg").unlink()
    run(photos, out)
    found = rows(out)
    assert found["2.jpg"]["status"] == records.VANISHED
    assert (found["a copy.jpg"]["status"], found["a copy.jpg"]["duplicate_of"]) == (records.OK, None)
    assert found["another.jpg"]["duplicate_of"] == found["a copy.jpg"]["id"]
    put(photos / "2.jpg", 2)
    run(photos, out)
    assert rows(out)["a copy.jpg"]["duplicate_of"] == 2


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_limit_takes_a_growing_spread_of_the_source(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.jpg" for folder in "abcd" for number in range(10)]
    for seed, name in enumerate(names):
        put(tmp_path / "photos" / name, seed)
    out = tmp_path / "run"
    run(tmp_path / "photos", out, limit=12)
    small = {path for path, row in rows(out).items() if row["status"] == records.OK}
    assert len(small) == 12
    assert list(rows(out)) == sorted(small)
    assert {path[0] for path in small} == set("abcd")
    run(tmp_path / "photos", out, limit=20)
    large = rows(out)
    assert small < set(large)
    assert [path for path, row in large.items() if row["id"] < 12] == sorted(small)
    watched = Watched()
    facts = run(tmp_path / "photos", out, watched, limit=12).facts
    assert (facts["ok"], facts["skipped"], facts["reasons"]) == (12, 8, {"beyond --limit": 8})
    assert run(tmp_path / "photos", out, watched, limit=20).facts["ok"] == 20
    assert watched.read == 0
    assert run(tmp_path / "photos", out).facts["ok"] == 40
    run(tmp_path / "photos", tmp_path / "other", limit=12)
    assert set(rows(tmp_path / "other")) == small


@given(st.sets(st.text(min_size=1), max_size=30), st.integers(1, 30), st.integers(1, 30))
def test_selection_is_monotone(paths: set[str], less: int, more: int) -> None:
    less, more = sorted((less, more))
    few, many = select(paths, less), select(sorted(paths), more)
    assert few <= many <= paths
    assert len(few) == min(less, len(paths))


def select(paths: Iterable[str], limit: int) -> set[str]:
    column = pa.array(list(paths), pa.string())
    return set(column.filter(pa.array(catalogue.select(column, limit))).to_pylist())


def test_a_listing_holds_no_python_objects() -> None:
    """Beside columns, which Arrow holds: 200,000 items would take 70 MB, rows of a catalogue 100 MB more."""
    count = 200_000
    tracemalloc.start()
    listed = Listed.of(Item(f"{n % 7}/{n:08d}.jpg", f"file:///{n}", 2000, 1.0) for n in range(count)).by_path()
    listed = listed.with_class_labels().with_distinct_paths()
    found = catalogue.match(records.IMAGES.empty_table(), listed)
    contents = read_all((Content(2000, f"{n:064d}", Header(8, 8, "JPEG")) for n in range(count)), lambda count: None)
    table = catalogue.find_duplicates(catalogue.fill(found.table, found.unread, contents))
    catalogue.digest(table)
    again = catalogue.match(table, listed)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.unread) == count
    assert not len(again.unread)
    assert again.table.equals(table)
    assert most < 48e6


# -- labels ----------------------------------------------------------------------------------------------------------


def test_labels_are_kept_apart_and_change_nothing_else(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "photos" / "cat" / f"{number}.jpg", number)
        put(tmp_path / "photos" / "dog" / f"{number}.jpg", 10 + number)
    out = tmp_path / "run"
    result = run(tmp_path / "photos", out)
    assert labels(out) == dict(enumerate(["cat"] * 3 + ["dog"] * 3))
    assert pq.read_schema(out / "labels.parquet").equals(records.LABELS)
    assert "label" not in pq.read_schema(RunDir.open(out).listing).names
    put(tmp_path / "photos" / "top.jpg", 20)
    assert "labels_digest" in result.facts
    assert "labels_digest" not in run(tmp_path / "photos", out).facts
    assert not (out / "labels.parquet").exists()


def test_permuted_labels_change_no_digest_but_their_own(tmp_path: Path) -> None:
    results = []
    for names in (["cat", "dog"], ["dog", "cat"]):
        table = pa.table({"path": ["a", "b"], "image": [encode(picture(n), "PNG") for n in range(2)], "label": names})
        pq.write_table(table, tmp_path / "set.parquet")
        os.utime(tmp_path / "set.parquet", (1, 1))
        results.append(run(tmp_path / "set.parquet", tmp_path / names[0]))
    assert results[0].digest == results[1].digest
    assert results[0].facts["labels_digest"] != results[1].facts["labels_digest"]
    assert RunDir.open(tmp_path / "cat").listing.read_bytes() == RunDir.open(tmp_path / "dog").listing.read_bytes()


# -- tables ----------------------------------------------------------------------------------------------------------


def test_rows_of_a_table_are_read_once(tmp_path: Path) -> None:
    images = [encode(picture(number), "PNG") for number in range(4)]
    pq.write_table(pa.table({"path": list("abcd"), "image": images}), tmp_path / "set.parquet")
    out, watched = tmp_path / "run", Watched()
    first = run(tmp_path / "set.parquet", out, watched)
    assert [row["size_bytes"] for row in rows(out).values()] == [len(data) for data in images]
    assert run(tmp_path / "set.parquet", out, watched).digest == first.digest
    assert watched.read == 4
    pq.write_table(
        pa.table({"path": list("abcde"), "image": [*images[::-1], encode(picture(9), "PNG")]}), tmp_path / "set.parquet"
    )
    os.utime(tmp_path / "set.parquet", (time.time() + 9, time.time() + 9))
    run(tmp_path / "set.parquet", out, watched)
    assert watched.read == 9
    assert [row["size_bytes"] for row in rows(out).values()][:4] == [len(data) for data in images[::-1]]


# -- ids never shift -------------------------------------------------------------------------------------------------

States = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), max_size=8), min_size=1, max_size=5)


@settings(max_examples=150)
@given(States, st.lists(st.one_of(st.none(), st.integers(1, 8)), min_size=5, max_size=5))
def test_ids_never_shift_however_the_source_changes(states: list[dict[str, int]], limits: list[int | None]) -> None:
    """`states` are listings, one after the other: path -> content (3 is no image)."""
    known = records.IMAGES.empty_table()
    ids: dict[str, int] = {}
    for state, limit in zip(states, limits, strict=False):
        listed = Listed.of(Item(path, f"memory://{path}", content, 0.0) for path, content in sorted(state.items()))
        chosen = None if limit is None else catalogue.select(listed.paths, limit)
        found = catalogue.match(known, listed, chosen)
        contents = [state[path] for path in found.table["path"].take(pa.array(found.unread)).to_pylist()]
        read = {
            "size_bytes": contents,
            "sha256": [f"{content:064d}" for content in contents],
            "width": [None if content == 3 else 1 for content in contents],
            "height": [None if content == 3 else 1 for content in contents],
            "reason": ["corrupt" if content == 3 else None for content in contents],
        }
        known = catalogue.find_duplicates(catalogue.fill(found.table, found.unread, pa.table(read, CONTENTS)))
        known.validate(full=True)
        assert known["id"].to_pylist() == list(range(known.num_rows))
        rows = [Row(**row) for row in known.to_pylist()]
        assert all(ids.setdefault(row.path, row.id) == row.id for row in rows)
        _check_against_a_fresh_look(rows, state, None if limit is None else select(state, limit))


@dataclass
class Row:
    """A row of images.parquet."""

    id: int
    path: str
    uri: str
    size_bytes: int | None
    mtime: float | None
    sha256: str | None
    width: int | None
    height: int | None
    status: str
    reason: str | None
    duplicate_of: int | None


def _check_against_a_fresh_look(known: list[Row], state: dict[str, int], selected: set[str] | None) -> None:
    originals: dict[int, int] = {}
    for row in known:
        if row.path not in state:
            assert row.status == records.VANISHED
        elif selected is not None and row.path not in selected:
            assert (row.status, row.reason) == (records.SKIPPED, catalogue.BEYOND_LIMIT)
        elif state[row.path] == 3:
            assert (row.status, row.reason) == (records.SKIPPED, "corrupt")
        else:
            original = originals.setdefault(state[row.path], row.id)
            assert (row.status, row.duplicate_of) == (
                (records.OK, None) if original == row.id else (records.DUPLICATE, original)
            )
            assert row.sha256 == f"{state[row.path]:064d}"
    assert {row.path for row in known} >= (set(state) if selected is None else selected)


@given(st.lists(st.text("ab./jpgPNGß\n", max_size=9)))
def test_names_of_images_are_told_alike_one_by_one_and_by_column(paths: list[str]) -> None:
    found = named_like_images(pa.array(paths, pa.string()))
    assert found.tolist() == [is_image_name(path) for path in paths]


@given(st.lists(st.sampled_from(["a", "a#2", "a#2#2", "a#3", "b", "b#1", "c"]), max_size=12))
def test_equal_paths_are_numbered_as_one_after_the_other_would_be(paths: list[str]) -> None:
    taken: list[str] = []
    for path in paths:
        numbers = (f"{path}#{number}" for number in itertools.count(2))
        taken.append(next(name for name in itertools.chain([path], numbers) if name not in taken))
    assert Listed.of(Item(path, "") for path in paths).with_distinct_paths().paths.to_pylist() == taken


def test_a_limit_counts_images_not_what_lies_beside_them(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text("a caption")
    assert run(photos, tmp_path / "run", limit=6).facts["ok"] == 6
