"""Labels that came with the source, shown beside the clusters; nothing is made of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.browse import answers
from shoal.browse.run_view import stamp
from shoal.browse.snapshot import Rows, Snapshot
from shoal.corrections.base import Int32, Int64
from shoal.rundir import RunDir


@dataclass(frozen=True, eq=False)
class Labels:
    """The label of every clustered row as a number within `names`, -1 for none."""

    names: list[str]
    number: Int32

    def majority(self, rows: Rows) -> answers.Majority | None:
        """The label that most of the labelled rows have, and their share of them."""
        if not self.names:
            return None
        known = self.number[rows]
        counts = np.bincount(known[known >= 0], minlength=len(self.names))
        if not counts.sum():
            return None
        best = int(counts.argmax())
        return answers.Majority(label=self.names[best], share=round(float(counts[best] / counts.sum()), 4))

    def of(self, row: int) -> str | None:
        return self.names[self.number[row]] if self.names and self.number[row] >= 0 else None


class LabelReader:
    """Reads a run's labels when they are first asked for; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: object = None
        self._labels = Labels([], np.empty(0, np.int32))

    def read(self, snapshot: Snapshot) -> Labels:
        """Labels of the rows of a snapshot."""
        ids = snapshot.corrected.ids
        seen = (stamp(snapshot.run_dir.labels), len(ids), int(ids[-1]) if len(ids) else -1)
        with self._lock:
            if seen != self._seen:
                self._labels, self._seen = self._read(snapshot.run_dir, ids), seen
            return self._labels

    def _read(self, run_dir: RunDir, ids: Int64) -> Labels:
        if not run_dir.labels.is_file():
            return Labels([], np.empty(0, np.int32))
        table = records.by_id(records.read_table(run_dir.labels, ["id", "label"]))
        labels = table["label"].combine_chunks()
        place = pc.index_in(pa.array(ids), value_set=table["id"].combine_chunks())  # of each image's label
        found = labels.take(place)
        found = pc.if_else(pc.equal(found, ""), None, found)
        names = sorted(found.unique().drop_null().to_pylist())
        numbers = pc.fill_null(pc.index_in(found, value_set=pa.array(names, pa.string()), skip_nulls=True), -1)
        return Labels(names, numbers.to_numpy(zero_copy_only=False).astype(np.int32))
