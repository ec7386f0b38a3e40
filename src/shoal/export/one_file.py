"""Exports that are one file, or one and what explains it: tables, and Label Studio's tasks with their interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shoal.errors import RequestError
from shoal.executor import HERE
from shoal.export import labelstudio, tables
from shoal.export.asked import Asked, ExportResult, Means
from shoal.export.rows import ClusteredRun, read_rows
from shoal.export.table_blocks import table_blocks
from shoal.export.transfer import remove_unfinished, write_new, writing_errors
from shoal.rundir import RunDir


def write_parquet(run_dir: RunDir, asked: Asked, means: Means) -> ExportResult:
    """A Parquet table, made block by block."""
    run, file = ClusteredRun.open(run_dir), asked.file
    with table_blocks(run, file, HERE if asked.dry_run else means.executor, means.progress) as blocks:
        return _write(asked, means, {file: tables.parquet(blocks)}, len(run))


def write_csv(run_dir: RunDir, asked: Asked, means: Means) -> ExportResult:
    """A CSV of either layout."""
    rows = read_rows(run_dir)
    contents = tables.wide_csv(rows) if asked.layout == "wide" else tables.long_csv(rows)
    return _write(asked, means, {asked.file: contents}, len(rows))


def write_tasks(run_dir: RunDir, asked: Asked, means: Means) -> ExportResult:
    """Label Studio's tasks and, beside them, the labelling interface that fits."""
    rows, file = read_rows(run_dir, asked.by_number), asked.file
    config = file.with_suffix(".xml")
    if config == file:
        raise RequestError(
            f"DEST {file} ends in .xml, which is for the labelling interface; expected a name ending in .json"
        )
    root = labelstudio.document_root(rows)
    contents = {file: labelstudio.tasks_json(rows, root), config: labelstudio.config_xml(rows)}
    result = _write(asked, means, contents, len(rows))
    if not asked.dry_run:
        means.say(_how_to_serve(file, root))
    return result


def is_missing(path: Path, data: bytes) -> bool:
    """False if the file is there with this content. Raises RequestError if it is there with another."""
    if not os.path.lexists(path):
        return True
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return False
    raise RequestError(f"{path} is there already, with other content; delete it or choose another DEST")


def _write(asked: Asked, means: Means, contents: Mapping[Path, bytes], images: int) -> ExportResult:
    """Write what is not there yet; the first of `contents` is the export itself."""
    file = next(iter(contents))
    news = [path for path, data in contents.items() if is_missing(path, data)]
    if asked.dry_run:
        for path in news:
            means.say(f"would write {path} ({len(contents[path]):,} bytes)")
    else:
        with writing_errors(file):
            for path, data in contents.items():
                if path in news:
                    write_new(path, data, means.place)
                else:
                    remove_unfinished(path, data)
    count = images if file in news else 0
    return ExportResult(asked.kind, file, asked.dry_run, images, written=count, already=images - count)


def _how_to_serve(tasks: Path, root: Path | None) -> str:
    line = f"in Label Studio, paste {tasks.with_suffix('.xml')} as the labelling interface and import {tasks}"
    if root is None:
        return line
    return (
        f"{line}; start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}, and add the images' folder as a local storage"
    )
