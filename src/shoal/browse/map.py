"""The map: places of images, in an order of which any beginning shows the whole, and what a window asks of it.

A window takes the first places of the order that lie in it, up to a bound. The order begins with one image of every
cell of a grid, so that no part of the map is missing; the others follow as drawn by lot, so that places are as dense as
all are. A window inside another one has all of the places that the larger one has there, and more: coming nearer only
adds.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from shoal import records
from shoal.browse.errors import MissingError
from shoal.browse.run_view import stamp
from shoal.browse.snapshot import Snapshot
from shoal.corrections.base import Bools, Float32, Int32, Int64
from shoal.rundir import digest_file
from shoal.wording import command

MOST: Final = 50_000  # places in an answer
CELLS: Final = 128  # of the grid, a side
SEED: Final = 0

Corners = npt.NDArray[np.float64]


class Box(NamedTuple):
    """A window of the map, in its own units; what lies on its edge is in it."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True, eq=False)
class Places:
    """Where the clustered images lie, in the order that they are shown in.

    Attributes:
        rows: [n] int32 of the images among all that are clustered; x, y: [n] float32.
        around: the smallest window with all of them.
    """

    rows: Int32
    x: Float32
    y: Float32
    around: Box

    @classmethod
    def of(cls, rows: Int32, x: Float32, y: Float32) -> Places:
        """In order, of places in the order of their images."""
        if not len(rows):
            return cls(rows, x, y, Box(0, 0, 0, 0))
        around = Box(*(float(edge) for edge in (x.min(), y.min(), x.max(), y.max())))
        drawn = np.random.default_rng(SEED).permutation(len(rows))
        cells = _cells(x[drawn], around.west, around.east) + CELLS * _cells(y[drawn], around.south, around.north)
        is_first = np.zeros(len(rows), bool)
        is_first[np.unique(cells, return_index=True)[1]] = True
        order = np.r_[drawn[is_first], drawn[~is_first]]
        return cls(rows[order], x[order], y[order], around)

    def within(self, box: Box, most: int, shown: Bools | None = None) -> tuple[Int64, int]:
        """The first places in a window, up to `most`, and how many there are in it.

        `shown`: [n], which places there are at all; None: each.
        """
        inside = (self.x >= box.west) & (self.x <= box.east) & (self.y >= box.south) & (self.y <= box.north)
        found = np.flatnonzero(inside if shown is None else inside & shown)
        return found[:most], len(found)

    def inside(self, corners: Corners) -> Bools:
        """Which places lie inside a polygon [corners, 2], by the even-odd rule, [n].

        Each edge turns those of its height that lie to its left: as often as edges cross a height, not for each edge.
        """
        if not len(self.rows):
            return np.zeros(0, bool)
        order = np.argsort(self.y, kind="stable")
        x, y = self.x[order].astype(np.float64), self.y[order].astype(np.float64)
        turned = np.zeros(len(order), bool)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            first, last = np.searchsorted(y, [min(ay, by), max(ay, by)])
            if first < last:
                turned[first:last] ^= x[first:last] < ax + (bx - ax) * (y[first:last] - ay) / (by - ay)
        found = np.empty_like(turned)
        found[order] = turned
        return found


def _cells(values: Float32, low: float, high: float) -> Int64:
    """The column, or row, of the grid that each place is in."""
    scale = CELLS / max(high - low, 1e-12)
    return np.minimum((values.astype(np.float64) - low) * scale, CELLS - 1).astype(np.int64)


class MapReader:
    """Reads a run's map when it is first asked for, and keeps it; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] = ()
        self._places: Places | None = None
        self._named: tuple[object, str] | None = None  # the file that was last looked at, and its digest

    def of(self, snapshot: Snapshot) -> Places:
        """Raises MissingError if the run has no map, RunError if it is not readable."""
        if not snapshot.run_dir.map.is_file():
            raise MissingError(
                "this run has no map of its images as they are now; make one with: "
                f"{command('shoal', 'report', snapshot.run_dir.root)}"
            )
        with self._lock:
            seen = (snapshot.run_dir, snapshot.corrected.source)
            if self._places is None or any(one is not other for one, other in zip(seen, self._seen, strict=True)):
                self._places, self._seen = _read(snapshot), seen
            return self._places

    def digest(self, snapshot: Snapshot) -> str | None:
        """Stands for the places of the run's map; None if it has none."""
        path = snapshot.run_dir.map
        if not path.is_file():
            return None
        with self._lock:
            seen = path, stamp(path)
            if self._named is None or self._named[0] != seen:
                self._named = seen, digest_file(path)
            return self._named[1]


def _read(snapshot: Snapshot) -> Places:
    table = records.by_id(records.read_table(snapshot.run_dir.map, ["id", "x", "y"]))
    ids, x, y = (table[name].to_numpy() for name in ("id", "x", "y"))
    known = snapshot.corrected.ids
    rows = np.searchsorted(known, ids).clip(max=max(len(known) - 1, 0))
    here = np.isfinite(x) & np.isfinite(y) & (known[rows] == ids if len(known) else np.zeros(len(ids), bool))
    return Places.of(rows[here].astype(np.int32), x[here].astype(np.float32), y[here].astype(np.float32))


def map_bytes(snapshot: Snapshot, places: Places, box: Box, cluster: int | None) -> bytes:
    """What of a map is in a window, little-endian: uint32 n, how many are there, and the version; float32 west, south,
    east, north of all places; int32 ids[n], float32 x[n], float32 y[n], int32 cluster[n].

    `cluster`: only that one's images; None: all.
    """
    corrected = snapshot.corrected
    shown = None if cluster is None else corrected.cluster[places.rows] == cluster
    found, total = places.within(box, MOST, shown)
    rows = places.rows[found]
    columns = (
        np.array([len(found), total, corrected.version], "<u4"),
        np.array(places.around, "<f4"),
        corrected.ids[rows].astype("<i4"),
        places.x[found].astype("<f4"),
        places.y[found].astype("<f4"),
        corrected.cluster[rows].astype("<i4"),
    )
    return b"".join(column.tobytes() for column in columns)


def inside_bytes(snapshot: Snapshot, places: Places, corners: Corners | None, cluster: int | None) -> bytes:
    """Images on the map inside a polygon (None: anywhere) and of a cluster (None: of any): uint32 n, int32 ids[n]."""
    shown = np.ones(len(places.rows), bool) if corners is None else places.inside(corners)
    if cluster is not None:
        shown &= snapshot.corrected.cluster[places.rows] == cluster
    ids = np.sort(snapshot.corrected.ids[places.rows[shown]])
    return np.array([len(ids)], "<u4").tobytes() + ids.astype("<i4").tobytes()
