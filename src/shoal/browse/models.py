"""The clusters' model after edits, kept while they stay."""

from __future__ import annotations

import threading

from shoal.browse.run_view import stamp
from shoal.corrections.corrected import Corrected
from shoal.corrections.model import CorrectedModel, corrected_model
from shoal.rundir import RunDir


class ModelReader:
    """Reads the model when it is first needed; may be used from several threads."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._seen: object = None
        self._model: CorrectedModel | None = None

    def of(self, corrected: Corrected) -> CorrectedModel:
        """Raises RunError if the run has no readable model."""
        seen = (stamp(self._run_dir.model / "clusters.json"), corrected.digest)
        with self._lock:
            if self._model is None or seen != self._seen:
                self._model, self._seen = corrected_model(self._run_dir, corrected), seen
            return self._model
