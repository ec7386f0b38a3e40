"""The index stage: from a source to images.parquet, one row for each id, and labels.parquet if there are labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from shoal import records
from shoal.config import ClusterConfig
from shoal.errors import NoImagesError
from shoal.images import catalogue
from shoal.images.catalogue import Catalogue, Row
from shoal.images.contents import Content, look_at_all
from shoal.images.decode import VERSION
from shoal.images.folder import is_image_name
from shoal.images.in_memory import InMemorySource, items_in
from shoal.images.item import Item, Source
from shoal.images.left_out import FACT, LeftOut, counted, told
from shoal.images.location import file_uri
from shoal.images.manifest import ManifestSource, looked_for
from shoal.images.reading import ImageReader
from shoal.images.storage import GONE, MISSING
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult
from shoal.runfiles import IN_RUN, LABELS, LISTING, ORDER, PICTURES

DECODER: Final = "decoder"  # the fact that tells its version


def run(
    source: Source,
    config: ClusterConfig,
    run_dir: RunDir,
    progress: Progress,
    require: Callable[[Sequence[Item]], None] | None = None,
) -> StageResult:
    """List the source, read what is new or changed, find exact duplicates, and write the tables.

    Args:
        require: raises if what the source lists does not do, before any of it is read.

    Raises:
        SourceError: the source is not there, or cannot be listed.
        NoImagesError: not one image is usable; the tables say why.
    """
    earlier = _rows(run_dir.earlier.listing)
    left_out: LeftOut = {}
    items = _listed(source, run_dir, left_out)
    if require is not None:
        require(items)
    selected = catalogue.select(_likely(items), config.limit) if config.limit is not None else None
    found = catalogue.match(earlier, items, selected, _is_same_decoder(run_dir.earlier))
    unread = catalogue.look_up(found, _rows(run_dir.unfinished(LISTING)))
    _read_contents([(row, run_dir.located(row.uri)) for row in unread], ImageReader(run_dir.spool), progress)
    catalogue.find_duplicates(found.rows)
    digest = catalogue.digest(found.rows)
    if config.embeddings is not None:
        digest = hashlib.sha256(f"{digest} {_write_order(items, found, run_dir)}".encode()).hexdigest()
    records.write_table(run_dir.new(LISTING), catalogue.to_table(found.rows))
    facts = {**_facts(found, source), FACT: counted(left_out), **_write_labels(found, run_dir)}
    if facts[records.OK] == 0:
        raise NoImagesError(_nothing_usable(source, found.rows, facts[FACT]))
    return StageResult(digest, facts)


def _rows(listing: Path) -> list[Row]:
    return catalogue.read_rows(records.read_table(listing)) if listing.is_file() else []


def _is_same_decoder(earlier: RunDir) -> bool:
    """Was the earlier listing made by the decoder of today? What another one refused may be read by now."""
    record = earlier.stage("index")
    return record is not None and record["facts"].get(DECODER) == VERSION


def _listed(source: Source, run_dir: RunDir, left_out: LeftOut) -> list[Item]:
    """All items but those of the run itself, which may lie in its source; pictures in memory are kept in the run."""
    if isinstance(source, InMemorySource):
        return _kept(source, run_dir)
    own = file_uri(str(run_dir.root)) + "/"
    return [item for item in source.items(left_out) if not item.uri.startswith(own)]


def _kept(source: InMemorySource, run_dir: RunDir) -> list[Item]:
    """Keep pictures as a file of the run, called by what it holds: where they are the same, nothing has changed."""
    unfinished = run_dir.unfinished(f"{PICTURES}/unfinished")
    digest, items = source.write(unfinished)
    name = f"{PICTURES}/{digest}.parquet"
    if run_dir.earlier.path(name).is_file():
        unfinished.unlink()
        run_dir.keep(name)
    else:
        unfinished.replace(run_dir.new(name))
    return list(items_in(f"{IN_RUN}{name}", items))


def _likely(items: list[Item]) -> list[str]:
    """Paths that --limit counts: those named like images if there are any, since nothing has been read yet."""
    named = [item.path for item in items if item.problem is None and is_image_name(item.path)]
    return named or [item.path for item in items]


def _read_contents(rows: Sequence[tuple[Row, str]], reader: ImageReader, progress: Progress) -> None:
    """Read, hash and probe the files of rows, which lie at the URIs beside them, and fill the rows in."""
    if not rows:
        return
    with progress.task("Reading", len(rows)) as task:
        contents = look_at_all([(row.path, uri) for row, uri in rows], reader)
        for (row, _), content in zip(rows, contents, strict=True):
            _fill(row, content)
            task.advance()


def _fill(row: Row, content: Content) -> None:
    row.sha256 = content.sha256
    if row.size_bytes is None:
        row.size_bytes = content.size_bytes
    if content.header is not None:
        row.width, row.height = content.header.width, content.header.height
        return
    row.status = records.VANISHED if content.reason == GONE else records.SKIPPED
    row.reason = content.reason


# -- tables and facts ------------------------------------------------------------------------------------------------


def _write_labels(found: Catalogue, run_dir: RunDir) -> dict[str, str]:
    if not found.labels:
        return {}
    pairs = sorted(found.labels.items())
    ids, labels = [image for image, _ in pairs], [label for _, label in pairs]
    records.write_table(run_dir.new(LABELS), pa.table({"id": ids, "label": labels}, schema=records.LABELS))
    state = hashlib.sha256()
    for image, label in pairs:
        state.update(f"{image}\0{label}\0".encode())
    return {"labels_digest": state.hexdigest()}


def _write_order(items: Sequence[Item], found: Catalogue, run_dir: RunDir) -> str:
    """Keep what the source lists in its own order, by which embeddings are given; id is -1 of what has none."""
    ids = {row.path: row.id for row in found.rows}
    order = pa.array([ids.get(item.path, -1) for item in items], pa.int64())
    columns = {"id": order, "path": [item.path for item in items], "uri": [item.uri for item in items]}
    records.write_table(run_dir.new(ORDER), pa.table(columns))
    return hashlib.sha256(order.to_numpy().tobytes()).hexdigest()


def _facts(found: Catalogue, source: Source) -> dict[str, Any]:
    statuses = [row.status for row in found.rows]
    kinds = (records.OK, records.SKIPPED, records.DUPLICATE, records.VANISHED)
    counts = {kind: statuses.count(kind) for kind in kinds}
    told_of = {"source": source.name, "images": len(statuses), DECODER: VERSION}
    return {**told_of, **counts, "reasons": catalogue.reasons(found.rows)}


def _nothing_usable(source: Source, rows: Sequence[Row], left_out: dict[str, int]) -> str:
    beside = f"; {told(left_out)}" if left_out else ""
    if not rows:
        verb = "lists" if isinstance(source, ManifestSource) else "holds"
        return f"no usable image in {source.identity}: it {verb} no file{beside}"
    reasons = catalogue.reasons(rows)
    why = ", ".join(f"{count:,} {reason}" if len(reasons) > 1 else reason for reason, count in reasons.items())
    skipped = sum(row.status == records.SKIPPED for row in rows)
    vanished = f", {len(rows) - skipped:,} vanished" if skipped < len(rows) else ""
    counts = f"{len(rows):,} file{'s' * (len(rows) != 1)}, {skipped:,} skipped{vanished}"
    return f"no usable image in {source.identity}: {counts}: {why}{looked_for(source, _first_missing(rows))}{beside}"


def _first_missing(rows: Sequence[Row]) -> str | None:
    return next((row.path for row in rows if (row.reason or "").startswith((MISSING, GONE))), None)
