"""The images stage: what the index listed and what embedding found out, joined into images.parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.config import ClusterConfig
from shoal.embed.failures import DECODE, NOTE, read_outcomes
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write images.parquet: the listing, with each image whose pixels turned out broken marked as skipped,
    and beside an image that is ok what decoding had to infer or choose."""
    images = _mark(records.read_table(run_dir.listing), read_outcomes(run_dir))
    records.write_table(run_dir.new("images.parquet"), images)
    return StageResult(records.digest_of_images(images))


def _mark(images: pa.Table, outcomes: pa.Table) -> pa.Table:
    """The image table: each failed image and its duplicates marked with the reason, notes beside the others."""
    is_note = pc.equal(outcomes["kind"], NOTE)
    failures, notes = outcomes.filter(pc.invert(is_note)), outcomes.filter(is_note)
    own = pc.index_in(images["id"], value_set=failures["id"])
    failed = pc.coalesce(own, pc.index_in(images["duplicate_of"], value_set=failures["id"], skip_nulls=True))
    is_usable = pc.is_in(images["status"], value_set=pa.array([records.OK, records.DUPLICATE]))
    is_failed = pc.and_(pc.is_valid(failed), is_usable)
    is_noted = pc.and_(pc.equal(images["status"], records.OK), pc.invert(is_failed))
    lost = pc.if_else(pc.equal(failures["kind"].take(failed), DECODE), records.SKIPPED, records.VANISHED)
    noted = notes["reason"].take(pc.index_in(images["id"], value_set=notes["id"]))
    reason = pc.if_else(is_noted, noted, images["reason"])
    changed = {
        "status": pc.if_else(is_failed, lost, images["status"]),
        "reason": pc.if_else(is_failed, failures["reason"].take(failed), reason),
        "duplicate_of": pc.if_else(is_failed, pa.scalar(None, pa.int64()), images["duplicate_of"]),
    }
    return pa.table({name: changed.get(name, images[name]) for name in images.column_names}, schema=records.IMAGES)
