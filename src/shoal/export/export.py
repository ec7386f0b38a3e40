"""`export`: a finished run as folders, a table, or the input of another program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from shoal.executor import HERE, Executor
from shoal.export.asked import Asked, ExportResult, Means, Say
from shoal.export.files import COPY, Read
from shoal.export.many_files import write_files
from shoal.export.one_file import write_csv, write_parquet, write_tasks
from shoal.export.transfer import Place, rename_into_place
from shoal.progress import Progress
from shoal.rundir import RunDir

WAYS: Final[Mapping[str, Callable[[RunDir, Asked, Means], ExportResult]]] = {
    "folders": write_files,
    "csv": write_csv,
    "parquet": write_parquet,
    "imagefolder": write_files,
    "fiftyone": write_files,
    "labelstudio": write_tasks,
}


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
        read: gives the bytes of an image by its URI, or raises DecodeError; None: of the image itself.
        place: renames one file; a parameter for tests of faults.
        executor: of the blocks of a Parquet table.

    Raises:
        RequestError: an argument has a value it cannot have, or a file is in the way; or images would lie in the run,
            or where its source is read.
        RunError: the run has no clusters yet.
        WorkError: not one image is left in the source.
        RunLockedError: another process is writing into DEST.
        DiskSpaceError, WorkError: see `shoal.export.files.carry_out`.
    """
    asked = Asked(kind, Path(dest).absolute(), mode, layout, by_number, dry_run)
    means = Means(say, progress or Progress(), read, place, executor)
    return WAYS[kind](run_dir, asked, means)
