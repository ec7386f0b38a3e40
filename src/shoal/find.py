"""`shoal find`, and the page's search: the images of a run that show what some words say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal import records
from shoal.config import DEFAULT_BACKBONE
from shoal.corrections.corrected import read_corrected
from shoal.embeddings import Float32, Ids
from shoal.errors import RequestError, RunError
from shoal.names import classes, finding
from shoal.names.kinds import Vocabulary
from shoal.names.likeliest import Likeliest
from shoal.names.words import Query, parse
from shoal.neighbours.mined import check_among, read_ids
from shoal.rundir import RunDir
from shoal.runfiles import NO_BACKBONE


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image of the run, and how well the words fit it (0 to 1)."""

    id: int
    path: str
    score: float
    cluster: int


@dataclass(frozen=True, slots=True)
class Found:
    """The images, best first, and lines for the person on words that mean several things, or are said otherwise."""

    images: tuple[FoundImage, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Finder:
    """What a search by words needs of a run, opened once for any number of them. No features are read.

    Attributes:
        ids: of the images that are looked among, rising; copies of others are left out.
        likeliest: by id; neighbours: ids by id, or None.
    """

    ids: Ids
    vocabulary: Vocabulary
    likeliest: Likeliest
    neighbours: npt.NDArray[np.integer[Any]] | None

    @classmethod
    def open(cls, run_dir: RunDir) -> Finder:
        """Raises RunError if the run has no classifier whose words could be looked for, or is not readable."""
        known = classes.read(run_dir)
        if known is None:
            raise RunError(why_not(run_dir))
        likeliest, vocabulary = known
        neighbours = read_ids(run_dir)
        if neighbours is not None:
            neighbours = neighbours[: len(likeliest)]  # copies that came later have no row in the other
            check_among(neighbours, len(likeliest), run_dir)
        is_ok = run_dir.read_images(["status"])["status"].to_numpy(zero_copy_only=False) == records.OK
        ids = np.sort(run_dir.read_clusters(["id"])["id"].to_numpy())
        return cls(ids[is_ok[ids]], vocabulary, likeliest, neighbours)

    def read(self, words: str) -> Query:
        """What words mean, and which are not known. Raises RequestError if all are known and none is to be shown."""
        query = parse(words, self.vocabulary)
        if not query.unknown and all(term.is_minus for term in query.terms):
            raise RequestError(f"WORDS has value {words!r}; expected a word to look for, such as dog")
        return query

    def scores(self, query: Query) -> Float32:
        """How well each of `ids` fits a query all of whose words are known, 0 to 1."""
        found: Float32 = finding.scores(query, self.likeliest, self.vocabulary, self.neighbours)[self.ids]
        return found


def find(run_dir: RunDir, words: str, count: int) -> Found:
    """The `count` images of the run that fit the words best; copies of others are left out.

    Args:
        words: see `shoal.names.words.parse`.

    Raises:
        RunError: the run is unfinished, or has no classifier whose words could be looked for.
        RequestError: a word is not known, or there is none to look for.
    """
    run_dir.require("cluster")
    finder = Finder.open(run_dir)
    query = finder.read(words)
    if query.unknown:
        raise RequestError(". ".join(query.told_unknown()))
    scores = finder.scores(query)
    best = finding.best(scores, count)
    ids = finder.ids[best]
    corrected = read_corrected(run_dir)
    paths = run_dir.read_images(["path"])["path"].take(ids).to_pylist()
    clusters = corrected.cluster[corrected.rows(ids)]
    return Found(
        tuple(
            FoundImage(int(image), path, float(score), int(cluster))
            for image, path, score, cluster in zip(ids, paths, scores[best], clusters, strict=True)
        ),
        tuple(query.told(finder.vocabulary)),
    )


def why_not(run_dir: RunDir) -> str | None:
    """Why a run cannot be searched by words, and what to do; None: it can."""
    if classes.are_there(run_dir):
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
