"""The classes stage: what the encoder's own classifier says of each image, its likeliest classes in `classes/`."""

from __future__ import annotations

from typing import Final

import numpy as np

from shoal import atomic
from shoal.config import ClusterConfig
from shoal.embeddings import EmbeddingStore, read_array
from shoal.errors import RunError
from shoal.names.classifier import Classifier, words_of
from shoal.names.kinds import Vocabulary
from shoal.names.likeliest import KEPT, Likeliest
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file, digest_of
from shoal.runfiles import HEAD

IDS, PROBABILITIES = "classes/ids.npy", "classes/probabilities.npy"
NONE: Final = "none"  # digest where there is no classifier
BLOCK: Final = 64 << 20  # bytes of features at a time


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write classes/ids.npy and classes/probabilities.npy, the likeliest first; row i belongs to image id i.

    Rows of images that have no features, and so show nothing, have the probability 0 throughout. Where the encoder
    came without a classifier whose words are known, there is nothing to write.
    """
    store = EmbeddingStore.open(run_dir.embeddings)
    classifier = Classifier.read(run_dir.model / HEAD, store.dim)
    if classifier is None:
        return StageResult(NONE)
    shape = store.rows, min(KEPT, classifier.classes)
    size = max(1, BLOCK // (4 * store.dim))
    with (
        atomic.writing_array(run_dir.new(IDS), shape, np.uint16) as add_ids,
        atomic.writing_array(run_dir.new(PROBABILITIES), shape, np.float16) as add_probabilities,
    ):
        for _, features in store.blocks(np.arange(store.rows), size):
            found = classifier.likeliest(features)
            found.probabilities[~features.any(axis=1)] = 0
            add_ids(found.classes)
            add_probabilities(found.probabilities)
    return StageResult(digest_of(*(digest_file(run_dir.path(name)) for name in (IDS, PROBABILITIES))))


def are_there(run_dir: RunDir) -> bool:
    """Whether a run has classes of its images. Raises RunError if its classifier is not readable."""
    return run_dir.path(IDS).is_file() and words_of(run_dir.model / HEAD) is not None


def read(run_dir: RunDir) -> tuple[Likeliest, Vocabulary] | None:
    """The likeliest classes of a run's images by id, as memory maps, and the words for them; None if it has none.

    Raises:
        RunError: they are not readable, or not of each other.
    """
    words = words_of(run_dir.model / HEAD)
    if words is None or not run_dir.path(IDS).is_file():
        return None
    ids = read_array(run_dir.path(IDS), (None, None), np.dtype(np.uint16))
    probabilities = read_array(run_dir.path(PROBABILITIES), ids.shape, np.dtype(np.float16))
    if ids.max(initial=0) >= len(words.classes):
        raise RunError(f"{run_dir.path(IDS)} goes up to {ids.max()}; expected classes below {len(words.classes):,}")
    return Likeliest(ids, probabilities), words
