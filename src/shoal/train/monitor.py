"""The k-NN curve of a pretext task, for those who have labels: watched, never learned from.

It is written to the report's folder, the only place of a run besides labels.parquet that may depend on labels.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import nn

from shoal import atomic
from shoal.embeddings import Float32, Ids
from shoal.encoder.architectures import Whitened, whitening
from shoal.evaluate.knn import knn_accuracy
from shoal.evaluate.labels import read_labels
from shoal.rundir import RunDir
from shoal.runfiles import KNN
from shoal.train.config import TrainConfig
from shoal.train.features import encode
from shoal.train.gather import rank
from shoal.train.precision import Precision
from shoal.train.training import Training

IMAGES = 12_000
QUERIES = 2_000
LOOKS = 8  # over the whole pretext task


class KnnMonitor:
    """Called by the pretext task after each epoch; every process must call it, since they share the encoding."""

    def __init__(self, run_dir: RunDir, config: TrainConfig) -> None:
        self._run_dir = run_dir
        self._epochs = config.pretext.epochs
        self.training: Training | None = None

    def __call__(self, epoch: int, encoder: nn.Module) -> dict[str, float]:
        every = max(1, self._epochs // LOOKS)
        if self.training is None or ((epoch + 1) % every and epoch + 1 != self._epochs):
            return {}
        if not self._run_dir.labels.is_file():
            return {}
        pixels = self.training.pixels
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:IMAGES]
        precision = Precision.of(self.training.device, "auto")
        features = encode(encoder, pixels, order, self.training.plain, precision)
        if isinstance(encoder, Whitened):  # as it will whiten when all is learned
            features = whitening(features)[0]
        if rank() == 0:
            self._write(epoch, features.numpy(), pixels.ids[order.numpy()])
        return {}

    def _write(self, epoch: int, features: Float32, ids: Ids) -> None:
        names = read_labels(self._run_dir, None).of(ids)
        known = names.is_valid().to_numpy(zero_copy_only=False)
        if known.sum() < 2:
            return
        labels = names.drop_null().dictionary_encode().indices.to_numpy().astype(np.int64)
        accuracy = knn_accuracy(features[known], labels, QUERIES)
        earlier = self._run_dir.unfinished(KNN)
        lines = earlier.read_text(encoding="utf-8").splitlines() if earlier.is_file() else []
        kept = [line for line in lines if json.loads(line)["epoch"] < epoch]
        kept.append(json.dumps({"epoch": epoch, "accuracy": round(accuracy, 4), "images": int(known.sum())}))
        atomic.write_bytes(self._run_dir.new(KNN), ("\n".join(kept) + "\n").encode())
