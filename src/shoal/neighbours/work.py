"""The passes of an approximate search as work in pieces: a piece is done when its file is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

from shoal import blas, records
from shoal.cores import core_count
from shoal.embeddings import EmbeddingStore, Ids
from shoal.errors import RunError
from shoal.executor import Executor
from shoal.kind import kind_by
from shoal.neighbours.approximate import Search
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.unfinished import unfinished_run

MOST_THREADS: Final = 8  # each needs some 200 MB
Pass = Literal["place", "find"]


@dataclass(frozen=True, slots=True, eq=False)
class Passing:
    """A pass of a search, by the process that writes the run."""

    search: Search
    root: Path
    name: Pass
    device: str = "cpu"

    def start(self) -> PassWorker:
        return PassWorker(_piece_of(self.search, self.name))

    def portable(self, device: str) -> PassingElsewhere:
        return PassingElsewhere(str(self.root.absolute()), str(self.search.folder.absolute()), self.search.k, self.name)


@dataclass(frozen=True, slots=True)
class PassingElsewhere:
    """The same by other processes that see the run."""

    root: str
    folder: str
    k: int
    name: Pass
    device: str = "cpu"

    def start(self) -> PassWorker:
        run_dir, folder = unfinished_run(Path(self.root)), Path(self.folder)
        if not folder.is_dir():
            raise RunError(f"{folder} is not there; run the same shoal cluster again")
        search = Search(folder, EmbeddingStore.open(run_dir.embeddings), usable(run_dir), self.k)
        return PassWorker(_piece_of(search, self.name))

    def portable(self, device: str) -> PassingElsewhere:
        return self


@dataclass(frozen=True, slots=True)
class PassWorker:
    """Makes pieces of a pass."""

    make: Callable[[int], None]
    threads: int | None = None  # by default one for each core, up to 8; changes the time only

    @property
    def kind(self) -> Mapping[str, str]:
        return kind_by("numpy")

    def do(self, pieces: Iterable[int]) -> Iterator[int]:
        """Make the pieces with these numbers, some at a time, and tell of each."""
        threads = self.threads or min(core_count(), MOST_THREADS)
        # With several threads for one product BLAS rounds otherwise.
        with blas.single(), ThreadPoolExecutor(threads) as pool:
            try:
                for _ in pool.map(self.make, pieces):
                    yield 1
            except BaseException:  # an error, an interruption, or a caller that wants no more
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def search_by(executor: Executor, search: Search, root: Path, progress: Progress) -> None:
    """Do all of a search that is not done yet.

    Args:
        root: of the run that it is for.
        progress: shown a bar of pieces.

    Raises:
        DiskSpaceError: the reduced rows and the pieces would not fit.
        RunError: the embeddings are not readable, or not finite.
        Whatever the executor raises.
    """
    search.require_room()
    with progress.task("Neighbours", len(search.places()) + len(search.finds()), unit="pieces") as task:
        with blas.single():
            search.make_plan()
        with closing(executor.run(Passing(search, root, "place"), search.places())) as done:
            for count in done:
                task.advance(count)
        with blas.single():
            search.join()
        with closing(executor.run(Passing(search, root, "find"), search.finds())) as done:
            for count in done:
                task.advance(count)


def usable(run_dir: RunDir) -> Ids:
    """Ids of the images that are ok, rising."""
    images = run_dir.read_images(["id", "status"])
    return np.flatnonzero(images["status"].to_numpy(zero_copy_only=False) == records.OK).astype(np.int64)


def _piece_of(search: Search, name: Pass) -> Callable[[int], None]:
    return partial(search.place, search.plan()) if name == "place" else partial(search.find, search.finder())
