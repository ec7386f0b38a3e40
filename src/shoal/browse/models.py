"""The clusters' model after edits, kept while they stay."""

from __future__ import annotations

import threading

from shoal.browse.snapshot import Snapshot
from shoal.corrections.model import CorrectedModel, corrected_model


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
                self._model, self._seen = corrected_model(snapshot.run_dir, snapshot.corrected), snapshot
            return self._model
