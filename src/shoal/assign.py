"""`shoal assign`: new images into the clusters of a finished run."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

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

COLUMNS = ("path", "cluster", "confidence", "unknown", "unsure", "runner_up", "name", "name_strength")
_CHOOSE = "delete it or choose another name"
MOST_NAMED = 30  # clusters listed in an error


@dataclass(frozen=True, slots=True)
class AssignedImage:
    """One new image: its nearest cluster, how sure that is (0 to 1), and whether it looks like none of them."""

    path: str
    cluster: int
    confidence: float
    unknown: bool
    unsure: bool
    runner_up: int  # -1 where there is no other cluster
    name: str | None = None  # of the cluster
    name_strength: float | None = None  # of a name that is a guess, in nats; None of one that a person gave


@dataclass(slots=True)
class AssignSummary:
    """Counts of an assignment, and the images that could not be read or have no embedding, with reasons."""

    assigned: int = 0
    unknown: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


def assign(
    model: Model, source: Source, summary: AssignSummary, progress: Progress, given: Given | None = None
) -> Iterator[AssignedImage]:
    """Assign the images of `source`, in its order, filling `summary` on the way.

    Args:
        given: their embeddings, in place of the model's encoder.

    Raises:
        RunError: the model has no encoder, and no embeddings are given.
        EmbeddingsError: they do not fit the model or the source.
        NoImagesError: not one image could be read (after the last item).
    """
    items = list(source.items())
    embedded = model.embed(items, source.spool) if given is None else model.take(given, items, source.spool)
    return _assigned(model, source, embedded, len(items), summary, progress)


def _assigned(
    model: Model, source: Source, embedded: Iterator[Newcomers], count: int, summary: AssignSummary, progress: Progress
) -> Iterator[AssignedImage]:
    names = model.clusters.shown
    with progress.task("Assigning", count) as task:
        for newcomers in embedded:
            found = model.assign(newcomers)
            for row, item in enumerate(newcomers.items):
                name = names.get(int(found.cluster[row]))
                summary.assigned += 1
                summary.unknown += bool(found.unknown[row])
                yield AssignedImage(
                    path=item.path,
                    cluster=int(found.cluster[row]),
                    confidence=float(found.confidence[row]),
                    unknown=bool(found.unknown[row]),
                    unsure=bool(found.unsure[row]),
                    runner_up=int(found.runner_up[row]),
                    name=None if name is None else name.name,
                    name_strength=None if name is None else name.strength,
                )
            summary.skipped += [(item.path, reason) for item, reason in newcomers.skipped]
            task.advance(len(newcomers.items) + len(newcomers.skipped))
    if summary.assigned == 0:
        reasons = sorted({reason for _, reason in summary.skipped})
        missing = next((path for path, reason in summary.skipped if reason.startswith((MISSING, GONE))), None)
        why = "; ".join(reasons[:3]) or "it is empty"
        raise NoImagesError(f"no usable image in {source.identity}: {why}{looked_for(source, missing)}")


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


def of_cluster(images: Iterable[AssignedImage], cluster: int) -> list[AssignedImage]:
    """Those that belong to a cluster, surest first; strangers for whom it is merely the nearest one are left out."""
    found = [image for image in images if image.cluster == cluster and not image.unknown]
    return sorted(found, key=lambda image: -image.confidence)


def write_csv(images: Iterable[AssignedImage], stream: TextIO) -> None:
    """Write the images as CSV with the columns that `COLUMNS` names; what is not known is an empty cell.

    Texts are written as `shoal.cells` has it.
    """
    stream.write(csv_line(COLUMNS))
    for image in images:
        cells = [
            guarded(image.path),
            image.cluster,
            f"{image.confidence:.6f}",
            str(image.unknown).lower(),
            str(image.unsure).lower(),
            image.runner_up,
            guarded(image.name or ""),
            "" if image.name_strength is None else image.name_strength,
        ]
        stream.write(csv_line(cells))


def check_target(target: Path) -> None:
    """Raise RequestError if there is something at `target` that `write_file` has not written: before any work."""
    if os.path.lexists(target) and not _is_assignment(target):
        raise RequestError(f"--to has value {str(target)!r}, which is there already; {_CHOOSE}")


def write_file(images: Iterable[AssignedImage], target: Path) -> None:
    """Write what `write_csv` writes as a new file, which is whole when it has its name.

    Raises:
        RequestError: there is something else at `target`; it is untouched. DiskSpaceError: the disk is full.
    """
    table = io.StringIO(newline="")
    write_csv(images, table)
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
