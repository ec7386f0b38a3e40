"""`shoal find`, and the page's search: the images of a run that show what some words say.

A run whose encoder has a text tower compares texts with features; of any other the words have to be its classifier's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shoal import parquet, records
from shoal.config import DEFAULT_BACKBONE
from shoal.corrections.corrected import read_corrected
from shoal.embeddings import EmbeddingStore, Float32, Ids, normalise_rows, products
from shoal.encoder import needs
from shoal.errors import RequestError, RunError
from shoal.names import classes, finding, free_text
from shoal.names.kinds import Vocabulary
from shoal.names.likeliest import Likeliest
from shoal.names.words import Unknown, parse
from shoal.neighbours.mined import check_among, read_ids
from shoal.rundir import RunDir
from shoal.runfiles import NO_BACKBONE, TEXT_TOWER

MINUS: Final = 0.5  # part of a minus text's cosine that counts: one whole would find what shows neither
LEAST_FIT: Final = 0.02  # score of an image that known words fit at all
NONE_FITS: Final = "No image here shows that, as far as the classifier can tell."


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image of the run, and how well the words fit it: 0 to 1, or a cosine (−1 to 1)."""

    id: int
    path: str
    score: float
    cluster: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The images, best first, and lines for the person on words that mean several things, or are said otherwise.

    Attributes:
        is_cosine: scores are cosines of image and text, less half of that with each minus text.
    """

    images: tuple[FoundImage, ...]
    notes: tuple[str, ...]
    is_cosine: bool


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """How well some words fit each image that is looked among, [n] as the finder's ids; None if a word is not known."""

    scores: Float32 | None
    notes: tuple[str, ...] = ()
    unknown: tuple[Unknown, ...] = ()


class Finder(Protocol):
    """What a search by words needs of a run, opened once for any number of them.

    Attributes:
        ids: of the images that are looked among, rising; copies of others are left out.
        least: score of an image that words fit at all.
    """

    is_cosine: ClassVar[bool]
    least: ClassVar[float]

    @property
    def ids(self) -> Ids: ...

    def look(self, words: str) -> Answer:
        """Raises RequestError if there is nothing to look for."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ByClasses:
    """By words that the backbone's classifier knows. No features are read.

    Attributes:
        likeliest: by id; neighbours: ids by id, or None.
    """

    is_cosine: ClassVar[bool] = False
    least: ClassVar[float] = LEAST_FIT

    ids: Ids
    vocabulary: Vocabulary
    likeliest: Likeliest
    neighbours: npt.NDArray[np.integer[Any]] | None

    @classmethod
    def open(cls, run_dir: RunDir, ids: Ids) -> ByClasses:
        """Raises RunError if the run has no classifier whose words could be looked for, or is not readable."""
        known = classes.read(run_dir)
        if known is None:
            raise RunError(why_not(run_dir))
        likeliest, vocabulary = known
        neighbours = read_ids(run_dir)
        if neighbours is not None:
            neighbours = neighbours[: len(likeliest)]  # copies that came later have no row in the other
            check_among(neighbours, len(likeliest), run_dir)
        return cls(ids, vocabulary, likeliest, neighbours)

    def look(self, words: str) -> Answer:
        query = parse(words, self.vocabulary)
        if query.unknown:
            return Answer(None, unknown=query.unknown)
        if all(term.is_minus for term in query.terms):
            raise RequestError(f"WORDS has value {words!r}; expected a word to look for, such as dog")
        scores: Float32 = finding.scores(query, self.likeliest, self.vocabulary, self.neighbours)[self.ids]
        return Answer(scores, tuple(query.told(self.vocabulary)))


@dataclass(frozen=True, slots=True, eq=False)
class ByText:
    """By any text, as the text tower beside the encoder reads it. All features are read."""

    is_cosine: ClassVar[bool] = True
    least: ClassVar[float] = -np.inf

    ids: Ids
    tower: Path
    store: EmbeddingStore

    def look(self, words: str) -> Answer:
        query = free_text.parse(words)
        if not query.text:
            raise RequestError(f"WORDS has value {words!r}; expected a text to look for, such as: a dog on snow")
        needs.require_open_clip("finding images by text")
        from shoal.encoder.text_tower import opened  # noqa: PLC0415  (an extra of its own)

        rows = opened(self.tower).rows([query.text, *query.minus])
        wanted: Float32 = rows[:1] - np.float32(MINUS) * rows[1:].sum(axis=0)
        scores = np.empty(len(self.ids), np.float32)
        for where, features in self.store.blocks(self.ids):
            scores[where] = products(wanted, normalise_rows(features))[0]
        return Answer(scores)


def opened_finder(run_dir: RunDir) -> Finder:
    """What looks for words among the images of a run.

    Raises:
        RunError: it has no classifier whose words could be looked for, or is not readable.
    """
    is_ok = run_dir.read_images(["status"])["status"].to_numpy(zero_copy_only=False) == records.OK
    ids = np.sort(run_dir.read_clusters(["id"])["id"].to_numpy())
    ids = ids[is_ok[ids]]
    tower = run_dir.model / TEXT_TOWER
    if tower.is_file():
        return ByText(ids, tower, EmbeddingStore.open(run_dir.embeddings))
    return ByClasses.open(run_dir, ids)


def find(run_dir: RunDir, words: str, count: int) -> SearchResult:
    """The `count` images of the run that fit the words best, as far as they fit at all; copies of others are left out.

    Args:
        words: see `shoal.names.words.parse`; of a run with a text tower `shoal.names.free_text.parse`.

    Raises:
        RunError: the run is unfinished, or has no classifier whose words could be looked for.
        RequestError: a word is not known, or there is none to look for.
        ConfigError: the run has a text tower, and what it needs is not installed.
    """
    run_dir.require("cluster")
    finder = opened_finder(run_dir)
    answer = finder.look(words)
    if answer.scores is None:
        raise RequestError(". ".join(one.told for one in answer.unknown))
    best = finding.best(answer.scores, min(count, int(np.count_nonzero(answer.scores >= finder.least))))
    ids = finder.ids[best]
    corrected = read_corrected(run_dir)
    paths = parquet.take(run_dir.read_images(["path"])["path"], pa.array(ids)).to_pylist()
    clusters = corrected.cluster[corrected.rows(ids)]
    found = zip(ids.tolist(), paths, answer.scores[best].tolist(), clusters.tolist(), strict=True)
    images = tuple(FoundImage(image, path, score, cluster) for image, path, score, cluster in found)
    return SearchResult(images, answer.notes, finder.is_cosine)


def why_not(run_dir: RunDir) -> str | None:
    """Why a run cannot be searched by words, and what to do; None: it can."""
    if classes.are_there(run_dir) or (run_dir.model / TEXT_TOWER).is_file():
        return None
    stages = run_dir.read_state()["stages"]
    if "classes" not in stages:
        return f"{run_dir.root} is of before words could be looked for; renew it with: {run_dir.how_to_cluster()}"
    backbone = stages.get("embed", {}).get("facts", {}).get("backbone", NO_BACKBONE)
    came = "its embeddings were given, and came" if backbone == NO_BACKBONE else f"its encoder ({backbone}) came"
    return (
        f"{run_dir.root} cannot be searched by words: {came} without a classifier whose words are known; "
        f"expected a run with --backbone {DEFAULT_BACKBONE}, the default"
    )
