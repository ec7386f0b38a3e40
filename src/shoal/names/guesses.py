"""What each cluster shows, guessed: a word, how strongly it holds there and not elsewhere, and other words.

For cluster c and kind v, p_c(v) is the mean over c's images, weighted by confidence, of the probability that they show
v, and p_rest(v) the mean over all other images. A word's strength is p_c·log(p_c/p_rest). Which thing a cluster shows
is chosen by √p_c·log(p_c/p_rest), in which what is seldom elsewhere counts for more; how general a word says it, by the
strength. There is no name where the strength is small, where the word holds for less than half of the images, or where
the classifier is sure of nothing. Labels are never used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt

from shoal.embeddings import Float32
from shoal.names.kinds import MUTE, PLAIN, QUIET, Bools, Ints, Vocabulary
from shoal.names.likeliest import Likeliest
from shoal.typed import Between, Like, Most, Printable

Float64 = npt.NDArray[np.float64]
Word = Annotated[str, Most(200), Printable()]
Wnid = Annotated[str, Like(re.compile(r"n[0-9]{8}"), "a WordNet id such as n02084071")]

LARGEST: Final = 60  # classes of a kind that is said, unless its word is a plain one: dog, bird, vehicle
LEAST_STRENGTH: Final = 0.72
LEAST_SURE: Final = 0.18  # mean probability of an image's likeliest class
LEAST_SHARE: Final = 0.5  # of a cluster's images that have the name's kind more than others do
LEAST_APART: Final = 0.2  # strength, among clusters of one word, of what tells one from the others
PRIOR: Final = 1e-3  # part of p_rest that is the same for all classes: what is nowhere else has no endless ratio
OTHERS: Final = 5
BROADER: Final = 1.25  # times as strong a more general word has to be to be said in place of one
TRIED: Final = 20  # words that may hold for too few images, before there is no name
ROWS: Final = 8192  # at a time; more of them where there are more sums to add to
MOST_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Guess:
    """A word for a cluster: what it says, its kind's WordNet id if it has one, and how strong it is, in nats."""

    word: Word
    wnid: Wnid | None
    strength: Annotated[float, Between(0)]


@dataclass(frozen=True, slots=True)
class ClusterGuess:
    """What a cluster shows; `name` is None where nothing can be said. `others` are further words, strongest first."""

    cluster: Annotated[int, Between(0)]
    name: Word | None
    strength: Annotated[float, Between(0)]  # 0 where there is no name
    wnid: Wnid | None
    others: tuple[Guess, ...]


def guess(likeliest: Likeliest, labels: Ints, confidence: Float32, vocabulary: Vocabulary) -> list[ClusterGuess]:
    """Names for all clusters, none twice: two that show one thing are told apart, or numbered.

    Args:
        likeliest: of N images.
        labels: the cluster of each, [N], 0 to K − 1, none of them empty.
        confidence: weight of each image in its own cluster, [N], 0 to 1.
    """
    ground = _Ground.of(likeliest, labels, confidence, vocabulary)
    chosen = [ground.choose(cluster) for cluster in range(ground.clusters)]
    names = _apart(ground, chosen)
    return [_told(ground, cluster, chosen[cluster], names[cluster]) for cluster in range(ground.clusters)]


def strengths(own: Float64, rest: Float64) -> Float64:
    """p·log(p/q) of each kind; 0 where p is 0. `own` p and `rest` q > 0, both [K, kinds]."""
    ratio = np.log(np.divide(own, rest, out=np.ones_like(own), where=own > 0))
    found: Float64 = own * ratio
    return found


def sayable(vocabulary: Vocabulary) -> Bools:
    """Which kinds may be a name, [kinds]: not too general, and of kinds with the very same classes one.

    That one has the plain word, or else is the most special: *horse* where all horses are sorrels, but *hourglass*.
    """
    named = np.array([bool(kind.words) for kind in vocabulary.kinds])
    plain = vocabulary.marked(PLAIN)
    small = (vocabulary.sizes <= LARGEST) | plain
    allowed = named & small & ~vocabulary.marked(QUIET) & ~vocabulary.marked(MUTE)
    best: dict[bytes, tuple[bool, int, int]] = {}
    members = vocabulary.members
    keys = {}
    for place in np.flatnonzero(allowed).tolist():
        held = members.indices[members.indptr[place] : members.indptr[place + 1]]
        keys[place] = np.sort(held).tobytes()
        rank = (bool(plain[place]), len(vocabulary.ancestors(place)), -place)
        best[keys[place]] = max(best.get(keys[place], rank), rank)
    found = np.zeros(len(named), bool)
    found[[-place for _, _, place in best.values()]] = True
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Ground:
    """What names are chosen by."""

    vocabulary: Vocabulary
    likeliest: Likeliest
    rows: list[Ints]  # of each cluster: its images
    own: Float64  # p_c, [K, kinds]
    rest: Float64  # p_rest
    strength: Float64
    sure: Float64  # [K]
    sayable: Bools  # [kinds]
    heard: Float32  # 1 for each class that is evidence, [classes]

    @property
    def clusters(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, likeliest: Likeliest, labels: Ints, confidence: Float32, vocabulary: Vocabulary) -> _Ground:
        clusters, classes = int(labels.max(initial=-1)) + 1, len(vocabulary.classes)
        heard = (~vocabulary.marked(MUTE)[vocabulary.classes]).astype(np.float32)
        weights = np.maximum(confidence.astype(np.float64), 1e-6)
        plain, weighted = np.zeros((2, clusters * classes))
        sure = np.zeros(clusters)
        # A block adds to all clusters and classes: as many images at a time as there are of those, within reason.
        size = max(ROWS, min(MOST_ROWS, clusters * classes // max(1, likeliest.classes.shape[1])))
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            values = likeliest.probabilities[part] * heard[likeliest.classes[part]].astype(np.float64)
            places = (labels[part, None].astype(np.int64) * classes + likeliest.classes[part]).ravel()
            plain += np.bincount(places, values.ravel(), len(plain))
            weighted += np.bincount(places, (values * weights[part, None]).ravel(), len(plain))
            sure += np.bincount(labels[part], values.max(axis=1, initial=0), clusters)
        counts = np.bincount(labels, minlength=clusters).astype(np.float64)
        plain, weighted = plain.reshape(clusters, classes), weighted.reshape(clusters, classes)
        own = weighted / np.bincount(labels, weights, clusters)[:, None]
        others = (len(labels) - counts)[:, None]
        rest = np.divide(plain.sum(axis=0) - plain, others, out=np.zeros_like(plain), where=others > 0)
        prior = np.where(others > 0, PRIOR, 1.0) / classes
        rest = np.maximum(rest, 0) * (others > 0) * (1 - PRIOR) + prior
        own, rest = (_kinds(vocabulary.members, part) for part in (own, rest))
        order = np.argsort(labels, kind="stable")
        rows = np.split(order, np.cumsum(counts.astype(np.int64))[:-1])
        return cls(
            vocabulary, likeliest, rows, own, rest, strengths(own, rest), sure / counts, sayable(vocabulary), heard
        )

    def choose(self, cluster: int) -> int | None:
        """The kind that is a cluster's name."""
        if self.sure[cluster] < LEAST_SURE:
            return None
        apart = self.strength[cluster] / np.sqrt(np.maximum(self.own[cluster], 1e-12))
        strong = np.flatnonzero(self.sayable & (self.strength[cluster] >= LEAST_STRENGTH))
        for place in strong[np.argsort(-apart[strong], kind="stable")][:TRIED].tolist():
            if self.share(cluster, place) >= LEAST_SHARE:
                line = [one for one in self.vocabulary.ancestors(place) if self.sayable[one]]
                best = int(max(line, key=lambda one: self.strength[cluster, one]))
                gained = self.strength[cluster, best] >= BROADER * self.strength[cluster, place]
                return best if gained else place
        return None

    def share(self, cluster: int, place: int) -> float:
        """The part of a cluster's images that have a kind twice as likely as other images have it on average."""
        found = self.shown(self.rows[cluster], place)
        return float((found > 2 * self.rest[cluster, place]).mean())

    def shown(self, rows: Ints, place: int) -> Float32:
        """The probability that images show a kind, [rows]."""
        members = self.vocabulary.members
        held = np.zeros(len(self.heard), np.float32)
        held[members.indices[members.indptr[place] : members.indptr[place + 1]]] = 1
        held *= self.heard
        found: Float32 = (held[self.likeliest.classes[rows]] * self.likeliest.probabilities[rows]).sum(axis=1)
        return found


def _kinds(members: Any, classes: Float64) -> Float64:
    """Probabilities of classes [K, classes] summed up to kinds, [K, kinds]."""
    found: Float64 = (members @ classes.T).T
    return found


def _apart(ground: _Ground, chosen: list[int | None]) -> list[str | None]:
    """The name of each cluster by its kind, made different where several have one kind."""
    said = ground.vocabulary.said
    names = [None if place is None else said[place] for place in chosen]
    places = list(dict.fromkeys(place for place in chosen if place is not None))
    for place in places:
        group = [cluster for cluster, one in enumerate(chosen) if one == place]
        if len(group) > 1:
            _tell_apart(ground, place, group, places, names)
    return names


def _tell_apart(ground: _Ground, place: int, group: list[int], chosen: list[int], names: list[str | None]) -> None:
    """Name the clusters of a group by what each is among them: *boat: lifeboat*, *boat: speedboat*, else by numbers.

    The strongest keeps the plain word where nothing tells it from the others. What is another cluster's name already
    (`chosen`) tells nobody apart.
    """
    said = ground.vocabulary.said
    below = np.array([place in ground.vocabulary.ancestors(one)[1:] for one in range(len(said))])
    own = ground.own[group]
    among = strengths(own, (own.sum(axis=0) - own) / (len(group) - 1) + PRIOR / len(said))
    # What is no kind of the word has to be strong enough for a name of its own: dog: sofa
    fit = below | (ground.strength[group] >= LEAST_STRENGTH)
    fit &= ground.sayable
    fit[:, [*chosen, *ground.vocabulary.ancestors(place)]] = False
    among = np.where(fit & (among >= LEAST_APART), among, 0.0)
    left, used = set(range(len(group))), set[int]()
    for flat in np.argsort(-among, axis=None, kind="stable").tolist():
        row, kind = divmod(flat, among.shape[1])
        if among[row, kind] <= 0:
            break
        if row in left and kind not in used:
            names[group[row]] = f"{said[place]}: {said[kind]}"
            used.add(kind)
            left.remove(row)
    ranked = sorted(left, key=lambda row: (-ground.strength[group[row], place], row))
    for number, row in enumerate(ranked, 1):
        names[group[row]] = said[place] if number == 1 else f"{said[place]} ({number})"


def _told(ground: _Ground, cluster: int, chosen: int | None, name: str | None) -> ClusterGuess:
    strength = np.where(ground.sayable, ground.strength[cluster], 0.0)
    best = [place for place in np.argsort(-strength, kind="stable").tolist()[: OTHERS + 1] if place != chosen]
    others = tuple(
        Guess(ground.vocabulary.said[place], ground.vocabulary.kinds[place].wnid or None, _rounded(strength[place]))
        for place in best[:OTHERS]
        if strength[place] > 0
    )
    wnid = None if chosen is None else ground.vocabulary.kinds[chosen].wnid or None
    return ClusterGuess(cluster, name, 0.0 if chosen is None else _rounded(strength[chosen]), wnid, others)


def _rounded(value: float) -> float:
    return round(float(value), 4)
