"""The images stage: what the index listed and what embedding found out, joined into images.parquet."""

from __future__ import annotations

import pyarrow as pa

from shoal import records
from shoal.config import ClusterConfig
from shoal.embed.batches import Failure
from shoal.embed.failures import read_failures, read_notes
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write images.parquet: the listing, with each image whose pixels turned out broken marked as skipped,
    and beside an image that is ok what decoding had to infer or choose."""
    images = _mark(records.read_table(run_dir.listing), read_failures(run_dir), read_notes(run_dir))
    records.write_table(run_dir.new("images.parquet"), images)
    return StageResult(records.digest_of_images(images))


def _mark(images: pa.Table, failures: dict[int, Failure], notes: dict[int, str]) -> pa.Table:
    """The image table: each failed image and its duplicates marked with the reason, notes beside the others."""
    status, reason = images["status"].to_pylist(), images["reason"].to_pylist()
    originals = images["duplicate_of"].to_pylist()
    for row, (image, original) in enumerate(zip(images["id"].to_pylist(), originals, strict=True)):
        failure = failures.get(image) or failures.get(original)
        if failure is not None and status[row] in (records.OK, records.DUPLICATE):
            status[row] = records.SKIPPED if failure.kind == "decode" else records.VANISHED
            reason[row], originals[row] = failure.reason, None
        elif status[row] == records.OK:
            reason[row] = notes.get(image)
    changed = {"status": status, "reason": reason, "duplicate_of": originals}
    columns = {name: changed.get(name, images[name]) for name in images.column_names}
    return pa.table(columns, schema=records.IMAGES)
