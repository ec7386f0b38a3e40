"""Embedding images that belong to no run: what `assign` and `similar` are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from shoal.embed.batches import embed_batches
from shoal.embed.engines import Engine
from shoal.embed.spec import EncoderSpec
from shoal.images.reading import ImageReader
from shoal.images.sources import Item


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Some items of a source: those with features (float32 [len(items), dim]), and those without, with the reason."""

    items: list[Item]
    features: npt.NDArray[np.float32]
    skipped: list[tuple[Item, str]]


def embed_items(engine: Engine, spec: EncoderSpec, items: Iterable[Item]) -> Iterator[Newcomers]:
    """Embed items in order, a batch at a time; memory does not grow with their number."""
    waiting: list[list[Item]] = []
    problems: list[tuple[Item, str]] = []

    def batches() -> Iterator[tuple[list[int], list[str]]]:
        readable = _readable(items, problems)
        while batch := list(islice(readable, engine.batch_size)):
            waiting.append(batch)
            yield list(range(len(batch))), [item.uri for item in batch]

    for embedded in embed_batches(engine, spec, ImageReader(), batches()):
        batch = waiting.pop(0)
        good = [row for row in embedded.ids if row not in embedded.failures]
        skipped = [(batch[row], failure.reason) for row, failure in embedded.failures.items()]
        yield Newcomers([batch[row] for row in good], embedded.features[good], skipped + _taken(problems))
    if problems:
        yield Newcomers([], np.empty((0, spec.dim), dtype=np.float32), _taken(problems))


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
