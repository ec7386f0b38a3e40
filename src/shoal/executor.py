"""Work in pieces, and who does it: a stage says what its pieces are and how they are done, an executor where.

What a piece comes to lies in files of the run, which tell by themselves whether they are finished. So pieces may be
done in any order, by any process that sees the run, and once more when whoever had one died.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

P = TypeVar("P")
R = TypeVar("R")
P_contra = TypeVar("P_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol[P_contra, R_co]):
    """Whoever does pieces, with what that needs (an encoder, for one) made ready."""

    @property
    def kind(self) -> Mapping[str, str]:
        """What its bytes depend on besides the piece, by name: processor, versions. Two of one kind write the same."""

    def do(self, pieces: Iterable[P_contra]) -> Iterator[R_co]:
        """Do pieces, several at a time where that is quicker, and tell of what is done, in order."""


class Work(Protocol[P_contra, R_co]):
    """How the pieces of some work are done."""

    @property
    def device(self) -> str:
        """What was asked for as such: auto, cpu, cuda or mps; cpu where nothing is computed that a GPU helps with."""

    def __hash__(self) -> int:
        """Equal for equal work, by which a process knows what it has made ready."""

    def start(self) -> Worker[P_contra, R_co]:
        """Make ready what all pieces need: once in a process."""

    def portable(self, device: str) -> Work[P_contra, R_co]:
        """The same for other processes, on `device`: small, to be pickled, and equal if and only if it is the same."""


class Executor(Protocol):
    """Has pieces done."""

    @property
    def is_here(self) -> bool:
        """In this process, so that what it needs can be looked for before any work."""

    def run(self, work: Work[P, R], pieces: Sequence[P]) -> Generator[R, None, None]:
        """Have all pieces done, in any order, and yield what workers tell as they do.

        Who ends before closes it, and then nobody works any more.

        Raises:
            Whatever a worker raises.
        """


class Here:
    """Does the pieces in this process, in their order."""

    is_here = True

    def run(self, work: Work[P, R], pieces: Sequence[P]) -> Generator[R, None, None]:
        yield from work.start().do(pieces)


HERE: Final = Here()
