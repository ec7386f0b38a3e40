"""How often the names that were guessed for clusters say what labels say; labels that are no words count nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shoal.evaluate.agreement import Clusters, Names
from shoal.names.agreement import agrees
from shoal.names.guesses_file import Guesses
from shoal.names.kinds import Vocabulary
from shoal.wording import counted


@dataclass(frozen=True, slots=True)
class NamesAgreement:
    """Names beside labels that are WordNet ids or words. They agree if one is the other, or a kind of it.

    Attributes:
        n: images with such a label; the rest are shares of them.
        named: in clusters with a name that was guessed.
        with_most: in clusters whose name agrees with the label that most of these images there have.
        with_own: whose cluster's name agrees with their own label.
    """

    n: int
    named: float
    with_most: float
    with_own: float

    def text(self) -> str:
        """A line for a terminal."""
        return (
            f"guessed names: of {counted(self.n, 'image')} whose labels are words, {self.named:.1%} are in a cluster "
            f"that was given a name; the name fits the cluster's most frequent label for {self.with_most:.1%} of them, "
            f"their own for {self.with_own:.1%}"
        )


def names_agreement(labels: Names, clusters: Clusters, guesses: Guesses, words: Vocabulary) -> NamesAgreement | None:
    """Compare names with the labels [n] of images in `clusters` [n]; None if no label is a word.

    Args:
        words: the vocabulary that the guesses are of.
    """
    wnids = {one.cluster: one.wnid for one in guesses.medium}
    n = named = with_most = with_own = 0
    for cluster in np.unique(clusters).tolist():
        wnid = wnids.get(cluster)
        here, counts = np.unique(labels[clusters == cluster], return_counts=True)
        said = dict(zip(here.tolist(), counts.tolist(), strict=True))
        fits = {label: agrees(wnid or words.kinds[0].wnid, label, words) for label in said}
        known = {label: count for label, count in said.items() if fits[label] is not None}
        n += sum(known.values())
        if wnid is None or not known:
            continue
        named += sum(known.values())
        with_most += sum(known.values()) * bool(fits[_most_frequent(known)])
        with_own += sum(count for label, count in known.items() if fits[label])
    return NamesAgreement(n, named / n, with_most / n, with_own / n) if n else None


def _most_frequent(counts: Mapping[str, int]) -> str:
    return max(counts, key=lambda label: counts[label])
