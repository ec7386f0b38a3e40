"""What an export is about: every clustered image of a run, joined from images.parquet and clusters.parquet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc

from shoal.corrections.corrected import corrected_table, read_corrected
from shoal.corrections.shown import ShownName, read_shown
from shoal.errors import RunError
from shoal.export.names import cluster_name, cluster_width
from shoal.rundir import RunDir

NUMBERED = re.compile(r"(?P<stem>.+)(?P<extension>\.[A-Za-z0-9]{1,5})(?P<number>#\d+)")


@dataclass(frozen=True, slots=True)
class Row:
    """One clustered image.

    `uri` is where others find it, `read_from` where this run has it while it is open. `duplicate_of` is the path of its
    original, or None; `mtime` is in seconds, or None.
    """

    id: int
    path: str
    uri: str
    read_from: str
    size_bytes: int
    mtime: float | None
    sha256: str
    cluster: int
    confidence: float | None
    unsure: bool
    runner_up: int | None
    silhouette: float | None
    duplicate_of: str | None
    name: str | None = None  # of the cluster
    name_strength: float | None = None  # of a name that is a guess, in nats; None of one that a person gave

    @property
    def file_name(self) -> str:
        """The last part of the path; of `a.jpg#2`, an image of a path seen before, `a#2.jpg`."""
        name = self.path.rpartition("/")[2]
        numbered = NUMBERED.fullmatch(name)
        return f"{numbered['stem']}{numbered['number']}{numbered['extension']}" if numbered else name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.file_name).stem


def read_rows(run_dir: RunDir) -> list[Row]:
    """Every ok image and duplicate of a finished run after its edits, in id order.

    Raises:
        RunError: the run has no clusters yet, or its two tables are not of one run.
    """
    corrected = read_corrected(run_dir)
    shown = read_shown(run_dir, corrected)
    clusters = corrected_table(run_dir, corrected)
    images = run_dir.read_images()
    images = images.rename_columns({"uri": "read_from"}).append_column(
        "uri", run_dir.read_images(["uri"], lasting=True)["uri"]
    )
    positions = pc.index_in(clusters["id"], value_set=images["id"])
    if positions.null_count:
        raise RunError(
            f"{run_dir.root}: clusters.parquet has ids that images.parquet lacks; run the same shoal cluster again"
        )
    paths = dict(zip(images["id"].to_pylist(), images["path"].to_pylist(), strict=True))
    joined = images.select(["uri", "read_from", "size_bytes", "mtime", "sha256", "duplicate_of"]).take(positions)
    for name in ("id", "path", "cluster", "confidence", "unsure", "runner_up", "silhouette"):
        joined = joined.append_column(name, clusters[name])
    rows = [
        Row(
            **{**values, "size_bytes": values["size_bytes"] or 0, "duplicate_of": paths.get(values["duplicate_of"])},
            **_called(shown.get(values["cluster"])),
        )
        for values in joined.to_pylist()
    ]
    return sorted(rows, key=lambda row: row.id)


def without_names(rows: Sequence[Row]) -> list[Row]:
    """The rows, for clusters that are to be called by their numbers alone."""
    return [replace(row, name=None, name_strength=None) for row in rows]


def names_of_clusters(rows: Sequence[Row]) -> dict[int, str]:
    """What every cluster that has an image is called, in the clusters' order.

    A person's name; or a guess after the padded number, `07 monarch butterfly`; or, beside guesses, `08 unnamed`, so
    that both sort by their numbers, and else `cluster_008`. Names that a person gave to several clusters are told apart
    by their numbers.
    """
    given = {row.cluster: row for row in rows}
    numbers = sorted(given)
    width = cluster_width(numbers[-1]) if numbers else 0
    uses = Counter(row.name for row in given.values() if row.name_strength is None)
    has_guesses = any(row.name_strength is not None for row in given.values())
    names = {}
    for number in numbers:
        name, padded = given[number].name, cluster_name(number, width)
        if has_guesses and (name is None or given[number].name_strength is not None):
            names[number] = f"{number:0{max(2, len(str(numbers[-1])))}d} {name or 'unnamed'}"
        elif name is None:
            names[number] = padded
        else:
            names[number] = name if uses[name] == 1 else f"{name} ({padded})"
    return names


def _called(shown: ShownName | None) -> dict[str, Any]:
    return {} if shown is None else {"name": shown.name, "name_strength": shown.strength}
