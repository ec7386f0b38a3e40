"""Tables read and put in order without any thread that could outlive the interpreter."""

from __future__ import annotations

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
from shoal import parquet

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
