"""A large run made of a small one: its images again and again under new ids, each time moved a little.

Written in blocks, as a run of before generations, whose files all lie at its root: a million images are 3 GB on
disk, and making them needs some 500 MB of memory.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from shoal.embeddings import LARGE_PART_ROWS, EmbeddingStore, part_count, part_range
from shoal.names.naming import guesses_of
from shoal.rundir import RunDir

NOT_COPIED = ("cache", "report", "embeddings", "neighbours", "classes", "generations", "lock*")
COPIES_A_BLOCK = 50
ROWS = 65_536  # of an array at a time
APART = 1.2  # of the small map's width, from one way of the clusters to the next

Numbers = npt.NDArray[np.int64]


def repeat(small: Path, target: Path, images: int, ways: int = 1) -> None:
    """Make `target`: every table of the run `small` repeated up to `images` rows.

    `ways`: into how many clusters each of the small run's is parted, one copy of all images after the other; their
    models are equal, and each way has a place of its own on the map.
    """
    made = target.with_suffix(".part")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(small, made, ignore=shutil.ignore_patterns(*NOT_COPIED))
    generator = np.random.default_rng(0)
    for name in ("images", "clusters", "levels", "map"):
        _table(pq.read_table(small / f"{name}.parquet"), made / f"{name}.parquet", images, ways, generator)
    _embeddings(small, made, images, generator)
    _neighbours(small, made, images)
    _classes(small, made, images)
    state = json.loads((small / "run.json").read_text())
    (made / "run.json").write_text(json.dumps({key: state[key] for key in state if key != "generation"}))
    if ways > 1:
        _part_model(made, ways)
    made.rename(target)


def _table(small: pa.Table, path: Path, images: int, ways: int, generator: np.random.Generator) -> None:
    rows, names = len(small), small.column_names
    spans = {name: _span(small, name) for name in ("medium", "fine", "cluster") if name in names}
    if "cluster" in spans:
        spans["runner_up"] = spans["cluster"]
    with pq.ParquetWriter(path, small.schema, compression="zstd") as writer:
        for start in range(0, images, COPIES_A_BLOCK * rows):
            numbers = np.arange(start, min(start + COPIES_A_BLOCK * rows, images))
            copy = numbers // rows
            block = small.take(numbers % rows)
            columns: dict[str, Any] = {name: block[name] for name in names} | {"id": pa.array(numbers)}
            for name, span in spans.items():
                columns[name] = pc.add(block[name], pa.array(copy % ways * span, block[name].type))
            if "path" in names:
                copies = pc.cast(pa.array(copy), pa.string())
                columns["path"] = pc.binary_join_element_wise(
                    pc.binary_join_element_wise("copy", copies, " "), block["path"], "/"
                )
            if "confidence" in names:
                moved = block["confidence"].to_numpy() + generator.normal(0, 0.02, len(block))
                columns["confidence"] = np.clip(moved, 0, 1).astype(np.float32)
            for axis, shift in (("x", copy % ways % _side(ways)), ("y", copy % ways // _side(ways))):
                if axis in names:
                    moved = block[axis].to_numpy() + generator.normal(0, 1, len(block)) + shift * APART * _width(small)
                    columns[axis] = moved.astype(np.float32)
            writer.write_table(pa.table(columns, schema=small.schema))


def _span(small: pa.Table, name: str) -> int:
    """How many clusters there are; their numbers are below it."""
    return int(pc.max(small[name]).as_py()) + 1


def _side(ways: int) -> int:
    return math.ceil(math.sqrt(ways))


def _width(places: pa.Table) -> float:
    return max(float(np.ptp(places[axis].to_numpy())) for axis in ("x", "y"))


def _embeddings(small: Path, made: Path, images: int, generator: np.random.Generator) -> None:
    store = EmbeddingStore.open(small / "embeddings")
    rows = store.read(np.arange(store.rows))
    (made / "embeddings").mkdir()
    noise = generator.normal(1, 0.02, (2 * LARGE_PART_ROWS, store.dim)).astype(np.float32)  # each part takes some
    parts = []
    for number in range(part_count(images)):
        held = part_range(number, images)
        first = int(generator.integers(LARGE_PART_ROWS))
        block = rows[np.arange(held.start, held.stop) % len(rows)] * noise[first : first + len(held)]
        part = f"part-{number:05d}.npy"
        np.save(made / "embeddings" / part, block.astype(store.dtype))
        parts.append({"file": part, "start": held.start, "stop": held.stop})
    manifest = json.loads((small / "embeddings" / "manifest.json").read_text())
    (made / "embeddings" / "manifest.json").write_text(json.dumps({**manifest, "rows": images, "parts": parts}))


def _neighbours(small: Path, made: Path, images: int) -> None:
    """Those of each copy are of the same copy."""
    ids, similarity = (np.load(small / "neighbours" / f"{name}.npy") for name in ("ids", "similarity"))

    def shifted(numbers: Numbers) -> npt.NDArray[np.int32]:
        found = ids[numbers % len(ids)] + (numbers // len(ids) * len(ids))[:, None]
        known = (ids[numbers % len(ids)] >= 0) & (found < images)
        return np.where(known, found, -1).astype(np.int32)

    (made / "neighbours").mkdir()
    _array(made / "neighbours" / "ids.npy", images, shifted)
    _array(made / "neighbours" / "similarity.npy", images, partial(_repeated, similarity))


def _classes(small: Path, made: Path, images: int) -> None:
    (made / "classes").mkdir()
    for name in ("ids", "probabilities"):
        rows = np.load(small / "classes" / f"{name}.npy")
        _array(made / "classes" / f"{name}.npy", images, partial(_repeated, rows))


def _repeated(rows: npt.NDArray[Any], numbers: Numbers) -> npt.NDArray[Any]:
    return rows[numbers % len(rows)]


def _array(path: Path, images: int, rows: Callable[[Numbers], npt.NDArray[Any]]) -> None:
    """Write the rows of all images, some at a time."""
    first = rows(np.arange(1))
    out = np.lib.format.open_memmap(path, "w+", first.dtype, (images, *first.shape[1:]))
    for start in range(0, images, ROWS):
        stop = min(start + ROWS, images)
        out[start:stop] = rows(np.arange(start, stop))
    out.flush()


def _part_model(made: Path, ways: int) -> None:
    """As many centroids as there are clusters now, and guesses of what these show."""
    model = made / "model"
    tensors = load_file(model / "clusters.safetensors")
    for name in ("centroids", "least_closeness"):
        tensors[name] = np.concatenate([tensors[name]] * ways)
    save_file(tensors, model / "clusters.safetensors")
    facts = json.loads((model / "clusters.json").read_text())
    (model / "clusters.json").write_text(json.dumps({**facts, "clusters": len(tensors["centroids"])}))
    clusters = pq.read_table(made / "clusters.parquet")
    numbers = {"medium": clusters["cluster"].to_numpy()}
    found = guesses_of(RunDir(made), clusters["id"].to_numpy(), numbers, clusters["confidence"].to_numpy())
    if found is not None:
        (model / "guesses.json").write_text(json.dumps(found.to_json()))
