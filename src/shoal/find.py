"""`shoal find`: the images of a run that show what some words say."""

from __future__ import annotations

from dataclasses import dataclass

from shoal import records
from shoal.config import DEFAULT_BACKBONE
from shoal.corrections.corrected import read_corrected
from shoal.errors import RequestError, RunError
from shoal.names import classes, finding
from shoal.names.words import parse
from shoal.neighbours.mined import check_among, read_ids
from shoal.rundir import RunDir


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


def find(run_dir: RunDir, words: str, count: int) -> Found:
    """The `count` images of the run that fit the words best; copies of others are left out.

    Args:
        words: see `shoal.names.words.parse`.

    Raises:
        RunError: the run is unfinished, or has no classifier whose words could be looked for.
        RequestError: a word is not known, or there is none to look for.
    """
    run_dir.require("cluster")
    known = classes.read(run_dir)
    if known is None:
        raise RunError(_why_none(run_dir))
    likeliest, vocabulary = known
    query = parse(words, vocabulary)
    if query.unknown:
        raise RequestError(". ".join(query.told_unknown()))
    if all(term.is_minus for term in query.terms):
        raise RequestError(f"WORDS has value {words!r}; expected a word to look for, such as dog")
    neighbours = read_ids(run_dir)
    if neighbours is not None:
        neighbours = neighbours[: len(likeliest)]  # copies that came later have no row in the other
        check_among(neighbours, len(likeliest), run_dir)
    corrected = read_corrected(run_dir)
    images = run_dir.read_images(["id", "path", "status"])
    is_ok = images["status"].to_numpy(zero_copy_only=False) == records.OK
    ids = corrected.ids[is_ok[corrected.ids]]
    scores = finding.scores(query, likeliest, vocabulary, neighbours)[ids]
    best = finding.best(scores, count)
    paths = images["path"].take(ids[best]).to_pylist()
    clusters = corrected.cluster[corrected.rows(ids[best])]
    return Found(
        tuple(
            FoundImage(int(ids[row]), path, float(scores[row]), int(cluster))
            for row, path, cluster in zip(best, paths, clusters, strict=True)
        ),
        tuple(query.told(vocabulary)),
    )


def _why_none(run_dir: RunDir) -> str:
    """Why there is no search by words, and what to do."""
    state = run_dir.read_state()
    facts = state["stages"].get("embed", {}).get("facts", {})
    if "classes" not in state["stages"]:
        return f"{run_dir.root} is of before words could be looked for; renew it with: {run_dir.how_to_cluster()}"
    return (
        f"{run_dir.root} cannot be searched by words: its encoder ({facts.get('backbone', 'unknown')}) came without a "
        f"classifier whose words are known; expected a run with --backbone {DEFAULT_BACKBONE}, the default"
    )
