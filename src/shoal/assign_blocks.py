"""Assignment as work in pieces: a piece is a block of what the source lists, and done when its file is there.

The files lie in a folder beside the table that they become, until that is written: who is killed goes on from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from shoal import records
from shoal.assign import SCHEMA, AssignSummary, batch_of, require_some
from shoal.blocks import BlockFolder
from shoal.corrections.model import CorrectedModel
from shoal.embed.newcomers import BLOCK
from shoal.errors import RunError
from shoal.executor import Executor
from shoal.export.transfer import writing_errors
from shoal.hub import is_on_hub
from shoal.images.listed import Listed
from shoal.images.sources import Source
from shoal.kind import kind_by
from shoal.model import Model
from shoal.progress import Progress
from shoal.rundir import digest_file, digest_of

LISTED: Final = "listed.parquet"
SKIPPED: Final = b"skipped"  # in a block's metadata: path and reason of each image that could not be assigned


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of what `folder` has a listing of, assigned by the model at `place`."""

    place: str
    model: str  # digest: it may change before a worker opens it
    folder: str
    device: str

    def start(self) -> BlocksWorker:
        folder = BlockFolder.of_others(self.folder, "--to")
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
    folder: BlockFolder

    @property
    def kind(self) -> Mapping[str, str]:
        return kind_by(self.model.engine.name)

    def do(self, pieces: Iterable[int]) -> Iterator[int]:
        """Assign the blocks with these numbers, and tell how many images have come."""
        for number in pieces:
            rows = range(number * BLOCK, (number + 1) * BLOCK)
            listed = Listed(records.read_table(self.folder.path / LISTED, rows=rows))
            batches: list[pa.RecordBatch] = []
            skipped: list[tuple[str, str]] = []
            for newcomers in self.model.embed(listed.items()):
                if newcomers.items:
                    batches.append(batch_of(self.model, newcomers))
                skipped += [(item.path, reason) for item, reason in newcomers.skipped]
                yield len(newcomers.items) + len(newcomers.skipped)
            table = pa.Table.from_batches(batches, SCHEMA).replace_schema_metadata({SKIPPED: json.dumps(skipped)})
            records.write_table(self.folder.file(number), table)


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
    folder = BlockFolder.beside(target)
    listed = source.listed()
    place = model.place if is_on_hub(model.place) else str(Path(model.place).absolute())
    work = Blocks(place, _digest(model.clusters), str(folder.path), device)
    count = -(-len(listed) // BLOCK)
    with writing_errors(folder.path), folder.alone("an assignment"):
        records.write_table(folder.path / LISTED, listed.table)
        folder.keep(digest_of(work.model, digest_file(folder.path / LISTED)))
        folder.make(work, count, BLOCK, executor, ("Assigning", progress))
        yield _read(folder, count, source, summary)
        folder.remove(count, folder.path / LISTED)


def _read(folder: BlockFolder, count: int, source: Source, summary: AssignSummary) -> Iterator[pa.RecordBatch]:
    for number in range(count):
        table = records.read_table(folder.file(number))
        summary.skipped += [(path, reason) for path, reason in json.loads(table.schema.metadata[SKIPPED])]
        for batch in table.replace_schema_metadata(None).to_batches():
            summary.count(batch)
            yield batch
    require_some(source, summary)


def _digest(clusters: CorrectedModel) -> str:
    """Of all that decides where an image goes, and what the cluster is called."""
    model = clusters.model
    state = hashlib.sha256()
    for values in (clusters.numbers, model.centroids, model.least_closeness, model.space.mean):
        state.update(np.ascontiguousarray(values).tobytes())
    names = sorted((number, shown.name, shown.strength) for number, shown in clusters.shown.items())
    return digest_of(state.hexdigest(), model.concentration, model.most_outside, names)
