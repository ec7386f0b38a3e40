"""What does one edit more cost on 100,000 images that were edited 1,000 or 5,000 times? As the page's server makes it.

    python bench/edits.py [--images 100000] [--repeats 10]

Tables of 20 clusters are made up, and a log of renamings, merges, splits, moves of 1 to 500 images, noise, undos and
redos. Timed is what the server does between a click and an answer: the edit made and appended (with its fsync), the log
replayed, the clusters put in order; and, apart, what the first look at such a log costs, and a hundred undos in a row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from machine import describe, machine_line, write_result
from shoal import atomic, records
from shoal.browse.run_view import RunView
from shoal.corrections import changes
from shoal.corrections.corrected import Corrected
from shoal.corrections.edit import Edit
from shoal.errors import RequestError
from shoal.rundir import RunDir
from shoal.runfiles import FORMAT_VERSION

CLUSTERS = 20
EDITS = (1000, 5000)
MOST_MOVED = 500
NOISE = 50
FEWEST, MOST = 12, 30  # clusters that the log is kept between
COPIES = 0.02  # of the images are exact copies of the one before
UNDOS = 100
GOAL_MS = 100

Make = Callable[[Corrected, Sequence[Edit], np.random.Generator], Edit]


def _one(now: Corrected, draw: np.random.Generator) -> int:
    return int(draw.choice(now.numbers))


def _some(now: Corrected, draw: np.random.Generator) -> list[int]:
    ids: list[int] = draw.choice(now.ids, draw.integers(1, MOST_MOVED + 1), replace=False).tolist()
    return ids


def _split(now: Corrected, log: Sequence[Edit], draw: np.random.Generator) -> Edit:
    cluster = _one(now, draw)
    return changes.split(now, cluster, np.array_split(draw.permutation(now.members(cluster)), 2))


KINDS: dict[str, tuple[float, Make]] = {  # how often people do what, and how it is made
    "rename": (0.25, lambda now, log, draw: changes.rename(now, _one(now, draw), f"name {len(log)}")),
    "merge": (0.05, lambda now, log, draw: changes.merge(now, draw.choice(now.numbers, 2, replace=False).tolist())),
    "split": (0.06, _split),
    "move": (0.34, lambda now, log, draw: changes.move(now, _some(now, draw), _one(now, draw))),
    "new": (0.06, lambda now, log, draw: changes.move(now, _some(now, draw), None, "new")),
    "noise": (0.08, lambda now, log, draw: changes.mark_noise(now, _some(now, draw)[:NOISE])),
    "undo": (0.12, lambda now, log, draw: changes.undo(now, log)),
    "redo": (0.04, lambda now, log, draw: changes.redo(now, log)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What one edit more costs.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=10, help="edits of each kind")
    options = parser.parse_args()
    found: dict[str, Any] = {"images": options.images, "clusters": CLUSTERS, "goal_ms": GOAL_MS, "after": {}}
    found["load"] = os.getloadavg()[0]
    table = ["| after edits | " + " | ".join(KINDS) + f" | first look s | {UNDOS} undos: median, most |"]
    table.append("|---:|" + "---:|" * (len(KINDS) + 2))
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        _write_tables(run, options.images)
        generator = np.random.default_rng(1)
        for count in EDITS:
            edit_until(RunView(run), count, generator)
            log = run.edits.read_bytes()
            kinds, first, undos = _measure(run, options.repeats, generator)
            run.edits.write_bytes(log)  # as it was
            found["after"][count] = {
                "log_mb": round(len(log) / 1e6, 1),
                "ms": kinds,
                "first_look_s": round(first, 2),
                "undo_ms": undos,
            }
            medians = [f"{statistics.median(taken):.0f} ({max(taken):.0f})" for taken in kinds.values()]
            undone = f"{statistics.median(undos):.0f}, {max(undos):.0f}"
            table.append(f"| {count:,} | {' | '.join(medians)} | {first:.1f} | {undone} |")
    write_result("edits", found)
    print("\n".join([*table, "", machine_line(describe())]))


def _measure(run: RunDir, repeats: int, draw: np.random.Generator) -> tuple[dict[str, Any], float, list[float]]:
    """Milliseconds of edits by kind, seconds of the first look, milliseconds of undos in a row."""
    view = RunView(run)
    began = time.perf_counter()
    _look(view)
    first = time.perf_counter() - began
    kinds = {}
    for kind in KINDS:
        if kind == "redo":
            for _ in range(repeats):
                _edit(view, "undo", draw)
        kinds[kind] = [_milliseconds(view, kind, draw) for _ in range(repeats)]
    return kinds, first, [_milliseconds(view, "undo", draw) for _ in range(UNDOS)]


def _milliseconds(view: RunView, kind: str, draw: np.random.Generator) -> float:
    """Of one edit, and of looking at what it makes."""
    began = time.perf_counter()
    _edit(view, kind, draw)
    _look(view)
    return round(1000 * (time.perf_counter() - began), 1)


def _edit(view: RunView, kind: str, draw: np.random.Generator) -> None:
    view.append(lambda log: KINDS[kind][1](view.corrected(log), log, draw))


def _look(view: RunView) -> None:
    assert len(view.snapshot().chosen.order) > 0


def edit_until(view: RunView, count: int, draw: np.random.Generator) -> None:
    """Edit a run as people do, until its log has `count` lines."""
    kinds, shares = list(KINDS), [share for share, _ in KINDS.values()]
    while len(view.snapshot().log) < count:
        clusters = len(view.snapshot().corrected.numbers)
        kind = str(draw.choice(kinds, p=shares))
        if kind in ("split", "new") and clusters >= MOST:
            kind = "merge"
        if kind == "merge" and clusters <= FEWEST:
            continue
        with suppress(RequestError):  # there is nothing to undo or to do again
            _edit(view, kind, draw)


def _write_tables(run: RunDir, images: int) -> None:
    """What the server reads of a run, made up."""
    generator = np.random.default_rng(0)
    ids = np.arange(images)
    is_copy = generator.random(images) < COPIES
    is_copy[0] = is_copy[1:][is_copy[:-1]] = False
    original = ids - is_copy
    cluster = generator.integers(0, CLUSTERS, images).astype(np.int32)[original]
    confidence = generator.random(images, np.float32)
    paths = [f"folder/{number:07d}.jpg" for number in range(images)]
    columns = {
        "id": ids,
        "path": paths,
        "uri": [f"/home/{path}" for path in paths],
        "size_bytes": np.full(images, 100_000),
        "mtime": np.zeros(images),
        "sha256": [f"{number:064x}" for number in original],
        "width": np.full(images, 500),
        "height": np.full(images, 375),
        "status": np.where(is_copy, records.DUPLICATE, records.OK),
        "reason": [None] * images,
        "duplicate_of": pa.array(original, mask=~is_copy),
    }
    records.write_table(run.images, pa.table(columns, schema=records.IMAGES))
    columns = {
        "id": ids,
        "path": paths,
        "cluster": cluster,
        "confidence": confidence,
        "unsure": confidence < 0.3,
        "silhouette": confidence,
        "runner_up": (cluster + 1) % CLUSTERS,
    }
    records.write_table(run.clusters, pa.table(columns, schema=records.CLUSTERS))
    levels = {"coarse": cluster // 4, "medium": cluster, "fine": 2 * cluster + (confidence > 0.5)}
    records.write_table(run.levels, pa.table({"id": ids, **levels}))
    atomic.write_json(run.run_json, {"format_version": FORMAT_VERSION, "stages": {}})


if __name__ == "__main__":
    sys.exit(main())
