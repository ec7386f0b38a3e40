"""The encoder that looks at uploaded images."""

from __future__ import annotations

import threading
from pathlib import Path

from shoal.corrections.model import CorrectedModel
from shoal.embeddings import Float32
from shoal.model import Model
from shoal.rundir import RunDir


class Searcher:
    """The encoder, started on the first search: it takes a second and some memory that looking does not need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._model: Model | None = None
        self._made_for: object = None

    def embed(self, data: bytes, run_dir: RunDir | None = None) -> tuple[Float32, CorrectedModel]:
        """Features [1, dim], and the clusters as they were when the encoder was started. Raises DecodeError.

        `run_dir`: the run as it is seen now, whose encoder may be another than it was.
        """
        encoder = None if run_dir is None else (run_dir.stage("embed") or {}).get("key")
        with self._lock:
            if self._model is None or encoder != self._made_for:
                self._model = Model.open(self._folder if run_dir is None else run_dir)
                self._made_for = encoder
            model = self._model
        return model.embed_picture(data), model.clusters
