"""`shoal similar`: the nearest images of a run to one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal import records
from shoal.corrections.corrected import read_corrected
from shoal.embeddings import EmbeddingStore
from shoal.errors import NoImagesError
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.neighbours.query import nearest
from shoal.progress import Progress
from shoal.rundir import RunDir


@dataclass(frozen=True, slots=True)
class SimilarImage:
    """An image of the run and its cosine similarity to the query (-1 to 1)."""

    id: int
    path: str
    similarity: float
    cluster: int


def similar(run_dir: RunDir, image: str, count: int, device: str, progress: Progress) -> list[SimilarImage]:
    """The `count` nearest images of the run, nearest first. If `image` is itself in the run, it is left out.

    Raises:
        RunError: the run is unfinished.
        NoImagesError: `image` cannot be read.
    """
    run_dir.require("embed", "cluster")
    model = Model.open(run_dir, device, progress)
    source = open_source((image,))
    query = next(model.embed(list(source.items())[:1], source.spool), None)
    if query is None or not query.items:
        reason = query.skipped[0][1] if query and query.skipped else "it is empty"
        raise NoImagesError(f"{image} is no usable image: {reason}")
    images = run_dir.read_images(["id", "path", "uri", "status"])
    usable = np.flatnonzero(images["status"].to_numpy(zero_copy_only=False) == records.OK).astype(np.int64)
    uris = images["uri"].to_pylist()
    others = usable[[uris[row] != query.items[0].uri for row in usable]]
    ids, similarity = nearest(EmbeddingStore.open(run_dir.embeddings), others, query.features, count)
    corrected = read_corrected(run_dir)
    cluster_of = dict(zip(corrected.ids.tolist(), corrected.cluster.tolist(), strict=True))
    paths = images["path"].to_pylist()
    return [
        SimilarImage(int(found), paths[found], float(score), cluster_of[int(found)])
        for found, score in zip(ids[0], similarity[0], strict=True)
    ]
