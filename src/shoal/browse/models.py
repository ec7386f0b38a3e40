"""The clusters' model after edits, and what a search by words needs: kept while they stay."""

from __future__ import annotations

import threading

from shoal.browse.snapshot import Snapshot
from shoal.corrections.model import CorrectedModel, corrected_clusters
from shoal.find import Finder, opened_finder
from shoal.rundir import RunDir


class ModelReader:
    """Reads the model when it is first needed; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Snapshot | None = None
        self._model: CorrectedModel | None = None

    def of(self, snapshot: Snapshot) -> CorrectedModel:
        """Raises RunError if the run has no readable model."""
        with self._lock:
            if self._model is None or snapshot is not self._seen:
                self._model, self._seen = corrected_clusters(snapshot.run_dir, snapshot.corrected), snapshot
            return self._model


class FinderReader:
    """Reads what a search by words needs when it is first asked for; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: RunDir | None = None
        self._finder: Finder | None = None

    def of(self, snapshot: Snapshot) -> Finder:
        """Raises RunError if the run cannot be searched by words."""
        with self._lock:
            if self._finder is None or snapshot.run_dir is not self._seen:
                self._finder, self._seen = opened_finder(snapshot.run_dir), snapshot.run_dir
            return self._finder
