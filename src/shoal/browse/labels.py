"""Labels that came with the source, shown beside the clusters; nothing is made of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from shoal.browse import answers
from shoal.browse.run_view import stamp
from shoal.browse.snapshot import Rows, Snapshot
from shoal.corrections.base import Int32, Int64
from shoal.errors import RequestError
from shoal.evaluate.labels import read_labels
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
        try:
            by_id = read_labels(run_dir, None).by_id
        except RequestError:  # labels of other images only
            return Labels([], np.empty(0, np.int32))
        names = sorted(set(by_id.values()))
        place = {name: number for number, name in enumerate(names)}
        numbers = np.fromiter((place.get(by_id.get(image, ""), -1) for image in ids.tolist()), np.int32, len(ids))
        return Labels(names, numbers)
