"""Does memory stay bounded? Peak of `shoal cluster`, whole process, on few and on many images.

    python bench/memory.py [--images 1000 60000] [--clusters auto]

The images are small JPEGs in a Parquet table, made on first use. All stages run, the report too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from machine import describe, machine_line, peak_memory_bytes, write_result
from photos import WORK, small_jpegs
from processes import elsewhere, run_process

SIDE = 64  # pixels
ROW_GROUP = 1000
GOAL_BYTES = 1.5e9


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of shoal cluster by number of images.")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 60_000], help="how many, one run each")
    parser.add_argument("--clusters", default="auto", help="as for shoal cluster")
    options = parser.parse_args()
    rows = [_measure(images, options.clusters) for images in options.images]
    write_result(
        "memory",
        {"runs": rows, "goal_bytes": GOAL_BYTES, "clusters": options.clusters, "floor_bytes": peak_memory_bytes()},
    )
    print(f"{_table(rows)}\n\n{machine_line(describe())}")


def image_table(images: int) -> Path:
    """bench/work/small-IMAGES.parquet, made on first use: `path` and `image`, the bytes of a JPEG."""
    import pyarrow as pa  # noqa: PLC0415  (this runs elsewhere, so that the measuring process stays small)
    import pyarrow.parquet as pq  # noqa: PLC0415

    target = WORK / f"small-{images}.parquet"
    if target.exists():
        return target
    WORK.mkdir(exist_ok=True)
    schema = pa.schema([("path", pa.string()), ("image", pa.binary())])
    part = target.with_suffix(".part")
    with pq.ParquetWriter(part, schema) as writer:
        numbered = enumerate(small_jpegs(images, SIDE, seed=0))
        while rows := list(islice(numbered, ROW_GROUP)):
            paths = [f"{number:06d}.jpg" for number, _ in rows]
            writer.write_table(pa.table({"path": paths, "image": [data for _, data in rows]}, schema=schema))
    part.rename(target)
    return target


def _measure(images: int, clusters: str) -> dict[str, Any]:
    table = elsewhere(image_table, images)
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        run = Path(scratch) / "run"
        command = (sys.executable, "-m", "shoal", "cluster", str(table), "--clusters", clusters, "--out", str(run))
        process = run_process(command)
        stages = json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"]
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    return {"images": images, **process.to_json(), "stage_seconds": seconds}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| images | peak MB | wall s | seconds by stage |", "|---:|---:|---:|---|"]
    for row in rows:
        stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in row["stage_seconds"].items())
        lines.append(f"| {row['images']:,} | {row['peak_bytes'] / 1e6:,.0f} | {row['seconds']:.0f} | {stages} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
