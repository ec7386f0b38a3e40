"""Embedding as work in pieces: a piece is the number of a part, and done when that part's files are there."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import lock, records
from shoal.embed.batches import embed_batches
from shoal.embed.parts import PartsWriter
from shoal.embeddings import part_of, part_range
from shoal.encoder.engines import Engine
from shoal.encoder.prepared import PreparedEncoder, prepare_saved
from shoal.encoder.spec import CONFIG, EncoderSpec, ModelConfig
from shoal.errors import RunError
from shoal.images.reading import ImageReader
from shoal.kind import kind_by
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_of
from shoal.runfiles import LOCK, RUN_JSON
from shoal.unfinished import unfinished_run

COLUMNS: Final = ["id", "uri", "sha256", "status"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """So many images were embedded, by an engine of that name."""

    images: int
    engine: str


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a run, by the process that writes it. The encoder lies in the run's model/ already."""

    run_dir: RunDir
    prepared: PreparedEncoder
    asked_device: str

    @property
    def device(self) -> str:
        return "cpu" if self.prepared.spec.is_onnx else self.asked_device

    def start(self) -> PartsWorker:
        return PartsWorker(self.run_dir, self.prepared.spec, self.prepared.engine(self.device))

    def portable(self, device: str) -> PartsElsewhere:
        root, owner = self.run_dir.root.absolute(), lock.Owner.this_process()
        return PartsElsewhere(str(root), digest_of(self.prepared.spec.to_json()), device, owner)


@dataclass(frozen=True, slots=True)
class PartsElsewhere:
    """The same by other processes, as long as the run is still written by who sent them.

    What outlives its writer might else write beside the next one, of other images.
    """

    root: str
    encoder: str  # digest: what else was made ready is of no use
    device: str
    writer: lock.Owner

    def start(self) -> PartsWorker:
        root = Path(self.root)
        if not (root / RUN_JSON).is_file():
            raise RunError(
                f"{root} is not there on {socket.gethostname()}; expected --out on a path that all machines see"
            )
        run_dir = unfinished_run(root)
        spec = ModelConfig.read(run_dir.unfinished(f"model/{CONFIG}")).encoder
        if spec is None or digest_of(spec.to_json()) != self.encoder:
            raise RunError(f"{root} is of another encoder by now; run the same shoal cluster again")
        prepared = prepare_saved(spec, run_dir.unfinished(f"model/{spec.file}"), Progress())
        held = partial(lock.require_held, root / LOCK, self.writer)
        return PartsWorker(run_dir, spec, prepared.engine(self.device), held)

    def portable(self, device: str) -> PartsElsewhere:
        return self


class PartsWorker:
    """Embeds parts with an engine that is running."""

    def __init__(
        self, run_dir: RunDir, spec: EncoderSpec, engine: Engine, before_writing: partial[None] | None = None
    ) -> None:
        self._run_dir, self._spec, self._engine = run_dir, spec, engine
        self._before_writing = before_writing or (lambda: None)
        self._reader = ImageReader(run_dir.spool)

    @property
    def kind(self) -> Mapping[str, str]:
        return kind_by(self._engine.name)

    def do(self, pieces: Iterable[int]) -> Iterator[Embedded]:
        """Embed what is missing of the parts with these numbers, and tell of each batch."""
        rows = records.count_rows(self._run_dir.listing)
        writers: dict[int, PartsWriter] = {}

        def batches() -> Iterator[tuple[list[int], list[str]]]:
            for number in pieces:
                ids = part_range(number, rows)
                images = self._run_dir.read_listing(COLUMNS, ids)
                usable = images.filter(pc.equal(images["status"], records.OK))
                writers[number] = PartsWriter.open(self._run_dir, rows, self._spec, self._before_writing)
                missing = writers[number].plan(usable["id"].to_numpy(), usable["sha256"], [number])
                for start in range(0, len(missing), self._engine.batch_size):
                    some = missing[start : start + self._engine.batch_size]
                    yield some.tolist(), images["uri"].take(pa.array(some - ids.start)).to_pylist()

        for batch in embed_batches(self._engine, self._spec, self._reader, batches()):
            number = int(part_of(np.array(batch.ids[:1]))[0])
            for earlier in [known for known in writers if known < number]:
                del writers[earlier]  # it is written
            writers[number].add(batch)
            yield Embedded(len(batch.ids), self._engine.name)
