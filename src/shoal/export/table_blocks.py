"""A run's table as blocks: here one after the other, by other processes as work in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from shoal import records
from shoal.blocks import BlockFolder
from shoal.errors import RunError
from shoal.executor import Executor
from shoal.export.rows import ClusteredRun
from shoal.export.tables import PARQUET_ROWS, table
from shoal.export.transfer import writing_errors
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_file, digest_of


@dataclass(frozen=True, slots=True)
class TableBlocks:
    """Blocks of the table of the run at `root`, as files of `folder`."""

    root: str
    of: str  # digest of what the table tells: it may change before a worker opens the run
    folder: str
    device: str = "cpu"

    def start(self) -> TableWorker:
        folder = BlockFolder.of_others(self.folder, "DEST")
        run = ClusteredRun.open(RunDir.open(Path(self.root)))
        if digest_of_table(run) != self.of:
            raise RunError(f"{self.root} has changed meanwhile; run the same shoal export again")
        return TableWorker(run, folder)

    def portable(self, device: str) -> TableBlocks:
        return self


@dataclass(frozen=True, slots=True)
class TableWorker:
    """Writes blocks of a run that is open."""

    run: ClusteredRun
    folder: BlockFolder

    @property
    def kind(self) -> Mapping[str, str]:
        return {"engine": "pyarrow", **{name: metadata.version(name) for name in ("shoal", "pyarrow")}}

    def do(self, pieces: Iterable[int]) -> Iterator[int]:
        """Write the blocks with these numbers, and tell how many rows each has."""
        for number in pieces:
            block = _block(self.run, number)
            records.write_table(self.folder.file(number), block)
            yield block.num_rows


@contextmanager
def table_blocks(run: ClusteredRun, dest: Path, executor: Executor, progress: Progress) -> Iterator[Iterator[pa.Table]]:
    """The table of a run, PARQUET_ROWS rows at a time; `dest` is where it will be.

    What others made for it is removed when the caller is done with it without an error.

    Raises:
        RequestError: something else lies where the blocks would.
        Whatever the executor raises.
    """
    count = max(1, -(-len(run) // PARQUET_ROWS))
    if executor.is_here:
        yield (_block(run, number) for number in range(count))
        return
    folder = BlockFolder.beside(dest)
    work = TableBlocks(str(run.run_dir.root.absolute()), digest_of_table(run), str(folder.path))
    with writing_errors(folder.path), folder.alone("an export"):
        folder.keep(work.of)
        folder.make(work, count, PARQUET_ROWS, executor, ("Exporting", progress))
        yield (records.read_table(folder.file(number)) for number in range(count))
        folder.remove(count)


def digest_of_table(run: ClusteredRun) -> str:
    """Of all that the table tells."""
    tables = [digest_file(file) for file in (run.run_dir.images, run.run_dir.clusters)]
    names = sorted((number, shown.name, shown.strength) for number, shown in run.shown.items())
    return digest_of(run.corrected.digest, tables, names)


def _block(run: ClusteredRun, number: int) -> pa.Table:
    first = number * PARQUET_ROWS
    return table(run.rows(range(first, min(first + PARQUET_ROWS, len(run)))))
