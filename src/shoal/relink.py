"""Where a run's source is: written down when it is indexed, found beside a run that moved with it, or told anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import draft as drafts
from shoal import parquet, records
from shoal.draft import Draft
from shoal.errors import DecodeError, RunError, SourceError
from shoal.images.folder import FolderSource
from shoal.images.in_memory import InMemorySource
from shoal.images.listed import Source
from shoal.images.location import is_uri, local_path
from shoal.images.manifest import ManifestSource
from shoal.images.reading import ImageReader
from shoal.images.sources import open_source
from shoal.images.storage import is_local
from shoal.images.table import TableSource
from shoal.images.tar import TarSource
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_bytes
from shoal.runfiles import LISTING
from shoal.wording import counted

COMPARED: Final = 50  # images whose bytes are read and compared
LEAST_FOUND: Final = 0.5  # of the images that have clusters


@dataclass(frozen=True, slots=True)
class Relinked:
    """What a new place holds: of `images` so many `found` with the size they had, and `compared` byte for byte."""

    images: int
    found: int
    compared: int

    def summary(self, root: Path, source: Source) -> str:
        missed = self.images - self.found
        missing = f"; {missed:,} {'is' if missed == 1 else 'are'} not there" if missed else ""
        return (
            f"{root}: {self.found:,} of {counted(self.images, 'image')} found in {source.identity}, "
            f"{self.compared:,} of them compared byte for byte{missing}"
        )


def place_of(root: Path, source: Source) -> dict[str, Any]:
    """What run.json tells of a source: its identity and name; on this machine also its folder, and the way there."""
    place: dict[str, Any] = {"identity": source.identity, "name": source.name}
    folder = _folder_of(source)
    if folder is not None:
        place["folder"] = str(folder)
        try:
            place["beside"] = Path(os.path.relpath(folder, root.absolute())).as_posix()
        except ValueError:  # on Windows, another drive
            place["beside"] = None
    return place


def is_moved_together(run_dir: RunDir, source: Source) -> bool:
    """Is this the run's source, moved together with the run?"""
    known, folder = run_dir.read_state().get("source", {}), _folder_of(source)
    if folder is None or known.get("beside") is None or Path(known["folder"]).exists():
        return False
    return folder == Path(os.path.normpath(run_dir.root.absolute() / known["beside"]))


def holds_its_source(run_dir: RunDir) -> bool:
    """Was the run made of pictures that a program held, and that it keeps?"""
    return bool(run_dir.read_state().get("source", {}).get("identity") == InMemorySource.identity)


def relink(root: Path, spec: Sequence[str], progress: Progress) -> tuple[Relinked, Source]:
    """Say where the source of a run is now, after comparing sizes and the bytes of some images.

    Raises:
        RunError: there is no finished run, or it holds its images itself.
        SourceError: it is not there, or holds other images.
        RunLockedError: another process is writing the run.
    """
    run = RunDir.open(root)
    run.require("index", "cluster")
    if holds_its_source(run):
        raise RunError(f"{root} is a run of pictures in memory, and holds them itself: there is nothing to relink")
    source = open_source(spec)
    with drafts.writing(root) as draft:
        images = draft.run_dir.read_images()
        listed = source.listed()
        there = listed.where(pc.is_null(listed.table["problem"]).to_numpy()).table
        wanted = images.filter(pc.is_in(images["status"], pa.array([records.OK, records.DUPLICATE])))
        at = pc.index_in(wanted["path"], value_set=there["path"])
        found, now = wanted.filter(pc.is_valid(at)), parquet.take_rows(there, at.drop_null().combine_chunks())
        _require_same_sizes(source, found, now)
        if found.num_rows < LEAST_FOUND * wanted.num_rows or not found.num_rows:
            missing = wanted["path"][pc.index(pc.is_null(at), True).as_py()]
            raise SourceError(
                f"{source.identity} is not where the images are now: it holds {found.num_rows:,} of "
                f"{wanted.num_rows:,}, and not {missing}, for one; expected at least half of them"
            )
        chosen = pa.array(np.arange(0, found.num_rows, -(-found.num_rows // COMPARED)))
        _compare(source, parquet.take_rows(found, chosen), parquet.take_rows(now, chosen), progress)
        _write(draft, there)
        draft.state["source"] = place_of(root, source)
        draft.state["asked"] = {**draft.state.get("asked", {}), "source": absolute(spec)}
        draft.commit()
    return Relinked(wanted.num_rows, found.num_rows, len(chosen)), source


def absolute(spec: Sequence[str]) -> list[str]:
    """A source as it can be found from any folder."""
    return [one if is_uri(one) else str(Path(one).expanduser().absolute()) for one in spec]


def _require_same_sizes(source: Source, found: pa.Table, now: pa.Table) -> None:
    is_other = pc.fill_null(pc.not_equal(found["size_bytes"], now["size_bytes"]), False)
    row = pc.index(is_other, True).as_py()
    if row >= 0:
        path, before, after = found["path"][row], found["size_bytes"][row].as_py(), now["size_bytes"][row].as_py()
        raise SourceError(
            f"{source.identity} is not where the images are now: {path} has {after:,} bytes there; expected {before:,}"
        )


def _compare(source: Source, chosen: pa.Table, now: pa.Table, progress: Progress) -> None:
    reader = ImageReader(source.spool)
    with progress.task("Comparing", chosen.num_rows) as task:
        for path, sha256, uri in zip(chosen["path"], chosen["sha256"], now["uri"], strict=True):
            try:
                is_same = digest_bytes(reader.read(uri.as_py())) == sha256.as_py()
            except DecodeError as error:
                raise SourceError(f"{source.identity} cannot be read: {path}: {error}") from error
            if not is_same:
                raise SourceError(f"{source.identity} is not where the images are now: {path} is another image there")
            task.advance()


def _write(draft: Draft, there: pa.Table) -> None:
    """The tables with the URIs of the new place; all else of the stages stays as it is."""
    run = draft.run_dir
    listing, images = run.read_listing(), run.read_images()
    for stage, name, table in (("index", LISTING, listing), ("images", "images.parquet", images)):
        others = [file for file in draft.files[stage] if file != name]
        draft.begin_stage()
        at = pc.index_in(table["path"], value_set=there["path"])
        uris = pc.coalesce(parquet.take(there["uri"], at.combine_chunks()), table["uri"])
        records.write_table(run.new(name), table.set_column(table.column_names.index("uri"), "uri", uris))
        for file in others:
            run.keep(file)
        draft.end_stage(stage, draft.records[stage])


def _folder_of(source: Source) -> Path | None:
    """The folder on this machine that a source's images lie in, or None."""
    match source:
        case FolderSource():
            return Path(source.base)
        case ManifestSource():
            uris = [source.uri]
        case TableSource() | TarSource():
            uris = [uri for uri, _ in source.shards]
        case _:
            return None
    if not all(is_local(uri) for uri in uris):
        return None
    return Path(os.path.commonpath([os.path.dirname(local_path(uri)) for uri in uris]))  # noqa: PTH120
