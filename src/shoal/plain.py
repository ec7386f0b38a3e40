"""Runs without generations, all files at the root: older ones, and copies. Read as they are; made a first generation
when they are written to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from shoal import atomic, disk, generations, records
from shoal.generations import Generation
from shoal.rundir import RunDir
from shoal.runfiles import (
    FORMAT_VERSION,
    GUESSES,
    HEAD,
    LABELS,
    LISTING,
    ORDER,
    PICTURES,
    TEXT_TOWER,
    read_run_json,
    write_run_json,
)

# The files of each stage, and what older runs made it of.
_FILES: Final = {
    "index": (LISTING, ORDER, LABELS, f"{PICTURES}/*"),
    "recipe": ("train/recipe.json",),
    "pretext": (
        "train/pretext/outcome.safetensors",
        "train/features.safetensors",
        "own/train-pretext.jsonl",
        "report/knn.jsonl",
    ),
    "scan": ("train/scan/outcome.safetensors", "own/train-scan.jsonl"),
    "selflabel": ("train/selflabel/outcome.safetensors", "own/train-selflabel.jsonl"),
    "encoder": ("train/encoder.safetensors",),
    "embed": (
        "embeddings/*",
        "model/config.json",
        "model/encoder.*",
        f"model/{HEAD}",
        f"model/{TEXT_TOWER}",
        "own/failures.parquet",
    ),
    "classes": ("classes/*",),
    "images": ("images.parquet",),
    "neighbours": ("neighbours/*",),
    "cluster": (
        "clusters.parquet",
        "levels.parquet",
        "sweep.parquet",
        "choose_k.parquet",
        "model/clusters.*",
        "model/names.json",
    ),
    "names": (f"model/{GUESSES}",),
    "map": ("map.parquet",),
    "evaluate": ("report/evaluation.json",),
    "views": ("report/views.png",),
    "report": ("report/index.html", "report/summary.json", "report/*.png"),
}
_INPUTS: Final = {
    "embed": ("index",),
    "classes": ("embed",),
    "images": ("index", "embed"),
    "neighbours": ("embed",),
    "cluster": ("embed",),
    "names": ("classes", "cluster"),
    "map": ("neighbours", "cluster"),
    "evaluate": ("cluster",),
    "report": ("cluster",),
}

_LEFT_OUT: Final = shutil.ignore_patterns("*lock", "lock.guard", "cache")  # of a copy
_PARTS: Final = {"embed": {"head": "none"}}  # of what older runs made


def adopt(root: Path) -> None:
    """Make the files of a run without generations its first one; nothing to do if it has some, or nothing is done."""
    state = read_run_json(root)
    done = {name: dict(record) for name, record in state["stages"].items() if record.get("state") == "done"}
    if "generation" in state or not done:
        return
    number = generations.next_number(root)
    if "images" not in done and (root / "images.parquet").is_file():  # it was the index stage's own, marked by embed
        images = records.read_table(root / "images.parquet")
        done["images"] = {**done["index"], "key": "", "digest": records.digest_of_images(images)}
    taken: set[str] = set()
    files = {name: _take(root, number, name, taken) for name in _FILES if name in done}
    for name, record in done.items():
        inputs = {wanted: done[wanted]["digest"] for wanted in _INPUTS.get(name, ()) if wanted in done}
        record.setdefault("inputs", inputs)
        record.setdefault("parts", dict(_PARTS.get(name, {})))
    log = root / "edits.jsonl"
    lines = log.read_bytes().count(b"\n") if log.is_file() else 0
    generations.write(root, Generation(number, files, {}, lines), number)
    write_run_json(root, {**state, "format_version": FORMAT_VERSION, "stages": done, "generation": number})


def _take(root: Path, number: int, stage: str, taken: set[str]) -> dict[str, int]:
    """Give the files of a stage, but for those `taken`, their names in the generation's folder."""
    places = {}
    for pattern in _FILES[stage]:
        found = {path.relative_to(root).as_posix(): path for path in sorted(root.glob(pattern)) if path.is_file()}
        if pattern == LISTING and not found:
            found = {LISTING: root / "images.parquet"}
        for name, path in found.items():
            if name not in taken:
                target = generations.stored(root, name, number)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                atomic.give_second_name(path, target)
                places[name] = number
                taken.add(name)
    return places


def copy(run_dir: RunDir, target: Path) -> None:
    """Copy what is current of a run to a new folder, with its edits and what they can be undone to.

    Raises:
        DiskSpaceError: the disk is full. WorkError: anything else of the disk. There is no `target` then.
    """
    with disk.writing_errors(target), atomic.making_folder(target) as made:
        if run_dir.generation is None:
            _copy_all(run_dir.root, made)
        else:
            _copy_current(run_dir, run_dir.generation, made)


def _copy_all(root: Path, target: Path) -> None:
    for place, folders, names in os.walk(root, followlinks=True):
        left_out = _LEFT_OUT(place, [*folders, *names])
        folders[:] = [name for name in folders if name not in left_out]
        here = target / Path(place).relative_to(root)
        here.mkdir(exist_ok=True)
        for name in names:
            if name not in left_out:
                _copy(Path(place, name), here / name)


def _copy_current(run_dir: RunDir, generation: Generation, target: Path) -> None:
    for name in generation.places:
        _copy(run_dir.path(name), target / name)
    for digest, places in generation.kept.items():
        for name, number in places.items():
            _copy(generations.stored(run_dir.root, name, number), target / "refits" / digest / name)
    if run_dir.edits.is_file():
        _copy(run_dir.edits, target / run_dir.edits.name)
    state = {name: value for name, value in run_dir.read_state().items() if name != "generation"}
    write_run_json(target, state)


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    atomic.sync(target)
