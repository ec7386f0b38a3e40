"""A run as the server sees it: columns as arrays, read once; edits and new clusters noticed when they come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shoal import records
from shoal.browse.images import Images
from shoal.browse.snapshot import Snapshot
from shoal.corrections.base import Base, Int32, Int64, read_base
from shoal.corrections.corrected import corrected_by
from shoal.corrections.edit import Edit
from shoal.corrections.log import read_log
from shoal.rundir import RunDir

KEPT_SNAPSHOTS = 4


@dataclass(eq=False)
class RunView:
    """Reads a run and keeps what it read until the run changes; what a snapshot shows is of one generation."""

    run_dir: RunDir
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _seen: tuple[float, ...] = ()
    _base: Base | None = None
    _images: Images | None = None
    _log: list[Edit] = field(default_factory=list)
    _log_seen: tuple[float, ...] = ()
    _snapshots: dict[int, Snapshot] = field(default_factory=dict)

    @property
    def images(self) -> Images:
        with self._lock:
            self._refresh()
            assert self._images is not None
            return self._images

    def now(self) -> tuple[RunDir, Base]:
        """The run's current generation, and its clusters without edits."""
        with self._lock:
            self._refresh()
            assert self._base is not None
            return self.run_dir, self._base

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The clusters now, or as they were after `version` lines of the log. Raises KeyError if it has no so many."""
        with self._lock:
            self._refresh()
            assert self._base is not None
            assert self._images is not None
            wanted = len(self._log) if version is None else version
            if not 0 <= wanted <= len(self._log):
                raise KeyError(wanted)
            if wanted not in self._snapshots:
                log = self._log[:wanted]
                corrected = corrected_by(self.run_dir, self._base, log)
                levels = _read_levels(corrected.source.levels, corrected.ids)
                self._snapshots[wanted] = Snapshot(
                    self.run_dir, self._images, corrected, log, levels.get("coarse"), levels.get("fine")
                )
                for old in sorted(self._snapshots)[:-KEPT_SNAPSHOTS]:
                    if old != wanted:
                        del self._snapshots[old]
            return self._snapshots[wanted]

    def _refresh(self) -> None:
        """Read again what changed on disk: another window's edits, or clusters made anew."""
        seen = stamp(self.run_dir.run_json)
        if seen != self._seen:
            now = RunDir.open(self.run_dir.root)
            self._images, self._base = Images.read(now), read_base(now)
            self.run_dir = now  # the generation seen before is let go with the last snapshot of it
            self._snapshots.clear()
            self._seen, self._log_seen = seen, ()
        log_seen = stamp(self.run_dir.edits)
        if log_seen != self._log_seen:
            log = read_log(self.run_dir)
            if [(edit.op, edit.base, edit.time) for edit in log[: len(self._log)]] != [
                (edit.op, edit.base, edit.time) for edit in self._log
            ]:
                self._snapshots.clear()  # somebody replaced the file
            self._log, self._log_seen = log, log_seen


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
    table = records.read_table(path, ["id", "coarse", "fine"]).sort_by("id")
    if not np.array_equal(table["id"].to_numpy(), ids):
        return {}
    return {name: table[name].to_numpy().astype(np.int32) for name in ("coarse", "fine")}
