"""`shoal similar`: the nearest images of a run to one image."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import parquet, records
from shoal.corrections.corrected import read_corrected
from shoal.embeddings import EmbeddingStore, Float32
from shoal.errors import DecodeError, NoImagesError
from shoal.images.item import Item
from shoal.images.listed import Source
from shoal.images.reading import ImageReader
from shoal.images.sources import open_source
from shoal.model import Model
from shoal.neighbours.query import nearest
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_bytes

COLUMNS = ["id", "path", "uri", "sha256", "status", "duplicate_of"]


@dataclass(frozen=True, slots=True)
class SimilarImage:
    """An image of the run and its cosine similarity to the query (-1 to 1)."""

    id: int
    path: str
    similarity: float
    cluster: int


def similar(run_dir: RunDir, image: str | Source, count: int, device: str, progress: Progress) -> list[SimilarImage]:
    """The `count` nearest images of the run, nearest first. If `image` is itself in the run, it is left out.

    Args:
        image: the path or URI of an image, the path that the run has of one of its own, or a source that holds one.
            What the run has, byte for byte, is looked up: no encoder is started for it.

    Raises:
        RunError: the run is unfinished; or it has no encoder, and `image` is not in it.
        SourceError: there is no such image. NoImagesError: `image` cannot be read.
    """
    run_dir.require("embed", "cluster")
    images = run_dir.read_images(COLUMNS)
    store = EmbeddingStore.open(run_dir.embeddings)
    query, uri = _by_path(images, store, image) or _from_source(run_dir, images, store, image, device, progress)
    is_other = pc.and_(pc.equal(images["status"], records.OK), pc.not_equal(images["uri"], uri))
    ids, similarity = nearest(store, images["id"].filter(is_other).to_numpy(), query, count)
    corrected = read_corrected(run_dir)
    clusters = corrected.cluster[corrected.rows(ids[0])].tolist()
    paths = parquet.take(images["path"], pa.array(ids[0])).to_pylist()
    return [
        SimilarImage(*found) for found in zip(ids[0].tolist(), paths, similarity[0].tolist(), clusters, strict=True)
    ]


def _by_path(images: pa.Table, store: EmbeddingStore, image: str | Source) -> tuple[Float32, str] | None:
    """Features [1, dim] and URI of the run's image that has the path `image`; None if it has none, or a file does."""
    if not isinstance(image, str) or os.path.lexists(image):
        return None
    return stored_features(images, store, "path", image)


def _from_source(
    run_dir: RunDir, images: pa.Table, store: EmbeddingStore, image: str | Source, device: str, progress: Progress
) -> tuple[Float32, str]:
    source = open_source((image,)) if isinstance(image, str) else image
    items = list(itertools.islice(source.listed().items(), 1))
    for item in items:
        known = stored_features(images, store, "sha256", _digest(source, item))
        if known is not None:
            return known[0], item.uri
    query = next(Model.open(run_dir, device, progress).embed(items, source.spool), None)
    if query is None or not query.items:
        raise _unusable(source, query.skipped[0][1] if query and query.skipped else "it is empty")
    return query.features, items[0].uri


def _digest(source: Source, item: Item) -> str:
    try:
        return digest_bytes(ImageReader(source.spool).read(item.uri))
    except DecodeError as error:
        raise _unusable(source, item.problem or str(error)) from error


def _unusable(source: Source, reason: str) -> NoImagesError:
    return NoImagesError(f"{source.identity} is no usable image: {reason}")


def stored_features(images: pa.Table, store: EmbeddingStore, column: str, value: str) -> tuple[Float32, str] | None:
    """Features [1, dim] and URI of an image of the run that has `value` in a column; None if none with features does.

    Args:
        images: id, uri, status, duplicate_of and the column, of all images; a duplicate has its original's features.
    """
    for row in images.filter(pc.fill_null(pc.equal(images[column], value), False)).to_pylist():
        if row["status"] in (records.OK, records.DUPLICATE):
            original = row["id"] if row["duplicate_of"] is None else row["duplicate_of"]
            return store.read(np.array([original])), row["uri"]
    return None
