"""`head.safetensors` of a model: the classifier that the encoder came with.

It gives probabilities of known classes from features as they are stored, so that no image is looked at again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from shoal import atomic, foreign
from shoal.embeddings import Float32, normalise_rows
from shoal.encoder.classifier import Layer
from shoal.errors import RunError
from shoal.foreign import Tensors
from shoal.names import likeliest
from shoal.names.guesses import Word
from shoal.names.kinds import LISTS, OWN, Vocabulary, own_vocabulary, vocabulary
from shoal.names.likeliest import Likeliest
from shoal.names.own_words import MOST
from shoal.runfiles import HEAD
from shoal.typed import Between, Most, OneOf

FORMAT: Final = 1
KEY: Final = "shoal"  # of the metadata
POOLED, MAP, LOGITS, PROBABILITIES, UNIT = "pooled", "map", "logits", "probabilities", "unit"
TAKES: Final = (POOLED, MAP, LOGITS, PROBABILITIES, UNIT)


@dataclass(frozen=True, slots=True)
class _Version:
    format_version: Annotated[int, Between(1)]


@dataclass(frozen=True, slots=True)
class _Told(_Version):
    """What the file's metadata tell."""

    vocabulary: Annotated[str, OneOf((*(name for name, _, _ in LISTS.values()), OWN))]
    takes: Annotated[str, OneOf(TAKES)]
    words: Annotated[tuple[Word, ...], Most(MOST)] = ()  # of a person's own

    @property
    def classes(self) -> int:
        if self.vocabulary == OWN:
            return len(self.words)
        return next(classes for classes, (name, _, _) in LISTS.items() if name == self.vocabulary)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """How features tell classes, and in which words.

    Attributes:
        classes: how many; they are those of ImageNet's list of that length, in timm's order, or `words`.
        takes: what the features are: `pooled` what `layer` takes, `map` its values at every place one after the other
            (their mean is pooled), `logits` or `probabilities` the classifier's own output, which need no layer, `unit`
            what `layer` takes at unit length.
        words: a person's own, which take the place of a list's.
    """

    classes: int
    takes: str
    layer: Layer | None
    words: tuple[str, ...] = ()

    def likeliest(self, features: Float32) -> Likeliest:
        """The likeliest classes of features [n, d] as they are stored."""
        if self.takes == PROBABILITIES:
            return likeliest.of_probabilities([features])
        if self.layer is None:
            return likeliest.of_logits([features])
        if self.takes == UNIT:
            features = normalise_rows(np.array(features, np.float32))
        if self.takes == MAP:
            features = features.reshape(len(features), -1, self.layer.weight.shape[1]).mean(axis=1)
        return likeliest.of_features([features], self.layer)

    def save(self, target: Path) -> None:
        """Write it as `head.safetensors`: weight [classes, d] and bias [classes], where it has them."""
        tensors = {} if self.layer is None else {"weight": self.layer.weight, "bias": self.layer.bias}
        told = {
            "format_version": FORMAT,
            "vocabulary": OWN if self.words else LISTS[self.classes][0],
            "takes": self.takes,
        }
        more = {"words": self.words} if self.words else {}
        with atomic.replacing(target) as temporary:
            save_file(tensors, temporary, {KEY: json.dumps(told | more, sort_keys=True)})

    @classmethod
    def read(cls, path: Path, dim: int) -> Classifier | None:
        """The classifier of a model whose features have `dim` numbers; None if it has none.

        Raises:
            RunError: it is not readable, of a newer format, or does not take such features.
        """
        told = _told(path)
        if told is None:
            return None
        if told.takes in (LOGITS, PROBABILITIES):
            if dim != told.classes:
                raise RunError(f"{path} is of {told.classes:,} classes, but features have {dim:,} numbers")
            return cls(told.classes, told.takes, None)
        file = Tensors.of(path, "classifier")
        _, d = file.shape("weight", (told.classes, dim if told.takes in (POOLED, UNIT) else None))
        file.shape("bias", (told.classes,))
        if dim % d:
            raise RunError(f"{path}: tensor 'weight' takes {d:,} numbers; expected a part of {dim:,}")
        tensors = file.read("weight", "bias")
        return cls(told.classes, told.takes, Layer(tensors["weight"], tensors["bias"]), told.words)


def words_of(path: Path) -> Vocabulary | None:
    """The words of the classifier in the file `path`; None if there is none. Raises RunError if it is not readable."""
    told = _told(path)
    if told is None:
        return None
    return own_vocabulary(told.words) if told.vocabulary == OWN else vocabulary(told.classes)


def _told(path: Path) -> _Told | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} holds no readable classifier: {' '.join(str(error).split())[:200]}") from error
    if KEY not in metadata:
        raise RunError(f"{path} does not tell which classifier it holds; expected the key {KEY!r} in its metadata")
    values = foreign.parse_json(metadata[KEY], path)
    with foreign.telling_of(path):
        version = foreign.READER.read(_Version, values, HEAD).format_version
        if version > FORMAT:
            raise RunError(
                f"{path}: format_version has value {version}; expected at most {FORMAT}: a newer Shoal made it"
            )
        return foreign.READER.read(_Told, values, HEAD)
