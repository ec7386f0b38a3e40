"""Blocks of a table, made by many, as files in a folder beside the table that they become.

Who is killed goes on from those that are there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from shoal import atomic, foreign, lock
from shoal.errors import RequestError
from shoal.executor import Executor, Work
from shoal.progress import Progress
from shoal.typed import Most

PLAN: Final = "plan.json"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the blocks are of."""

    key: Annotated[str, Most(64)]


@dataclass(frozen=True, slots=True)
class BlockFolder:
    """The folder."""

    path: Path

    @classmethod
    def beside(cls, target: Path) -> BlockFolder:
        """That of a table that is to be written to `target`."""
        return cls(target.absolute().with_name(f"{target.name}.parts"))

    @classmethod
    def of_others(cls, path: str, option: str) -> BlockFolder:
        """One that another process settled. Raises RequestError if it is not seen here; `option` named its place."""
        if not (Path(path) / PLAN).is_file():
            raise RequestError(
                f"{path} is not there on {socket.gethostname()}; expected {option} on a path that all machines see"
            )
        return cls(Path(path))

    def file(self, number: int) -> Path:
        """Where a block lies, or will."""
        return self.path / f"block-{number:06d}.parquet"

    @contextmanager
    def alone(self, of_what: str) -> Iterator[None]:
        """Be the only one who fills it. Raises RequestError if something else lies there."""
        if self.path.exists() and not (self.path / PLAN).is_file() and any(self.path.iterdir()):
            raise RequestError(f"{self.path} is there already, and holds no blocks of {of_what}; delete it or move it")
        self.path.mkdir(parents=True, exist_ok=True)
        with lock.alone(self.path):
            yield

    def keep(self, key: str) -> None:
        """Keep the blocks that were made for this key, a digest; others go."""
        known = foreign.read_json(self.path / PLAN, _Plan).key if (self.path / PLAN).is_file() else None
        if known != key:
            for file in self.path.glob("block-*.parquet"):
                file.unlink()
            atomic.write_json(self.path / PLAN, {"key": key})

    def make(self, work: Work[int, int], count: int, rows: int, executor: Executor, told: tuple[str, Progress]) -> None:
        """Have blocks 0 to `count` - 1 made, those that are not there.

        Args:
            work: its pieces are blocks, each written to `file`; it tells how many rows have come.
            rows: of a block, at most.
            told: what is done, and where it is shown.
        """
        missing = [number for number in range(count) if not self.file(number).is_file()]
        name, progress = told
        if missing:
            with progress.task(name, len(missing) * rows) as task, closing(executor.run(work, missing)) as done:
                for some in done:
                    task.advance(some)

    def remove(self, count: int, *others: Path) -> None:
        """Remove the blocks, what else was put there, and the folder."""
        for file in (*map(self.file, range(count)), *others, self.path / PLAN):
            file.unlink(missing_ok=True)
        self.path.rmdir()
