"""How many clusters: look at many numbers, keep the evidence for each, choose by a rule and say why.

The rule: the greatest product of the mean silhouette (are the clusters apart?) and the stability under resampling
(would they be found again?). Either alone misleads: two clusters are nearly always stable, and the silhouette of many
tight clusters can be high by chance. Other peaks of that product are told as numbers that can be defended too; where
two of them or more come near the chosen one, the sentence says that no one number stands out. The coding length is kept
as evidence, and decides nothing: docs/decisions.md has what was compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoal.cluster import kmeans, threads
from shoal.cluster.arrays import Float64
from shoal.cluster.kmeans import COSINE, Clustering
from shoal.cluster.number import silhouette, stability
from shoal.cluster.number.coding_length import coding_length
from shoal.cluster.number.stability import Stability
from shoal.config import ClusterCounts
from shoal.embeddings import Float32
from shoal.errors import TooFewImagesError

AUTO_LARGEST = 100
AUTO_IMAGES_PER_CLUSTER = 10
WIDENED_IMAGES_PER_CLUSTER = 2
KIND_IMAGES = 5  # images that a cluster has on average, at the least, to be chosen ...
KINDS_PER_ROOT = 1.5  # ... but few images may have this many clusters times the square root of their number
EVERY_NUMBER_TO = 40  # beyond, steps of about STEP, and every number between the best one's neighbours
STEP = 1.08
REFINED = 6  # at most this many more numbers around the best
EDGE = 0.9  # a best number beyond this part of the largest one looked at asks for a wider look
WIDER = 1.6
STARTS = 4
POLISH_ITERATIONS = 10  # rounds on all images for a candidate; the chosen one runs to the end
RUNNERS_UP = 4
APART = 1.25  # how many times as large, at the least, one of two numbers told is as the other
WORTH_TELLING = 0.6  # of the chosen one's score, that a runner-up has at the least
NEARLY = 0.75  # of it, with which two runners-up leave no number standing out


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One number of clusters, its clustering and the evidence for it."""

    clustering: Clustering
    silhouette: float  # mean over the images, -1 to 1
    stability: Stability
    smallest: int  # images in the smallest cluster
    coding_length: float | None = None  # bits an image, smaller is better; None for the Euclidean metric

    @property
    def k(self) -> int:
        return len(self.clustering.centroids)

    @property
    def score(self) -> float:
        """What the choice goes by; see the module's text."""
        return self.silhouette * max(self.stability.rand, 0.0) if self.silhouette > 0 else self.silhouette


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was found.

    Attributes:
        chosen: the candidate taken.
        candidates: all of them, by rising K.
        silhouettes: of the chosen one, [N].
        sentence: why it was chosen.
        runners_up: numbers that can be defended too, best first.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    silhouettes: Float64
    sentence: str
    runners_up: tuple[int, ...]


def choose(
    points: Float32,
    counts: ClusterCounts,
    seed: int,
    *,
    metric: str = COSINE,
    watch: Callable[[Candidate], None] = lambda candidate: None,
) -> Choice:
    """Cluster `points` float32 [N, d] into the number of clusters that suits them best.

    Args:
        counts: `auto`, or the numbers to look at; those above N are left out.
        seed: every K has a generator of its own made from it, so that its evidence does not depend on the other Ks.
        watch: called with each candidate as it is done.

    Raises:
        TooFewImagesError: fewer points than the least number of clusters, or fewer than two.
    """
    wanted = possible(counts, len(points))
    look = _Look(points, seed, metric, watch)
    if counts.is_auto and _all_equal(points):
        look.at([1])
    elif counts.is_auto:
        _look_automatically(look)
    else:
        look.at(wanted)
    best = look.best
    chosen, silhouettes = _finish(best, points, metric)
    candidates = tuple(chosen if candidate is best else candidate for candidate in look.candidates)
    also = _runners_up(chosen, candidates)
    sentence = _sentence(chosen, candidates, counts) + _also(chosen, also)
    return Choice(chosen, candidates, silhouettes, sentence, tuple(candidate.k for candidate in also))


def most_kinds(images: int) -> float:
    """The most clusters that are chosen if fewer were looked at too.

    Beyond it a cluster is a pair of look-alikes rather than a kind, and the evidence misleads: the closer K comes to
    the number of images, the more stable every clustering is.
    """
    return max(images / KIND_IMAGES, KINDS_PER_ROOT * math.sqrt(images))


def automatic_counts(images: int) -> list[int]:
    """The numbers that `auto` looks at first: 2 to min(100, N/10), every one up to 40, then in steps of 8 %."""
    return _ladder(2, max(2, min(AUTO_LARGEST, images // AUTO_IMAGES_PER_CLUSTER)))


class _Look:
    """The candidates seen so far."""

    def __init__(self, points: Float32, seed: int, metric: str, watch: Callable[[Candidate], None]) -> None:
        self._points, self._seed, self._metric, self._watch = points, seed, metric, watch
        self._seen: dict[int, Candidate] = {}

    @property
    def images(self) -> int:
        return len(self._points)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._seen[k] for k in sorted(self._seen))

    @property
    def best(self) -> Candidate:
        kinds = [candidate for candidate in self.candidates if candidate.k <= most_kinds(self.images)]
        return max(kinds or self.candidates, key=lambda candidate: (candidate.score, -candidate.k))

    def at(self, numbers: Sequence[int]) -> None:
        """Look at `numbers` of clusters that were not looked at yet."""
        new = [k for k in numbers if k not in self._seen]
        found = threads.each(lambda k: _candidate(self._points, k, self._seed, self._metric), new)
        for candidate in found if self._metric == COSINE else self._with_euclidean_silhouettes(list(found)):
            self._seen[candidate.k] = candidate
            self._watch(candidate)

    def _with_euclidean_silhouettes(self, found: list[Candidate]) -> list[Candidate]:
        if not found:
            return found
        means = silhouette.euclidean(self._points, [item.clustering.labels for item in found]).mean(axis=1)
        return [replace(item, silhouette=float(mean)) for item, mean in zip(found, means, strict=True)]


def _look_automatically(look: _Look) -> None:
    largest_ever = max(2, look.images // WIDENED_IMAGES_PER_CLUSTER)
    numbers = automatic_counts(look.images)
    look.at(numbers)
    while look.best.k >= EDGE * numbers[-1] and numbers[-1] < largest_ever:
        numbers = _ladder(numbers[-1] + 1, min(largest_ever, max(numbers[-1] + 1, int(numbers[-1] * WIDER))))
        look.at(numbers)
    seen = [candidate.k for candidate in look.candidates]
    place = seen.index(look.best.k)
    around = range(seen[max(place - 1, 0)] + 1, seen[min(place + 1, len(seen) - 1)])
    if len(around) > 1:
        look.at(sorted({int(k) for k in np.linspace(around[0], around[-1], min(REFINED, len(around)))}))


def _ladder(first: int, last: int) -> list[int]:
    numbers = list(range(first, min(last, EVERY_NUMBER_TO) + 1))
    number = float(max(first, EVERY_NUMBER_TO + 1))
    while number <= last:
        numbers.append(int(number))
        number = max(number * STEP, number + 1)
    return numbers if not numbers or numbers[-1] == last else [*numbers, last]


def _candidate(points: Float32, k: int, seed: int, metric: str) -> Candidate:
    rng = np.random.default_rng([seed, k])
    starts = kmeans.starts_for(k, STARTS)
    found = kmeans.fit(points, k, rng, metric=metric, starts=starts, polish_iterations=POLISH_ITERATIONS)
    again, smallest = stability.of_resamples(points, k, rng, metric), int(np.bincount(found.labels).min())
    if metric != COSINE:
        return Candidate(found, 0.0, again, smallest)  # the silhouette comes in _Look
    mean = float(silhouette.cosine(points, found.labels, k).mean())
    return Candidate(found, mean, again, smallest, coding_length(points, found.labels, k))


def _finish(best: Candidate, points: Float32, metric: str) -> tuple[Candidate, Float64]:
    """Run the chosen clustering to the end, and take its silhouettes of all images."""
    found = next(threads.each(lambda start: kmeans.lloyd(points, start, metric=metric), [best.clustering.centroids]))
    silhouettes = silhouette.of(points, found.labels, metric)
    smallest = int(np.bincount(found.labels, minlength=best.k).min())
    return replace(best, clustering=found, silhouette=float(silhouettes.mean()), smallest=smallest), silhouettes


def _runners_up(chosen: Candidate, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Peaks of the score elsewhere, best first: no number nearer than APART has a greater one."""

    def near(k: int, other: int) -> bool:
        return max(k, other) < APART * min(k, other)

    told: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (-candidate.score, candidate.k)):
        around = max(other.score for other in candidates if near(other.k, candidate.k))
        is_peak = around == candidate.score >= WORTH_TELLING * chosen.score > 0
        if is_peak and not any(near(candidate.k, other.k) for other in (chosen, *told)):
            told.append(candidate)
    return tuple(told[:RUNNERS_UP])


def _also(chosen: Candidate, others: Sequence[Candidate]) -> str:
    numbers = ", ".join(str(other.k) for other in others)
    if sum(other.score >= NEARLY * chosen.score for other in others) >= 2:
        return f"; no one number stands out, also defensible: {numbers}"
    return f"; also defensible: {numbers}" if others else ""


def possible(counts: ClusterCounts, images: int) -> list[int]:
    """The numbers of clusters asked for that so many images allow; TooFewImagesError if they allow none."""
    if images < 2:
        raise TooFewImagesError(f"the source has {images} usable image{'s' * (images != 1)}; clusters need at least 2")
    possible = [k for k in counts.values if k <= images]
    if counts.values and not possible:
        least = min(counts.values)
        raise TooFewImagesError(
            f"--clusters asks for {least} clusters, but the source has only {images} usable images; "
            f"expected at most {images} clusters"
        )
    return possible


def _all_equal(points: Float32) -> bool:
    return bool(np.all(points == points[0]))


def _sentence(chosen: Candidate, candidates: Sequence[Candidate], counts: ClusterCounts) -> str:
    number = f"{chosen.k} cluster{'s' * (chosen.k > 1)}"
    again = f"{100 * chosen.stability.together:.0f} % of pairs stay together when the images are resampled"
    if chosen.k == 1:
        return "1 cluster: all images look the same to the backbone"
    if counts.is_fixed:
        return f"{number}, as asked: the mean silhouette is {chosen.silhouette:.3f}, and {again}"
    others = [candidate for candidate in candidates if candidate is not chosen]
    if not others:
        return (
            f"{number}, the only number the images allow: the mean silhouette is {chosen.silhouette:.3f}, and {again}"
        )
    rival = max(others, key=lambda candidate: candidate.silhouette)
    if chosen.silhouette >= rival.silhouette:
        return (
            f"{number}: the mean silhouette is highest there ({chosen.silhouette:.3f}; next best {rival.k} with "
            f"{rival.silhouette:.3f}), and {again}"
        )
    kept, kept_by_rival = (round(100 * one.stability.together) for one in (chosen, rival))
    less = f"keeps only {kept_by_rival} % together" if kept_by_rival < kept else "is found again less surely"
    return (
        f"{number}: the best balance of apart and stable; the mean silhouette is {chosen.silhouette:.3f} and {again} "
        f"(the highest silhouette, {rival.silhouette:.3f} with {rival.k}, {less})"
    )
