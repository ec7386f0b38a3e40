"""`export`: a finished run as folders, a table, or the input of another program."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from shoal import lock
from shoal.errors import RequestError
from shoal.executor import HERE, Executor
from shoal.export import fiftyone, labelstudio, tables
from shoal.export.files import COPY, MOVE, NO_LONGER_THERE, Checked, Outcome, Read, carry_out, check, describe
from shoal.export.journal import JOURNAL_NAME
from shoal.export.kinds import DEFAULT_NAMES, KINDS, KINDS_OF_FILES, LAYOUTS, MODES, TABLES
from shoal.export.placement import Plan, plan_fiftyone, plan_folders
from shoal.export.rows import ClusteredRun, Rows, read_rows
from shoal.export.seal import key_file, read_key
from shoal.export.table_blocks import table_blocks
from shoal.export.transfer import Place, is_plain_file, remove_unfinished, rename_into_place, write_new, writing_errors
from shoal.images.reading import ImageReader
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_file

SHOWN_LEFT_OUT = 10

# What torchvision.datasets.ImageFolder takes for an image.
IMAGEFOLDER_EXTENSIONS: Final = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did.

    Attributes:
        dest: the folder or file written, absolute.
        images: clustered images of the run.
        written: images exported by this call, or that would be in a dry run.
        already: images that an earlier call had exported.
        hows: of the written files, how many were copied, moved, or became a hard or symbolic link.
        left_out: (path, reason) of images that could not be taken.
        journal: what `undo` takes, after moves.
    """

    kind: str
    dest: Path
    dry_run: bool
    images: int
    written: int
    already: int
    hows: tuple[tuple[str, int], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    journal: Path | None = None

    def summary(self) -> str:
        """A few lines for the person: what became of the images, and which were left out."""
        did = ", ".join(f"{count:,} {how}" for how, count in self.hows) or f"{self.written:,} written"
        if self.dry_run:
            did = f"{self.written:,} would be written"
        lines = [f"{self.dest}: {self.images:,} images, {did}, {self.already:,} there already"]
        if self.left_out:
            lines.append(f"{len(self.left_out):,} images left out:")
            lines += [f"  {path}: {reason}" for path, reason in self.left_out[:SHOWN_LEFT_OUT]]
        if len(self.left_out) > SHOWN_LEFT_OUT:
            lines.append(f"  … and {len(self.left_out) - SHOWN_LEFT_OUT:,} more")
        if self.journal is not None:
            lines.append(f"what was moved is written down in {self.journal}, for undoing")
        return "\n".join(lines)


def export(
    run_dir: RunDir,
    kind: str,
    dest: str | Path,
    *,
    mode: str = COPY,
    dry_run: bool = False,
    layout: str = "long",
    by_number: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
    read: Read | None = None,
    place: Place = rename_into_place,
    executor: Executor = HERE,
) -> ExportResult:
    """Write a finished run out. Given again after a kill, it goes on; nothing of others is ever overwritten.

    Args:
        kind: one of KINDS.
        dest: a folder for kinds of files; a file for the rest, or a folder in which it gets a default name.
        mode: copy, link or move, for kinds of files.
        dry_run: only say what would be done.
        layout: long or wide, for csv.
        by_number: call clusters by their numbers alone, whatever names they have; not for tables.
        say: takes lines for the person.
        progress: shows how far it is.
        read: gives the bytes of an image by its URI, or raises DecodeError.
        place: renames one file; a parameter for tests of faults.
        executor: of the blocks of a Parquet table.

    Raises:
        RequestError: an argument has a value it cannot have, or a file is in the way.
        RunError: the run has no clusters yet.
        WorkError: not one image is left in the source.
        RunLockedError: another process is writing into DEST.
        DiskSpaceError, WorkError: see `shoal.export.files.carry_out`.
    """
    _check_arguments(kind, mode, layout, by_number)
    progress = progress or Progress()
    if kind == "parquet":
        run = ClusteredRun.open(run_dir)
        file = _file_at(Path(dest).absolute(), kind)
        with table_blocks(run, file, HERE if dry_run else executor, progress) as blocks:
            return _write_contents(kind, file, {file: tables.parquet(blocks)}, len(run), dry_run, say, place)
    rows = read_rows(run_dir).without_names() if by_number else read_rows(run_dir)
    target = Path(dest).absolute()
    if kind not in KINDS_OF_FILES:
        file = _file_at(target, kind)
        result = _write_contents(kind, file, _contents(rows, kind, file, layout), len(rows), dry_run, say, place)
        if kind == "labelstudio" and not dry_run:
            say(_how_to_serve(file, labelstudio.document_root(rows)))
        return result
    plan = plan_fiftyone(rows, target) if kind == "fiftyone" else plan_folders(rows, target)
    if kind == "imagefolder":
        _warn_of_extensions(rows, say)
    if dry_run:
        checked = check(plan, mode, kind)
        describe(checked, say)
        outcome = Outcome(Counter(), tuple((placement.row, NO_LONGER_THERE) for placement in checked.missing))
        return _result(kind, checked, outcome, len(rows), dry_run)
    with _held(target):
        checked = check(plan, mode, kind)
        outcome = carry_out(checked, read or ImageReader().read, place, progress)
        if kind == "fiftyone":
            _write_fiftyone_labels(plan, rows.names_of_clusters(), outcome, checked, place)
    if mode == MOVE and read_key() is None:
        say(f"{key_file()} cannot be written or read: undoing will have to name the images' folder with --source")
    return _result(kind, checked, outcome, len(rows), dry_run)


def _check_arguments(kind: str, mode: str, layout: str, by_number: bool) -> None:
    for option, value, choices in (("--to", kind, KINDS), ("--mode", mode, MODES), ("--layout", layout, LAYOUTS)):
        if value not in choices:
            raise RequestError(f"{option} has value {value!r}; expected one of {', '.join(choices)}")
    if mode != COPY and kind not in KINDS_OF_FILES:
        raise RequestError(f"--mode {mode} does not go with --to {kind}, only with --to {', '.join(KINDS_OF_FILES)}")
    if by_number and kind in TABLES:
        raise RequestError(f"--numbers does not go with --to {kind}, which has columns for numbers and for names")
    if layout != "long" and kind != "csv":
        raise RequestError(f"--layout {layout} does not go with --to {kind}, only with --to csv")


# -- one file ----------------------------------------------------------------------------------------------------


def _file_at(dest: Path, kind: str) -> Path:
    return dest / DEFAULT_NAMES[kind] if dest.is_dir() else dest


def _write_contents(
    kind: str, dest: Path, contents: dict[Path, bytes], images: int, dry_run: bool, say: Say, place: Place
) -> ExportResult:
    news = [path for path, data in contents.items() if _is_new(path, data)]
    if dry_run:
        for path in news:
            say(f"would write {path} ({len(contents[path]):,} bytes)")
    else:
        with writing_errors(dest):
            for path, data in contents.items():
                if path in news:
                    write_new(path, data, place)
                else:
                    remove_unfinished(path, data)
    count = images if dest in news else 0
    return ExportResult(kind, dest, dry_run, images, written=count, already=images - count)


def _contents(rows: Rows, kind: str, dest: Path, layout: str) -> dict[Path, bytes]:
    if kind == "csv":
        return {dest: tables.wide_csv(rows) if layout == "wide" else tables.long_csv(rows)}
    config = dest.with_suffix(".xml")
    if config == dest:
        raise RequestError(
            f"DEST {dest} ends in .xml, which is for the labelling interface; expected a name ending in .json"
        )
    return {
        dest: labelstudio.tasks_json(rows, labelstudio.document_root(rows)),
        config: labelstudio.config_xml(rows),
    }


def _is_new(path: Path, data: bytes) -> bool:
    """False if the file is there with this content. Raises RequestError if it is there with another."""
    if not os.path.lexists(path):
        return True
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return False
    raise RequestError(f"{path} is there already, with other content; delete it or choose another DEST")


def _how_to_serve(tasks: Path, root: Path | None) -> str:
    line = f"in Label Studio, paste {tasks.with_suffix('.xml')} as the labelling interface and import {tasks}"
    if root is None:
        return line
    return (
        f"{line}; start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}, and add the images' folder as a local storage"
    )


# -- many files --------------------------------------------------------------------------------------------------


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
    if not (is_own or _is_new(path, data)):
        return
    with writing_errors(checked.dest):
        record.add_labels(checked.dest, hashlib.sha256(data).hexdigest())
        write_new(path, data, os.replace if is_own else place)


def _warn_of_extensions(rows: Rows, say: Say) -> None:
    others = sorted({PurePosixPath(row.file_name).suffix.lower() for row in rows} - IMAGEFOLDER_EXTENSIONS)
    if others:
        shown = ", ".join(extension or "none" for extension in others)
        say(f"torchvision's ImageFolder passes over files with these extensions, unless told otherwise: {shown}")


def _result(kind: str, checked: Checked, outcome: Outcome, images: int, dry_run: bool) -> ExportResult:
    journal = checked.dest / JOURNAL_NAME
    return ExportResult(
        kind,
        checked.dest,
        dry_run,
        images,
        written=len(checked.pending) + len(checked.finishing) if dry_run else outcome.hows.total(),
        already=checked.already,
        hows=tuple(sorted(outcome.hows.items())),
        left_out=tuple((row.path, reason) for row, reason in outcome.left_out),
        journal=journal if checked.mode == MOVE and journal.is_file() else None,
    )
