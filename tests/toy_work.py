"""Work in pieces that is no stage's: workers of a Ray cluster import it from here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import WorkError


@dataclass(frozen=True, slots=True)
class Toy:
    """Tells the squares of pieces.

    Args:
        folder: where each worker leaves a file called by its process.
        seconds: that a piece takes, with no work.
        deadly: pieces whose worker dies of them. refused: such as fail.
        has_own_kind: is each process of a kind of its own?
    """

    folder: str
    seconds: float = 0.0
    deadly: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    has_own_kind: bool = False
    device: str = "cpu"

    def start(self) -> ToyWorker:
        (Path(self.folder) / str(os.getpid())).touch()
        return ToyWorker(self)

    def portable(self, device: str) -> Toy:
        return self


@dataclass(frozen=True, slots=True)
class ToyWorker:
    toy: Toy

    @property
    def kind(self) -> Mapping[str, str]:
        return {"engine": "toy", **({"process": str(os.getpid())} if self.toy.has_own_kind else {})}

    def do(self, pieces: Iterable[int]) -> Iterator[int]:
        for piece in pieces:
            if piece in self.toy.deadly:
                os.abort()
            if piece in self.toy.refused:
                raise WorkError(f"piece {piece} is refused")
            time.sleep(self.toy.seconds)
            yield piece * piece
