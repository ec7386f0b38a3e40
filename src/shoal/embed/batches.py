"""Decoding and inference of batches of images, overlapped on a few threads.

Each worker decodes a batch and then runs it, so decoding and inference share the cores without fighting for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.cores import core_count
from shoal.encoder.engines import Engine
from shoal.encoder.spec import EncoderSpec
from shoal.errors import DecodeError
from shoal.images.reading import ImageReader
from shoal.images.views import model_input

AHEAD = 4  # batches under way for each worker: enough to keep all busy, few enough to bound memory
REMOTE_WORKERS = 16  # waiting for a network is not work


FailureKind: TypeAlias = Literal["read", "decode"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image has no features. `read`: its bytes could not be had, which may pass; `decode`: it will not."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Features of one batch: float32 [len(ids), dim]; rows of failed images are zeros."""

    ids: Sequence[int]
    features: npt.NDArray[np.float32]
    failures: dict[int, Failure]  # by image id
    notes: dict[int, str]  # by image id: what decoding had to infer or choose


def embed_batches(
    engine: Engine, spec: EncoderSpec, reader: ImageReader, batches: Iterable[tuple[Sequence[int], Sequence[str]]]
) -> Iterator[EmbeddedBatch]:
    """Embed batches of (ids, uris), at most `engine.batch_size` images each, and yield them in the same order."""
    workers: int | None = None
    pending: deque[Future[EmbeddedBatch]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for ids, uris in batches:
            if pool is None or workers is None:
                workers = core_count() if uris[0].startswith("file:") else max(REMOTE_WORKERS, core_count())
                pool = ThreadPoolExecutor(workers, thread_name_prefix="embed")
            pending.append(pool.submit(_embed, engine, spec, reader, ids, uris))
            if len(pending) >= workers * AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def _embed(
    engine: Engine, spec: EncoderSpec, reader: ImageReader, ids: Sequence[int], uris: Sequence[str]
) -> EmbeddedBatch:
    pixels = np.zeros((engine.batch_size, spec.size, spec.size, 3), dtype=np.uint8)
    failures: dict[int, Failure] = {}
    notes: dict[int, str] = {}
    for row, (image, uri) in enumerate(zip(ids, uris, strict=True)):
        try:
            data = reader.read(uri)
        except DecodeError as error:
            failures[image] = Failure("read", str(error))
            continue
        try:
            view = model_input(
                data,
                size=spec.size,
                crop_fraction=spec.crop_fraction,
                interpolation=spec.interpolation,
                resize=spec.resize,
            )
        except DecodeError as error:
            failures[image] = Failure("decode", str(error))
            continue
        pixels[row] = view.pixels
        if view.note is not None:
            notes[image] = view.note
    features = engine.infer(pixels)[: len(ids)]
    for row, image in enumerate(ids):
        if image in failures:
            features[row] = 0.0
        elif not np.isfinite(features[row]).all():
            features[row] = 0.0
            failures[image] = Failure("decode", "the backbone gives no finite features for it")
    return EmbeddedBatch(ids, features, failures, notes)
