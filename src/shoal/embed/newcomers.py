"""Embedding images that belong to no run: what `assign` and `similar` are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.embed.batches import embed_batches
from shoal.encoder.engines import Engine
from shoal.encoder.spec import EncoderSpec
from shoal.errors import DecodeError
from shoal.images.item import Item
from shoal.images.reading import ImageReader
from shoal.images.views import model_input
from shoal.spool import Spool

BLOCK: Final = 4096  # items that batches never cross, so that who embeds some of them only cuts the same batches


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Some items of a source: those with features (float32 [len(items), dim]), and those without, with the reason."""

    items: list[Item]
    features: npt.NDArray[np.float32]
    skipped: list[tuple[Item, str]]


def embed_items(
    engine: Engine, spec: EncoderSpec, items: Iterable[Item], spool: Spool | None = None
) -> Iterator[Newcomers]:
    """Embed items in order, a batch at a time; memory does not grow with their number.

    Args:
        spool: of their source, with what it has fetched.
    """
    waiting: list[list[Item]] = []
    problems: list[tuple[Item, str]] = []

    def batches() -> Iterator[tuple[list[int], list[str]]]:
        remaining = iter(items)
        while block := list(islice(remaining, BLOCK)):
            readable = _readable(block, problems)
            while batch := list(islice(readable, engine.batch_size)):
                waiting.append(batch)
                yield list(range(len(batch))), [item.uri for item in batch]

    for embedded in embed_batches(engine, spec, ImageReader(spool), batches()):
        batch = waiting.pop(0)
        good = [row for row in embedded.ids if row not in embedded.failures]
        skipped = [(batch[row], failure.reason) for row, failure in embedded.failures.items()]
        yield Newcomers([batch[row] for row in good], embedded.features[good], skipped + _taken(problems))
    if problems:
        yield Newcomers([], np.empty((0, spec.dim), dtype=np.float32), _taken(problems))


def embed_picture(engine: Engine, spec: EncoderSpec, data: bytes) -> npt.NDArray[np.float32]:
    """Features [1, dim] of one image given as a file's bytes.

    Raises:
        DecodeError: it cannot be decoded, or the backbone gives no finite features for it.
    """
    pixels = np.zeros((engine.batch_size, spec.size, spec.size, 3), dtype=np.uint8)
    pixels[0] = model_input(
        data,
        size=spec.size,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
        resize=spec.resize,
    ).pixels
    features = engine.infer(pixels)[:1]
    if not np.isfinite(features).all():
        raise DecodeError("the backbone gives no finite features for it")
    return features


def _readable(items: Iterable[Item], problems: list[tuple[Item, str]]) -> Iterator[Item]:
    for item in items:
        if item.problem is None:
            yield item
        else:
            problems.append((item, item.problem))


def _taken(problems: list[tuple[Item, str]]) -> list[tuple[Item, str]]:
    taken = problems.copy()
    problems.clear()
    return taken
