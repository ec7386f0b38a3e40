"""What a query asks of a text tower: `a dog on snow -"a lead"`, all of it one text but for what has a minus."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.names.words import TOKEN


@dataclass(frozen=True, slots=True)
class FreeText:
    """A text, and texts that must not fit; `text` is empty where there is nothing to look for."""

    text: str
    minus: tuple[str, ...]


def parse(query: str) -> FreeText:
    """Words as they are; -word and -"several words" what must not be shown. Quotes mean nothing else."""
    wanted: list[str] = []
    unwanted: list[str] = []
    for minus, quoted, plain in TOKEN.findall(query):
        words = " ".join((quoted or plain).split())
        if words.strip("-"):
            (unwanted if minus else wanted).append(words)
    return FreeText(" ".join(wanted), tuple(unwanted))
