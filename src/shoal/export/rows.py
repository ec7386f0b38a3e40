"""What an export is about: every clustered image of a run, joined from images.parquet and clusters.parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet
from shoal.corrections.corrected import Corrected, corrected_columns, read_corrected
from shoal.corrections.shown import ShownName, read_shown
from shoal.embeddings import Ids
from shoal.errors import RunError
from shoal.export.names import cluster_name, cluster_width, told_apart
from shoal.rundir import RunDir

NUMBERED: Final = re.compile(r"(?P<stem>.+)(?P<extension>\.[A-Za-z0-9]{1,5})(?P<number>#\d+)")
BLOCK: Final = 8192  # rows that are Python objects at a time


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

    @property
    def file_name(self) -> str:
        """The last part of the path; of `a.jpg#2`, an image of a path seen before, `a#2.jpg`."""
        name = self.path.rpartition("/")[2]
        numbered = NUMBERED.fullmatch(name)
        return f"{numbered['stem']}{numbered['number']}{numbered['extension']}" if numbered else name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.file_name).stem


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Row]):
    """The clustered images by rising id: columns, from which a `Row` is made when it is asked for.

    Attributes:
        table: the fields of `Row`.
        shown: what clusters are called.
    """

    table: pa.Table
    shown: Mapping[int, ShownName]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, number: int) -> Row: ...
    @overload
    def __getitem__(self, number: slice) -> Rows: ...
    def __getitem__(self, number: int | slice) -> Row | Rows:
        if isinstance(number, slice):
            return self.some(np.arange(len(self))[number])
        return Row(*(column[number].as_py() for column in self.table.columns))

    def __iter__(self) -> Iterator[Row]:
        for batch in self.table.to_batches(BLOCK):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Row(*values)

    def some(self, places: Ids) -> Rows:
        """The rows at these places, in that order."""
        return replace(self, table=parquet.take_rows(self.table, pa.array(places, pa.int64())))

    @property
    def clusters(self) -> list[int]:
        """Clusters that have an image, rising."""
        return [int(number) for number in np.unique(self.table["cluster"].to_numpy())]

    def without_names(self) -> Rows:
        """The rows, for clusters that are to be called by their numbers alone."""
        return replace(self, shown={})

    def names_of_clusters(self) -> dict[int, str]:
        """What every cluster that has an image is called, in the clusters' order.

        A person's name; or a guess after the padded number, `07 monarch butterfly`; or, beside guesses, `08 unnamed`,
        so that both sort by their numbers, and else `cluster_008`. No two are the same, see `told_apart`.
        """
        numbers = self.clusters
        width = cluster_width(numbers[-1]) if numbers else 0
        called = {number: self.shown[number] for number in numbers if number in self.shown}
        has_guesses = any(shown.is_guess for shown in called.values())
        names, tags = {}, {}
        for number in numbers:
            shown, padded = called.get(number), cluster_name(number, width)
            if has_guesses and (shown is None or shown.is_guess):
                names[number] = f"{number:0{max(2, len(str(numbers[-1])))}d} {shown.name if shown else 'unnamed'}"
            elif shown is None:
                names[number] = padded
            else:
                names[number], tags[number] = shown.name, padded
        return told_apart(names, tags)


@dataclass(frozen=True, slots=True, eq=False)
class ClusteredRun:
    """Every ok image and duplicate of a finished run after its edits, of which some can be read at a time."""

    run_dir: RunDir
    corrected: Corrected
    shown: Mapping[int, ShownName]

    @classmethod
    def open(cls, run_dir: RunDir) -> ClusteredRun:
        """Raises RunError: the run has no clusters yet, or they are not readable."""
        corrected = read_corrected(run_dir)
        return cls(run_dir, corrected, read_shown(run_dir, corrected))

    def __len__(self) -> int:
        return len(self.corrected.ids)

    def rows(self, part: range | None = None) -> Rows:
        """Those at some places in the order of ids, or all.

        Raises:
            RunError: the run's two tables are not of one run.
        """
        part = range(len(self)) if part is None else part
        here = slice(part.start, part.stop)
        own = self.corrected.ids[here]
        among = range(int(own[0]), int(own[-1]) + 1) if len(own) else range(0)
        images = self.run_dir.read_images(["id", "path", "uri", "size_bytes", "mtime", "sha256", "duplicate_of"], among)
        if images.num_rows < len(among):
            raise RunError(
                f"{self.run_dir.root}: clusters.parquet has ids that images.parquet lacks; run the same shoal cluster "
                "again"
            )
        places = pa.array(own - among.start)
        images = parquet.take_rows(images, places)
        lasting = parquet.take(self.run_dir.read_images(["uri"], among, lasting=True)["uri"], places)
        clusters = corrected_columns(self.corrected, here)
        columns = {
            "id": images["id"],
            "path": images["path"],
            "uri": lasting,
            "read_from": images["uri"],
            "size_bytes": pc.fill_null(images["size_bytes"], 0),
            **{name: images[name] for name in ("mtime", "sha256")},
            **{name: clusters[name] for name in ("cluster", "confidence", "unsure", "runner_up", "silhouette")},
            "duplicate_of": self._paths_of(images["duplicate_of"]),
        }
        return Rows(pa.table(columns), self.shown)

    def _paths_of(self, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """The paths of images, null for null; only those near them are read."""
        ends = pc.min_max(ids)
        if ends["min"].as_py() is None:
            return pa.chunked_array([pa.nulls(len(ids), pa.string())])
        among = range(ends["min"].as_py(), ends["max"].as_py() + 1)
        places = pc.subtract(ids, among.start).combine_chunks()
        return parquet.take(self.run_dir.read_images(["path"], among)["path"], places)


def read_rows(run_dir: RunDir, by_number: bool = False) -> Rows:
    """All of a `ClusteredRun`; `by_number`: without names of clusters. Raises RunError as it does."""
    rows = ClusteredRun.open(run_dir).rows()
    return rows.without_names() if by_number else rows


def positions_by_cluster(rows: Rows) -> dict[int, npt.NDArray[np.intp]]:
    """The places of each cluster's rows, rising."""
    clusters = rows.table["cluster"].to_numpy()
    order = np.argsort(clusters, kind="stable")
    numbers, starts = np.unique(clusters[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
