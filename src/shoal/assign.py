"""`shoal assign`: new images into the clusters of a finished run."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal.cells import csv_line, guarded
from shoal.corrections.model import CorrectedModel
from shoal.embed.given import Given
from shoal.embed.newcomers import Newcomers
from shoal.errors import NoImagesError, RequestError
from shoal.export.transfer import rename_into_place, write_new, writing_errors
from shoal.images.manifest import looked_for
from shoal.images.sources import Source
from shoal.images.storage import GONE, MISSING
from shoal.model import Model
from shoal.progress import Progress

SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("cluster", pa.int64()),  # the nearest
        ("confidence", pa.float64()),  # 0 to 1, how sure that is
        ("unknown", pa.bool_()),  # it looks like none of them
        ("unsure", pa.bool_()),
        ("runner_up", pa.int64()),  # -1 where there is no other cluster
        ("name", pa.string()),  # of the cluster
        ("name_strength", pa.float64()),  # of a name that is a guess, in nats; null of one that a person gave
    ]
)
COLUMNS: Final = tuple(SCHEMA.names)
_CHOOSE = "delete it or choose another name"
MOST_NAMED = 30  # clusters listed in an error


@dataclass(slots=True)
class AssignSummary:
    """Counts of an assignment, and the images that could not be read or have no embedding, with reasons."""

    assigned: int = 0
    unknown: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def count(self, batch: pa.RecordBatch) -> None:
        """Count a batch of `SCHEMA`."""
        self.assigned += batch.num_rows
        self.unknown += pc.sum(batch["unknown"]).as_py() or 0


def assign(
    model: Model, source: Source, summary: AssignSummary, progress: Progress, given: Given | None = None
) -> Iterator[pa.RecordBatch]:
    """Assign the images of `source`, in its order, some at a time, filling `summary` on the way.

    Yields:
        Batches of `SCHEMA`.

    Args:
        given: their embeddings, in place of the model's encoder.

    Raises:
        RunError: the model has no encoder, and no embeddings are given.
        EmbeddingsError: they do not fit the model or the source.
        NoImagesError: not one image could be read (after the last item).
    """
    listed = source.listed()
    new = model.embed(listed.items(), source.spool) if given is None else model.take(given, listed, source.spool)
    return _assigned(model, source, new, len(listed), summary, progress)


def _assigned(
    model: Model, source: Source, embedded: Iterator[Newcomers], count: int, summary: AssignSummary, progress: Progress
) -> Iterator[pa.RecordBatch]:
    with progress.task("Assigning", count) as task:
        for newcomers in embedded:
            if newcomers.items:
                batch = batch_of(model, newcomers)
                summary.count(batch)
                yield batch
            summary.skipped += [(item.path, reason) for item, reason in newcomers.skipped]
            task.advance(len(newcomers.items) + len(newcomers.skipped))
    require_some(source, summary)


def require_some(source: Source, summary: AssignSummary) -> None:
    """Raise NoImagesError, which says why, if not one image of `source` was assigned."""
    if summary.assigned == 0:
        reasons = sorted({reason for _, reason in summary.skipped})
        missing = next((path for path, reason in summary.skipped if reason.startswith((MISSING, GONE))), None)
        why = "; ".join(reasons[:3]) or "it is empty"
        raise NoImagesError(f"no usable image in {source.identity}: {why}{looked_for(source, missing)}")


def batch_of(model: Model, newcomers: Newcomers) -> pa.RecordBatch:
    """Where new images belong: a batch of `SCHEMA`."""
    found, shown = model.assign(newcomers), model.clusters.shown
    names = [shown.get(cluster) for cluster in found.cluster.tolist()]
    columns = {
        "path": [item.path for item in newcomers.items],
        **{name: getattr(found, name) for name in ("cluster", "confidence", "unknown", "unsure", "runner_up")},
        "name": [name and name.name for name in names],
        "name_strength": [name and name.strength for name in names],
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[one.name]).cast(one.type) for one in SCHEMA], schema=SCHEMA)


def cluster_called(clusters: CorrectedModel, wanted: int | str) -> int:
    """The number of the cluster that has this number or name.

    Raises:
        RequestError: there is none, or several have the name.
    """
    numbers = sorted(set(clusters.numbers.tolist()))
    shown = clusters.shown
    called = [number for number, name in clusters.names.items() if name == wanted and number in numbers]
    called = called or [number for number in numbers if number in shown and shown[number].name == wanted]
    if not called and str(wanted).isdecimal() and int(wanted) in numbers:
        called = [int(wanted)]
    if len(called) != 1:
        have = ", ".join(
            f"{number} ({shown[number].name})" if number in shown else str(number) for number in numbers[:MOST_NAMED]
        )
        more = ", …" if len(numbers) > MOST_NAMED else ""
        raise RequestError(
            f"cluster has value {str(wanted)!r}, which {'several are' if called else 'none is'} called; "
            f"expected one of {have}{more}"
        )
    return called[0]


def of_cluster(batches: Iterable[pa.RecordBatch], cluster: int) -> pa.Table:
    """Those that belong to a cluster, surest first; strangers for whom it is merely the nearest one are left out."""
    found = pa.Table.from_batches([batch.filter(_belongs(batch, cluster)) for batch in batches], SCHEMA)
    return found.take(pa.array(np.argsort(-found["confidence"].to_numpy(), kind="stable")))


def _belongs(batch: pa.RecordBatch, cluster: int) -> pa.Array:
    return pc.and_(pc.equal(batch["cluster"], cluster), pc.invert(batch["unknown"]))


def write_csv(batches: Iterable[pa.RecordBatch], stream: TextIO) -> None:
    """Write the images as CSV with the columns that `COLUMNS` names; what is not known is an empty cell.

    Texts are written as `shoal.cells` has it.
    """
    stream.write(csv_line(COLUMNS))
    for batch in batches:
        for path, cluster, confidence, unknown, unsure, runner_up, name, strength in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            doubts = (str(unknown).lower(), str(unsure).lower())
            told = (guarded(name or ""), "" if strength is None else strength)
            stream.write(csv_line([guarded(path), cluster, f"{confidence:.6f}", *doubts, runner_up, *told]))


def check_target(target: Path) -> None:
    """Raise RequestError if there is something at `target` that `write_file` has not written: before any work."""
    if os.path.lexists(target) and not _is_assignment(target):
        raise RequestError(f"--to has value {str(target)!r}, which is there already; {_CHOOSE}")


def write_file(batches: Iterable[pa.RecordBatch], target: Path) -> None:
    """Write what `write_csv` writes as a new file, which is whole when it has its name.

    Raises:
        RequestError: there is something else at `target`; it is untouched. DiskSpaceError: the disk is full.
    """
    table = io.StringIO(newline="")
    write_csv(batches, table)
    data = table.getvalue().encode()
    with writing_errors(target):
        if not os.path.lexists(target):
            write_new(target, data, rename_into_place)
        elif not target.is_file() or target.read_bytes() != data:
            raise RequestError(f"--to has value {str(target)!r}, which holds another assignment; {_CHOOSE}")


def _is_assignment(target: Path) -> bool:
    header = ",".join(COLUMNS).encode() + b"\n"
    if not target.is_file():
        return False
    with target.open("rb") as file:
        return file.read(len(header)) == header
