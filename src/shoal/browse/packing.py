"""Exports for the browser: what `shoal export` writes, as one file."""

from __future__ import annotations

import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Final

from shoal.browse.jobs import Job, JobProgress
from shoal.browse.site import OpenedRun
from shoal.disk import require_free
from shoal.export.export import export
from shoal.export.kinds import KINDS_OF_FILES
from shoal.export.placement import own_file
from shoal.export.record import RECORD_NAME
from shoal.export.rows import read_rows
from shoal.wording import counted

OLD_SECONDS: Final = 24 * 3600
NAMES: Final = {
    "csv": "clusters.csv",
    "wide": "clusters-wide.csv",
    "parquet": "clusters.parquet",
    "labelstudio": "labelstudio.json",
}
STORED: Final = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic", ".avif", ".parquet"))


def pack(opened: OpenedRun, kind: str, layout: str, job: Job) -> str:
    """Export into the run's cache, make one file of it, and hang it on the job; the last line for the person.

    Raises:
        ShoalError: whatever the export raises. DiskSpaceError: there is no room for the file.
    """
    run_dir = opened.view.run_dir
    folder = run_dir.cache / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    _clear_old(folder)
    mode = "copy"
    if kind in KINDS_OF_FILES:
        rows = read_rows(run_dir)
        mode = "link" if all(own_file(row.uri) is not None for row in rows) else "copy"
        require_free(folder, sum(row.size_bytes for row in rows) * (1 if mode == "link" else 2), "the export")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        lines: list[str] = []
        dest = Path(scratch) / NAMES.get("wide" if layout == "wide" else kind, "images")
        result = export(run_dir, kind, dest, mode=mode, layout=layout, say=lines.append, progress=JobProgress(job))
        job.message = "Packing"
        written = sorted(path for path in Path(scratch).rglob("*") if path.is_file() and path.name != RECORD_NAME)
        base = Path(opened.view.run_dir.root.absolute().name).stem
        if len(written) == 1 and kind not in KINDS_OF_FILES:
            job.file, job.file_name = folder / f"{job.id}{dest.suffix}", f"{base}-{dest.name}"
            shutil.move(written[0], job.file)
        else:
            job.file, job.file_name = folder / f"{job.id}.zip", f"{base}-{kind}.zip"
            _zip(written, dest if dest.is_dir() else Path(scratch), job)
    left_out = f", {len(result.left_out):,} left out" if result.left_out else ""
    return f"{counted(result.images - len(result.left_out), 'image')}{left_out}"


def _clear_old(folder: Path) -> None:
    """Delete what servers that were killed have left; another server of this run may have made the newer ones."""
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _zip(files: list[Path], root: Path, job: Job) -> None:
    """Pack files by their names below `root`; links are followed."""
    assert job.file is not None
    temporary = job.file.with_suffix(".part")
    with JobProgress(job).task("Packing", len(files)) as task, zipfile.ZipFile(temporary, "w") as packed:
        for path in files:
            compression = zipfile.ZIP_STORED if path.suffix.lower() in STORED else zipfile.ZIP_DEFLATED
            info = zipfile.ZipInfo.from_file(path, path.relative_to(root).as_posix(), strict_timestamps=False)
            info.compress_type = compression
            with path.open("rb") as source, packed.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            task.advance()
    temporary.replace(job.file)
