"""The index stage: from a source to images.parquet, one row for each id, and labels.parquet if there are labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.config import ClusterConfig
from shoal.errors import NoImagesError
from shoal.images import catalogue
from shoal.images.catalogue import Catalogue
from shoal.images.contents import look_at_all, read_all
from shoal.images.decode import VERSION
from shoal.images.in_memory import InMemorySource
from shoal.images.left_out import FACT, LeftOut, counted, told
from shoal.images.listed import Bools, Listed, Source
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
    require: Callable[[Listed], None] | None = None,
) -> StageResult:
    """List the source, read what is new or changed, find exact duplicates, and write the tables.

    Args:
        require: raises if what the source lists does not do, before any of it is read.

    Raises:
        SourceError: the source is not there, or cannot be listed.
        NoImagesError: not one image is usable; the tables say why, if there is a file at all.
    """
    left_out: LeftOut = {}
    listed = _listed(source, run_dir, left_out)
    if require is not None:
        require(listed)
    selected = _selected(listed, config.limit) if config.limit is not None else None
    found = catalogue.match(_rows(run_dir.earlier.listing), listed, selected, _is_same_decoder(run_dir.earlier))
    found = catalogue.look_up(found, _rows(run_dir.unfinished(LISTING)))
    images = catalogue.find_duplicates(_read_contents(found, run_dir, progress))
    if not images.num_rows:
        raise NoImagesError(_nothing_usable(source, images, counted(left_out)))
    digest = catalogue.digest(images)
    if config.embeddings is not None:
        digest = hashlib.sha256(f"{digest} {_write_order(listed, found, run_dir)}".encode()).hexdigest()
    records.write_table(run_dir.new(LISTING), images)
    facts = {**_facts(images, source), FACT: counted(left_out), **_write_labels(found.labels, run_dir)}
    if facts[records.OK] == 0:
        raise NoImagesError(_nothing_usable(source, images, facts[FACT]))
    return StageResult(digest, facts)


def _rows(listing: Path) -> pa.Table:
    return records.read_table(listing) if listing.is_file() else records.IMAGES.empty_table()


def _is_same_decoder(earlier: RunDir) -> bool:
    """Was the earlier listing made by the decoder of today? What another one refused may be read by now."""
    record = earlier.stage("index")
    return record is not None and record["facts"].get(DECODER) == VERSION


def _listed(source: Source, run_dir: RunDir, left_out: LeftOut) -> Listed:
    """All entries but those of the run itself, which may lie in its source; pictures in memory are kept in the run."""
    if isinstance(source, InMemorySource):
        return _kept(source, run_dir)
    listed = source.listed(left_out)
    return listed.where(~pc.starts_with(listed.uris, file_uri(str(run_dir.root)) + "/").to_numpy())


def _kept(source: InMemorySource, run_dir: RunDir) -> Listed:
    """Keep pictures as a file of the run, called by what it holds: where they are the same, nothing has changed."""
    unfinished = run_dir.unfinished(f"{PICTURES}/unfinished")
    digest, listed = source.write(unfinished)
    name = f"{PICTURES}/{digest}.parquet"
    if run_dir.earlier.path(name).is_file():
        unfinished.unlink()
        run_dir.keep(name)
    else:
        unfinished.replace(run_dir.new(name))
    return listed.below(f"{IN_RUN}{name}")


def _selected(listed: Listed, limit: int) -> Bools:
    """Which entries --limit lets in. Those named like images count if there are any: nothing has been read yet."""
    is_likely = listed.named_like_images()
    if not is_likely.any():
        return catalogue.select(listed.paths, limit)
    selected = is_likely.copy()
    selected[is_likely] = catalogue.select(listed.paths.filter(pa.array(is_likely)), limit)
    return selected


def _read_contents(found: Catalogue, run_dir: RunDir, progress: Progress) -> pa.Table:
    """Read, hash and probe the files of the unread rows, and fill the rows in."""
    if not len(found.unread):
        return found.table
    unread = parquet.take_rows(found.table.select(["path", "uri"]), pa.array(found.unread))
    reader = ImageReader(run_dir.spool)
    with progress.task("Reading", unread.num_rows) as task:
        contents = read_all(look_at_all(unread["path"], run_dir.located(unread["uri"]), reader), task.advance)
    return catalogue.fill(found.table, found.unread, contents)


# -- tables and facts ------------------------------------------------------------------------------------------------


def _write_labels(labels: pa.Table, run_dir: RunDir) -> dict[str, str]:
    if not labels.num_rows:
        return {}
    records.write_table(run_dir.new(LABELS), labels)
    state = hashlib.sha256()
    for rows in labels.to_batches():
        texts = (rows["id"].cast(pa.string()), rows["label"], "")
        records.update(state, pc.binary_join_element_wise(*texts, "\0"))
    return {"labels_digest": state.hexdigest()}


def _write_order(listed: Listed, found: Catalogue, run_dir: RunDir) -> str:
    """Keep what the source lists in its own order, by which embeddings are given; id is -1 of what has none."""
    order = pa.array(found.ids)
    records.write_table(run_dir.new(ORDER), pa.table({"id": order, "path": listed.paths, "uri": listed.uris}))
    return hashlib.sha256(found.ids.tobytes()).hexdigest()


def _facts(images: pa.Table, source: Source) -> dict[str, Any]:
    told_of = {"source": source.name, "images": images.num_rows, DECODER: VERSION}
    return {**told_of, **catalogue.counts(images), "reasons": catalogue.reasons(images["reason"])}


def _nothing_usable(source: Source, images: pa.Table, left_out: dict[str, int]) -> str:
    beside = f"; {told(left_out)}" if left_out else ""
    count = images.num_rows
    if not count:
        verb = "lists" if isinstance(source, ManifestSource) else "holds"
        return f"no usable image in {source.identity}: it {verb} no file{beside}"
    reasons = catalogue.reasons(images["reason"])
    why = ", ".join(f"{count:,} {reason}" if len(reasons) > 1 else reason for reason, count in reasons.items())
    skipped = catalogue.counts(images)[records.SKIPPED]
    vanished = f", {count - skipped:,} vanished" if skipped < count else ""
    counts = f"{count:,} file{'s' * (count != 1)}, {skipped:,} skipped{vanished}"
    missing = looked_for(source, catalogue.first_with(images, MISSING, GONE))
    return f"no usable image in {source.identity}: {counts}: {why}{missing}{beside}"
