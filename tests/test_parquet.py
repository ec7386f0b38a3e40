"""Tables read and put in order without any thread that could outlive the interpreter."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onnx_files import small
from shoal import parquet, records
from shoal.images import catalogue

ROWS = 5000

WORKED = """
import os, sys
from pathlib import Path
from shoal.cli import main

source, network, out = sys.argv[1:]
for words in (
    ["cluster", source, "--backbone", network, "--input-mean", "0,0,0", "--input-std", "1,1,1", "--clusters", "3",
     "--out", f"{out}/run"],
    ["cluster", source, "--backbone", network, "--input-mean", "0,0,0", "--input-std", "1,1,1", "--clusters", "4",
     "--out", f"{out}/run"],
    ["evaluate", f"{out}/run"],
    ["similar", f"{out}/run", f"{out}/pictures/07.png"],
    ["export", f"{out}/run", "--to", "parquet", f"{out}/clusters.parquet"],
    ["evaluate", f"{out}/run", "--labels", source],
):
    try:
        main(words)
    except SystemExit as ended:
        assert not ended.code, words
threads = [Path(f"/proc/self/task/{one}/comm").read_text().strip() for one in os.listdir("/proc/self/task")]
print("threads left:", len([one for one in threads if one != "jemalloc_bg_thd"]) - 1, file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_of_a_library_is_left_when_a_command_ends(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(60):
        picture = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number:02d}.png")
    data = [path.read_bytes() for path in sorted((tmp_path / "pictures").iterdir())]
    paths = [f"{number:02d}.png" for number in range(60)]
    table = {"image": data, "path": paths, "label": ["red" if number % 2 else "blue" for number in range(60)]}
    pq.write_table(pa.table(table), tmp_path / "pictures.parquet")
    (tmp_path / "net.onnx").write_bytes(small(16))
    done = subprocess.run(
        [sys.executable, "-c", WORKED, str(tmp_path / "pictures.parquet"), str(tmp_path / "net.onnx"), str(tmp_path)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "threads left: 0", done.stderr


def test_rows_come_by_several_columns_and_nulls_last() -> None:
    table = pa.table({"n": [2, 1, 2, None, 1], "of": ["b", "z", "a", "q", "y"]})
    assert parquet.in_order(table, "n", "of")["of"].to_pylist() == ["y", "z", "a", "b", "q"]
    assert parquet.in_order(table, "n", "of", last_first=True)["of"].to_pylist() == ["a", "b", "y", "z", "q"]


def test_a_file_is_read_whole_or_in_part(tmp_path: Path) -> None:
    table = pa.table({"id": np.arange(ROWS), "name": [f"name {number % 7}" for number in range(ROWS)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2000)
    with (tmp_path / "rows.parquet").open("rb") as file, parquet.opened(file) as opened:
        assert parquet.whole(opened) == table
        assert parquet.whole(opened, ["id"], [1]) == table.select(["id"]).slice(2000, 2000)
        assert parquet.whole(opened, [], []).num_rows == 0
        some = list(parquet.batches(opened, 700, ["id"], [2]))
        assert [len(one) for one in some] == [700, 300]
        assert pa.Table.from_batches(some) == table.select(["id"]).slice(4000)


# -- more text than fits into one array --------------------------------------------------------------------------------


TEXTS = ["b", None, "", "é", "b", "long " * 9, "a", None, "a"]


def cut(values: list[str | None], size: int) -> pa.ChunkedArray:
    """A column in chunks of some rows."""
    parts = [pa.array(values[start : start + size], pa.string()) for start in range(0, len(values), size)]
    return pa.chunked_array(parts, pa.string())


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_texts_beyond_one_array_are_taken_as_others_are(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    column = cut(TEXTS, 4)
    places = pa.array([8, 0, None, 5, 1, 3, 3])
    table = pa.table({"text": column, "number": pa.array(range(len(TEXTS)), pa.int32())})
    taken, ordered = table.take(places), parquet.in_order(table, "text", "number")
    monkeypatch.setattr(parquet, "MOST_TEXT", 10)
    monkeypatch.setattr(parquet, "TAKEN_ROWS", rows)
    assert parquet.take(column, places).num_chunks == -(-len(places) // rows)
    assert parquet.take_rows(table, places).equals(taken)
    assert parquet.in_order(table, "text", "number").equals(ordered)
    assert parquet.take(column, places[:0]).to_pylist() == []


def test_texts_are_numbered_as_they_come() -> None:
    for size in (1, 2, 9):
        assert parquet.codes(cut(["b", "a", "b", "", "a", "c"], size)).tolist() == [0, 1, 0, 2, 1, 3]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 12])
def test_a_digest_of_images_is_of_what_they_hold(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the chunks that a table comes in, nor of the blocks that are hashed at a time."""
    statuses = (["ok", "skipped", "duplicate", "ok"] * 3)[:count]
    columns = {
        "id": list(range(count)),
        "path": [f"{number}é.jpg" * (number % 3) for number in range(count)],
        "sha256": [None if number == 1 else f"{number:064x}" for number in range(count)],
        "status": statuses,
        "duplicate_of": [0 if status == "duplicate" else None for status in statuses],
    }
    kept = [number for number, status in enumerate(statuses) if status != "skipped"]
    lines = ["\0".join(str(values[number]) for number in kept) + "\n" for values in columns.values()]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    schema = pa.schema([records.IMAGES.field(name) for name in columns])
    whole = pa.table(columns, schema=schema)
    for size in (1, 2, 3, 100):
        chunks = [whole.slice(start, size) for start in range(0, count, size)]
        table = pa.concat_tables(chunks) if chunks else whole
        for block in (1, 2, 3, 4, 100):
            monkeypatch.setattr(records, "HASHED_ROWS", block)
            assert records.digest_of_images(table) == expected


def test_duplicates_are_found_beyond_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = ["b" * 64, "a" * 64, "b" * 64, None, "a" * 64, "c" * 64]
    rows = {"id": range(6), "path": [f"{number}.png" for number in range(6)], "sha256": contents, "status": ["ok"] * 6}
    empty = {field.name: pa.nulls(6, field.type) for field in records.IMAGES}
    columns = {**empty, **{name: pa.array(values, records.IMAGES.field(name).type) for name, values in rows.items()}}
    table = pa.table(columns, schema=records.IMAGES)
    usual = catalogue.find_duplicates(table)
    assert usual["duplicate_of"].to_pylist() == [None, None, 0, None, 1, None]
    monkeypatch.setattr(parquet, "MOST_TEXT", 100)
    monkeypatch.setattr(parquet, "TAKEN_ROWS", 2)
    assert catalogue.find_duplicates(table).equals(usual)
