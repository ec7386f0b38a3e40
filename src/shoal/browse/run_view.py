"""A run as the server sees it: columns as arrays, read once; edits and new clusters noticed when they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shoal import records
from shoal.browse.images import Images
from shoal.browse.snapshot import Level, Snapshot
from shoal.corrections.base import Base, Int32, Int64, read_base, read_kept
from shoal.corrections.corrected import Corrected, corrected_as
from shoal.corrections.edit import Edit
from shoal.corrections.log import Log, append, belonging
from shoal.corrections.replay import Replayer
from shoal.rundir import RunDir

KEPT_SNAPSHOTS = 2  # of a million images 35 MB each; others are replayed from a state nearby


class RunView:
    """Reads a run and keeps what it read until the run changes; what a snapshot shows is of one generation.

    May be used from several threads.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self._lock = threading.RLock()
        self._seen: tuple[float, ...] = ()
        self._base: Base | None = None
        self._images: Images | None = None
        self._log = Log(run_dir.edits)
        self._edits: list[Edit] = []
        self._replayer = Replayer(lambda digest: read_kept(self.run_dir, digest))
        self._levels: tuple[Path, dict[str, Int32]] | None = None  # of the clustering last looked at, and where it is
        self._snapshots: dict[int, Snapshot] = {}

    @property
    def images(self) -> Images:
        with self._lock:
            self._refresh()
            assert self._images is not None
            return self._images

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The clusters now, or as they were after `version` lines of the log. Raises KeyError if it has no so many."""
        with self._lock:
            self._refresh()
            assert self._images is not None
            wanted = len(self._edits) if version is None else version
            if not 0 <= wanted <= len(self._edits):
                raise KeyError(wanted)
            if wanted not in self._snapshots:
                log = self._edits[:wanted]
                corrected = self.corrected(log)
                levels = self._read_levels(corrected)
                near = self._near(corrected, wanted)
                self._snapshots[wanted] = Snapshot(
                    self.run_dir, self._images, corrected, log, levels.get("coarse"), levels.get("fine"), near
                )
                for old in sorted(self._snapshots)[:-KEPT_SNAPSHOTS]:
                    if old != wanted:
                        del self._snapshots[old]
            return self._snapshots[wanted]

    def corrected(self, log: Sequence[Edit]) -> Corrected:
        """The clusters after a log of edits: the run's own as `append` gives it, or the beginning of it."""
        with self._lock:
            self._refresh()
            assert self._base is not None
            shown = self._snapshots.get(len(log))
            if shown is not None and shown.log == log:
                return shown.corrected
            return corrected_as(self._replayer.after(self._base, log), len(log))

    def append(self, make: Callable[[Sequence[Edit]], Edit]) -> None:
        """Append an edit to the run's log, as `shoal.corrections.log.append` does."""
        append(self.run_dir, make, self._log)

    def _refresh(self) -> None:
        """Read again what changed on disk: another window's edits, or clusters made anew."""
        seen = stamp(self.run_dir.run_json)
        if seen != self._seen:
            now = RunDir.open(self.run_dir.root)
            with ThreadPoolExecutor(1) as other:
                images = other.submit(Images.read, now)
                self._base = read_base(now)
                self._images = images.result()
            self.run_dir = now  # the generation seen before is let go with the last snapshot of it
            self._levels = None
            self._snapshots.clear()
            self._seen = seen
        edits = belonging(self._log.read(), self.run_dir)
        if edits[: len(self._edits)] != self._edits:
            self._snapshots.clear()  # somebody replaced the file
        self._edits = edits

    def _near(self, corrected: Corrected, version: int) -> Level | None:
        """The clusters of the same images at a moment near `version`, if they are known."""
        kept = sorted(self._snapshots, key=lambda other: abs(other - version))
        same = (self._snapshots[other] for other in kept if self._snapshots[other].corrected.source is corrected.source)
        return next((one.chosen for one in same if one.is_ordered), None)

    def _read_levels(self, corrected: Corrected) -> dict[str, Int32]:
        path = corrected.source.levels
        if self._levels is None or self._levels[0] != path:
            self._levels = path, _read_levels(path, corrected.ids)
        return self._levels[1]


def stamp(path: Path) -> tuple[float, ...]:
    """What changes when a file is replaced or written to; () if it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read_levels(path: Path, ids: Int64) -> dict[str, Int32]:
    if not path.is_file():
        return {}
    table = records.by_id(records.read_table(path, ["id", "coarse", "fine"]))
    if not np.array_equal(table["id"].to_numpy(), ids):
        return {}
    return {name: table[name].to_numpy().astype(np.int32) for name in ("coarse", "fine")}
