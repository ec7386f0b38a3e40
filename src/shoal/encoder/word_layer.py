"""Words as a text tower reads them, as a layer that tells them from features: kept in the user's cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from shoal import cache
from shoal.encoder import needs
from shoal.encoder.classifier import Layer
from shoal.encoder.engines import resolve_device
from shoal.progress import Progress
from shoal.rundir import digest_file, digest_of

FORMAT: Final = 1
FOLDER: Final = "words"  # in the cache


def of_words(tower: Path, words: Sequence[str], device: str, progress: Progress) -> Layer:
    """The layer whose logits, of features of unit length, are scaled cosines with words: see `TextTower.words`.

    Args:
        tower: the file of the text tower.
        device: on which it reads them: auto, cpu, cuda or mps.

    Raises:
        ConfigError: words that are not kept yet need packages that are not installed.
        RunError, WeightsError: see `TextTower.open`.
    """
    name = f"{FOLDER}/{digest_of(FORMAT, digest_file(tower), list(words))[:20]}"
    kept = cache.find(f"{name}/{Layer.file}")
    if kept is not None:
        found = Layer.prepared(kept.parent)
        assert found is not None
        return found
    needs.require_open_clip("reading words by a text tower")
    from shoal.encoder.text_tower import TextTower  # noqa: PLC0415  (imports torch)

    progress.say(f"Reading {len(words):,} words by the text tower (first time only) …")
    opened = TextTower.open(tower).to(resolve_device(device))
    rows = opened.words(words, progress)
    made = Layer(np.float32(opened.scale) * rows, np.zeros(len(rows), np.float32))

    def keep(place: Path) -> None:
        with cache.writing():
            (place / name).mkdir(parents=True, exist_ok=True)
            made.save(place / name)

    cache.keep(keep)
    return made
