"""Assignment as work in pieces: a piece is a block of what the source lists, and done when its file is there.

The files lie in a folder beside the table that they become, until that is written: who is killed goes on from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa

from shoal import atomic, foreign, lock, records
from shoal.assign import SCHEMA, AssignSummary, batch_of, require_some
from shoal.corrections.model import CorrectedModel
from shoal.embed.newcomers import BLOCK
from shoal.errors import RequestError, RunError
from shoal.executor import Executor
from shoal.export.transfer import writing_errors
from shoal.hub import is_on_hub
from shoal.images.listed import Listed
from shoal.images.sources import Source
from shoal.kind import kind_by
from shoal.model import Model
from shoal.progress import Progress
from shoal.rundir import digest_file, digest_of
from shoal.typed import Most

PLAN: Final = "plan.json"
LISTED: Final = "listed.parquet"
SKIPPED: Final = b"skipped"  # in a block's metadata: path and reason of each image that could not be assigned


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the files in a folder of blocks are of: the model, and what the source lists."""

    key: Annotated[str, Most(64)]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of what `folder` has a listing of, assigned by the model at `place`."""

    place: str
    model: str  # digest: it may change before a worker opens it
    folder: str
    device: str

    def start(self) -> BlocksWorker:
        folder = Path(self.folder)
        if not (folder / LISTED).is_file():
            raise RequestError(
                f"{folder} is not there on {socket.gethostname()}; expected --to on a path that all machines see"
            )
        model = Model.open(self.place, self.device)
        if _digest(model.clusters) != self.model:
            raise RunError(f"{self.place} has changed meanwhile; run the same shoal assign again")
        return BlocksWorker(model, folder)

    def portable(self, device: str) -> Blocks:
        return dataclasses.replace(self, device=device)


@dataclass(frozen=True, slots=True)
class BlocksWorker:
    """Assigns blocks by a model that is open."""

    model: Model
    folder: Path

    @property
    def kind(self) -> Mapping[str, str]:
        return kind_by(self.model.engine.name)

    def do(self, pieces: Iterable[int]) -> Iterator[int]:
        """Assign the blocks with these numbers, and tell how many images have come."""
        for number in pieces:
            rows = range(number * BLOCK, (number + 1) * BLOCK)
            listed = Listed(records.read_table(self.folder / LISTED, rows=rows))
            batches: list[pa.RecordBatch] = []
            skipped: list[tuple[str, str]] = []
            for newcomers in self.model.embed(listed.items()):
                if newcomers.items:
                    batches.append(batch_of(self.model, newcomers))
                skipped += [(item.path, reason) for item, reason in newcomers.skipped]
                yield len(newcomers.items) + len(newcomers.skipped)
            table = pa.Table.from_batches(batches, SCHEMA).replace_schema_metadata({SKIPPED: json.dumps(skipped)})
            records.write_table(_file(self.folder, number), table)


@contextmanager
def assigned(
    executor: Executor,
    model: Model,
    source: Source,
    target: Path,
    device: str,
    summary: AssignSummary,
    progress: Progress,
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Have the images of `source` assigned, block by block, and yield what `shoal.assign.assign` yields.

    The blocks are removed when the caller is done with them without an error.

    Args:
        model: its place is one that all workers see; here it needs no encoder.
        target: of the table that the caller writes.

    Raises:
        RunError: there is no encoder at the model's place. NoImagesError: not one image could be read.
        RequestError: something else lies where the blocks would.
        Whatever the executor raises.
    """
    folder = target.absolute().with_name(f"{target.name}.parts")
    listed = source.listed()
    place = model.place if is_on_hub(model.place) else str(Path(model.place).absolute())
    work = Blocks(place, _digest(model.clusters), str(folder), device)
    with writing_errors(folder), _settled(folder, listed, work):
        numbers = range(-(-len(listed) // BLOCK))
        missing = [number for number in numbers if not _file(folder, number).is_file()]
        if missing:
            _assign(work, missing, executor, progress)
        yield _read(folder, numbers, source, summary)
        _remove(folder, numbers)


def _assign(work: Blocks, missing: list[int], executor: Executor, progress: Progress) -> None:
    with progress.task("Assigning", len(missing) * BLOCK) as task, closing(executor.run(work, missing)) as told:
        for count in told:
            task.advance(count)


@contextmanager
def _settled(folder: Path, listed: Listed, work: Blocks) -> Iterator[None]:
    """Be the only one who fills `folder`, which holds blocks of this work alone."""
    if folder.exists() and not (folder / PLAN).is_file() and any(folder.iterdir()):
        raise RequestError(f"{folder} is there already, and holds no blocks of an assignment; delete it or move it")
    folder.mkdir(parents=True, exist_ok=True)
    with lock.alone(folder):
        records.write_table(folder / LISTED, listed.table)
        key = digest_of(work.model, digest_file(folder / LISTED))
        known = foreign.read_json(folder / PLAN, _Plan).key if (folder / PLAN).is_file() else None
        if known != key:  # of another model, or of what the source was before
            for file in folder.glob("block-*.parquet"):
                file.unlink()
            atomic.write_json(folder / PLAN, {"key": key})
        yield


def _read(folder: Path, numbers: range, source: Source, summary: AssignSummary) -> Iterator[pa.RecordBatch]:
    for number in numbers:
        table = records.read_table(_file(folder, number))
        summary.skipped += [(path, reason) for path, reason in json.loads(table.schema.metadata[SKIPPED])]
        for batch in table.replace_schema_metadata(None).to_batches():
            summary.count(batch)
            yield batch
    require_some(source, summary)


def _remove(folder: Path, numbers: range) -> None:
    for file in (*(_file(folder, number) for number in numbers), folder / LISTED, folder / PLAN):
        file.unlink(missing_ok=True)
    folder.rmdir()


def _file(folder: Path, number: int) -> Path:
    return folder / f"block-{number:06d}.parquet"


def _digest(clusters: CorrectedModel) -> str:
    """Of all that decides where an image goes, and what the cluster is called."""
    model = clusters.model
    state = hashlib.sha256()
    for values in (clusters.numbers, model.centroids, model.least_closeness, model.space.mean):
        state.update(np.ascontiguousarray(values).tobytes())
    names = sorted((number, shown.name, shown.strength) for number, shown in clusters.shown.items())
    return digest_of(state.hexdigest(), model.concentration, model.most_outside, names)
