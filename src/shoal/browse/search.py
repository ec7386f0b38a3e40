"""The encoder that looks at uploaded images."""

from __future__ import annotations

import threading
from pathlib import Path

from shoal.corrections.model import CorrectedModel
from shoal.embeddings import Float32
from shoal.model import Model


class Searcher:
    """The encoder, started on the first search: it takes a second and some memory that looking does not need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._model: Model | None = None

    def embed(self, data: bytes) -> tuple[Float32, CorrectedModel]:
        """Features [1, dim], and the clusters as they were when the encoder was started. Raises DecodeError."""
        with self._lock:
            if self._model is None:
                self._model = Model.open(self._folder)
        return self._model.embed_picture(data), self._model.clusters
