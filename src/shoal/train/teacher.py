"""The run's clusters as the ordinary stages made them, to teach an encoder by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoal.embeddings import Ids
from shoal.rundir import RunDir


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """What is known of some images before they are learned from.

    Attributes:
        positions: of those images among all that there are pixels of, rising, int64 [n].
        labels, confidence: of their clusters, int64 and float32 [n].
        clusters: how many there are, and `why`.
        digest: of them.
    """

    positions: Tensor
    labels: Tensor
    confidence: Tensor
    clusters: int
    why: str
    digest: str

    @classmethod
    def of(cls, run_dir: RunDir, ids: Ids) -> Teacher:
        """Of the images `ids` [N], rising, those that have a cluster."""
        rows = run_dir.read_clusters(["id", "cluster", "confidence"])
        clustered = rows["id"].to_numpy()
        _, positions, places = np.intersect1d(ids, clustered, assume_unique=True, return_indices=True)
        record = run_dir.stage("cluster")
        assert record is not None
        return cls(
            torch.from_numpy(positions.astype(np.int64)),
            torch.from_numpy(rows["cluster"].to_numpy()[places].astype(np.int64)),
            torch.from_numpy(rows["confidence"].to_numpy()[places].astype(np.float32)),
            int(record["facts"]["k"]),
            str(record["facts"]["sentence"]),
            str(record["digest"]),
        )
