"""Which image goes where: the plan of an export of files, and what of it is done already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal.embeddings import Ids
from shoal.errors import RequestError
from shoal.export.names import unique_names
from shoal.export.rows import BLOCK, Row, Rows, positions_by_cluster
from shoal.export.transfer import same_bytes, same_entry
from shoal.images.location import local_path, split_fragment
from shoal.images.storage import is_local
from shoal.rundir import digest_file

FIFTYONE_DATA: Final = "data"


@dataclass(frozen=True, slots=True)
class Placement:
    """One image and the file it becomes; `source` is None for bytes in a table or tar and for remote images."""

    row: Row
    source: Path | None
    target: Path


class State(Enum):
    """How far a placement is."""

    PENDING = "pending"
    FINISHING = "finishing"  # a move whose target is whole, but whose source is still there
    DONE = "done"
    MISSING = "missing"  # nothing to take, and nothing there


def own_file(uri: str) -> Path | None:
    """The file that an image is, by its URI; None for bytes in a table or tar and for remote images."""
    _, place = split_fragment(uri)
    return Path(local_path(uri)) if is_local(uri) and not place else None


@dataclass(frozen=True, slots=True, eq=False)
class Plan(Sequence[Placement]):
    """Which image goes where, in the rows' order: columns, from which a `Placement` is made when it is asked for.

    Attributes:
        targets: names below `dest`, with slashes; text [n].
    """

    rows: Rows
    dest: Path
    targets: pa.StringArray

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> Placement: ...
    @overload
    def __getitem__(self, number: slice) -> Plan: ...
    def __getitem__(self, number: int | slice) -> Placement | Plan:
        if isinstance(number, slice):
            return self.some(np.arange(len(self))[number])
        return self._placed(self.rows[number], self.targets[number].as_py())

    def __iter__(self) -> Iterator[Placement]:
        names = (
            name for start in range(0, len(self), BLOCK) for name in self.targets[start : start + BLOCK].to_pylist()
        )
        return map(self._placed, self.rows, names)

    def some(self, places: Ids) -> Plan:
        """The placements at these places, in that order."""
        return Plan(self.rows.some(places), self.dest, self.targets.take(pa.array(places, pa.int64())))

    @property
    def folders(self) -> frozenset[Path]:
        """The folders that files come to lie in."""
        parents = pc.replace_substring_regex(self.targets, r"/[^/]*\z", "")
        return frozenset(self.dest / parent for parent in pc.unique(parents).to_pylist())

    def _placed(self, row: Row, name: str) -> Placement:
        return Placement(row, own_file(row.uri), self.dest / name)


def plan_folders(rows: Rows, dest: Path) -> Plan:
    """DEST/<cluster>/<file name>: one folder a cluster. In the rows' order, in which tables and tars read fastest."""
    labels = rows.names_of_clusters()
    folders = dict(zip(labels, unique_names(list(labels.values())), strict=True))
    own = [row.file_name for row in rows]
    names = [""] * len(rows)
    for cluster, places in positions_by_cluster(rows).items():
        for place, name in zip(places.tolist(), unique_names([own[place] for place in places]), strict=True):
            names[place] = f"{folders[cluster]}/{name}"
    return Plan(rows, dest, pa.array(names, pa.string()))


def plan_fiftyone(rows: Rows, dest: Path) -> Plan:
    """DEST/data/<id>-<file name>: one folder; ids in front, as FiftyOne tells files apart without extension."""
    width = len(str(rows[-1].id)) if rows else 0
    names = unique_names([f"{row.id:0{width}d}-{row.file_name}" for row in rows])
    return Plan(rows, dest, pa.array((f"{FIFTYONE_DATA}/{name}" for name in names), pa.string()))


def state_of(placement: Placement, mode: str, moved: frozenset[str]) -> State:
    """How far a placement is.

    Args:
        mode: copy, link or move.
        moved: sources, as placements have them, that the journal says were to be moved to their targets.

    Raises:
        RequestError: the target is there and is another file; it would have to be overwritten.
    """
    target = placement.target
    source = placement.source if placement.source is not None and placement.source.exists() else None
    if not os.path.lexists(target):
        return State.PENDING if source is not None or placement.source is None else State.MISSING
    if source is not None and same_entry(source, target):
        return State.DONE
    if mode == "move":
        if source is not None and not target.is_symlink() and same_bytes(source, target):
            return State.FINISHING
        if source is None and (str(placement.source) in moved or _is_recorded(placement)):
            return State.DONE
    elif _is_recorded(placement) or (source is not None and same_bytes(source, target)):
        return State.DONE
    raise RequestError(
        f"{target} is there already and is another file; nothing was written: choose another DEST or move it away"
    )


def _is_recorded(placement: Placement) -> bool:
    """True if the target holds the bytes that were clustered."""
    return placement.target.is_file() and digest_file(placement.target) == placement.row.sha256
