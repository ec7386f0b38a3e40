"""Exports of the images themselves: a folder a cluster, or FiftyOne's one folder with its labels."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from shoal import lock
from shoal.apart import require_outside_run, require_outside_source
from shoal.export import fiftyone
from shoal.export.asked import Asked, ExportResult, Means, Say
from shoal.export.files import MOVE, NO_LONGER_THERE, Checked, Outcome, carry_out, check, describe
from shoal.export.journal import JOURNAL_NAME
from shoal.export.one_file import is_missing
from shoal.export.placement import Plan, plan_fiftyone, plan_folders
from shoal.export.rows import Rows, read_rows
from shoal.export.seal import key_file, read_key
from shoal.export.transfer import Place, is_plain_file, write_new, writing_errors
from shoal.images.reading import ImageReader
from shoal.rundir import RunDir, digest_file

# What torchvision.datasets.ImageFolder takes for an image.
IMAGEFOLDER_EXTENSIONS: Final = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


def write_files(run_dir: RunDir, asked: Asked, means: Means) -> ExportResult:
    """Copy, link or move every image to where its cluster has it."""
    rows, is_fiftyone = read_rows(run_dir, asked.by_number), asked.kind == "fiftyone"
    plan = plan_fiftyone(rows, asked.dest) if is_fiftyone else plan_folders(rows, asked.dest)
    if any(placement.source != placement.target for placement in plan):  # else all are in their places already
        require_outside_run(run_dir, asked.dest, "DEST")
        if asked.mode != MOVE:  # what was moved is found once
            require_outside_source(run_dir, asked.dest, "DEST")
    if asked.kind == "imagefolder":
        _warn_of_extensions(rows, means.say)
    if asked.dry_run:
        checked = check(plan, asked.mode, asked.kind)
        describe(checked, means.say)
        outcome = Outcome(Counter(), tuple((placement.row, NO_LONGER_THERE) for placement in checked.missing))
        return _result(asked, checked, outcome, len(rows))
    with _held(asked.dest):
        checked = check(plan, asked.mode, asked.kind)
        outcome = carry_out(checked, means.read or ImageReader().read, means.place, means.progress)
        if is_fiftyone:
            _write_fiftyone_labels(plan, rows.names_of_clusters(), outcome, checked, means.place)
    if asked.mode == MOVE and read_key() is None:
        means.say(f"{key_file()} cannot be written or read: undoing will have to name the images' folder with --source")
    return _result(asked, checked, outcome, len(rows))


@contextmanager
def _held(dest: Path) -> Iterator[None]:
    """Be the only one who writes into DEST, made if it is not there; it goes again if nothing came to lie in it."""
    is_new = not os.path.lexists(dest)
    with writing_errors(dest):
        if is_new:
            dest.mkdir(parents=True)
        try:
            with lock.alone(dest) if dest.is_dir() else nullcontext():
                yield
        finally:
            if is_new:
                with suppress(OSError):  # it holds something
                    dest.rmdir()


def _write_fiftyone_labels(plan: Plan, names: dict[int, str], outcome: Outcome, checked: Checked, place: Place) -> None:
    """Write labels.json, in the place of one that an earlier go wrote when fewer images could be taken.

    That one is known by its digest, which the record has before the file is written.
    """
    gone = [row.id for row, _ in outcome.left_out]
    data = fiftyone.labels_json(plan.some(np.flatnonzero(~np.isin(plan.rows.table["id"].to_numpy(), gone))), names)
    path, record = checked.dest / fiftyone.LABELS_NAME, checked.record
    is_own = is_plain_file(path) and digest_file(path) in record.labels
    if not (is_own or is_missing(path, data)):
        return
    with writing_errors(checked.dest):
        record.add_labels(checked.dest, hashlib.sha256(data).hexdigest())
        write_new(path, data, os.replace if is_own else place)


def _warn_of_extensions(rows: Rows, say: Say) -> None:
    others = sorted({PurePosixPath(row.file_name).suffix.lower() for row in rows} - IMAGEFOLDER_EXTENSIONS)
    if others:
        shown = ", ".join(extension or "none" for extension in others)
        say(f"torchvision's ImageFolder passes over files with these extensions, unless told otherwise: {shown}")


def _result(asked: Asked, checked: Checked, outcome: Outcome, images: int) -> ExportResult:
    journal = checked.dest / JOURNAL_NAME
    return ExportResult(
        asked.kind,
        checked.dest,
        asked.dry_run,
        images,
        written=len(checked.pending) + len(checked.finishing) if asked.dry_run else outcome.hows.total(),
        already=checked.already,
        hows=tuple(sorted(outcome.hows.items())),
        left_out=tuple((row.path, reason) for row, reason in outcome.left_out),
        journal=journal if checked.mode == MOVE and journal.is_file() else None,
    )
