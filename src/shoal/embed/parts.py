"""Writing `embeddings/`: parts of fixed id ranges, each with a record of what is in it, so that a killed run goes on.

Beside `part-00000.npy` lies `part-00000.json`: the encoder and, for each row that was tried, the content hash of its
image and why it failed, if it did, or what decoding notes of it. A row is reused when its image's content and the
encoder are the same, whether a killed run left it or the run has it from before; a part that needs nothing new is taken
over as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import atomic, foreign
from shoal.embed.batches import EmbeddedBatch, Failure
from shoal.embeddings import Ids, part_count, part_of, part_range, read_array
from shoal.encoder.spec import EncoderSpec
from shoal.images.decode import VERSION
from shoal.rundir import RunDir, digest_of
from shoal.typed import unfit

Of = TypeVar("Of")
MANIFEST_FORMAT = 1
FOLDER = "embeddings"
Outcome = tuple[str, Failure | None, str | None]  # content hash, why it has no features, what decoding notes of it


@dataclass(slots=True)
class PartsWriter:
    """Fills a run's `embeddings/` part by part: `plan`, then `add` batches in the planned order, then `finish`.

    `rows`: one for each image id. Parts of another encoder count for nothing.
    """

    run_dir: RunDir
    rows: int
    dim: int
    dtype: str
    encoder: str  # digest of what gives the features
    before_writing: Callable[[], None] = lambda: None  # raises if nothing may be written any more
    failures: dict[int, Failure] = field(default_factory=dict)  # by image id, of this run and of earlier ones
    notes: dict[int, str] = field(default_factory=dict)  # likewise
    _ids: Ids = field(default_factory=lambda: np.empty(0, np.int64))  # of the images that are wanted, rising
    _contents: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))  # and their content hashes
    _missing: dict[int, int] = field(default_factory=dict)  # for each part: how many images are still to come
    _open: _Part | None = None

    @classmethod
    def open(
        cls, run_dir: RunDir, rows: int, spec: EncoderSpec, before_writing: Callable[[], None] = lambda: None
    ) -> PartsWriter:
        """For features of an encoder; parts of an earlier way to decode count for nothing either."""
        # Probabilities reach far below what float16 can tell apart; other features do not need more than it.
        dtype = "float32" if spec.features in ("logits", "probabilities") else "float16"
        return cls(run_dir, rows, spec.dim, dtype, digest_of(spec.to_json(), VERSION), before_writing)

    @property
    def row_bytes(self) -> int:
        return self.dim * np.dtype(self.dtype).itemsize

    def plan(self, ids: Ids, contents: pa.Array | pa.ChunkedArray, numbers: Iterable[int] | None = None) -> Ids:
        """Compare the content hashes of images, by rising id, with what is on disk; return the ids to embed, rising.

        Args:
            numbers: of the parts that the images are of; None: of all.
        """
        self._ids, self._contents = ids, contents
        missing: list[Ids] = []
        for number in range(part_count(self.rows)) if numbers is None else numbers:
            outcomes, wanted = self._find(number).outcomes, self._wanted(number)
            todo = [image for image, sha256 in wanted.items() if not _is_settled(outcomes.get(image), sha256)]
            self._missing[number] = len(todo)
            missing.append(np.array(todo, np.int64))
        return np.concatenate(missing) if missing else np.empty(0, np.int64)

    def add(self, batch: EmbeddedBatch) -> None:
        """Take the next batch; a part is written as soon as its last image is there."""
        number = int(part_of(np.array(batch.ids[:1]))[0])
        part = self._part(number)
        for row, image in enumerate(batch.ids):
            part.values[image - part.start] = batch.features[row]
            part.outcomes[image] = (part.wanted[image], batch.failures.get(image), batch.notes.get(image))
        self._missing[number] -= len(batch.ids)
        if self._missing[number] == 0:
            self.before_writing()
            self._close(part)

    def finish(self) -> str:
        """Take over or tidy parts that needed no embedding, declare the whole finished, and return its digest."""
        numbers = range(part_count(self.rows))
        digests = [self._settle(number) for number in numbers]
        ranges = [part_range(number, self.rows) for number in numbers]
        parts = [
            {"file": _file_names(number)[0], "start": ids.start, "stop": ids.stop}
            for number, ids in zip(numbers, ranges, strict=True)
        ]
        manifest = {
            "format_version": MANIFEST_FORMAT,
            "rows": self.rows,
            "dim": self.dim,
            "dtype": self.dtype,
            "normalised": False,
            "encoder": self.encoder,
            "parts": parts,
        }
        atomic.write_json(self.run_dir.new(f"{FOLDER}/manifest.json"), manifest)
        return digest_of(self.encoder, digests)

    # -- parts on disk --------------------------------------------------------------------------------------------

    def _part(self, number: int) -> _Part:
        if self._open is None or self._open.number != number:
            self._open = self._load(number)
        return self._open

    def _wanted(self, number: int) -> dict[int, str]:
        """Content hashes of a part's images by id."""
        ids = part_range(number, self.rows)
        start, stop = np.searchsorted(self._ids, [ids.start, ids.stop]).tolist()
        contents = self._contents[start:stop].to_pylist()
        return dict(zip(self._ids[start:stop].tolist(), contents, strict=True))

    def _load(self, number: int) -> _Part:
        ids = part_range(number, self.rows)
        found = self._find(number)
        values = np.zeros((len(ids), self.dim), dtype=self.dtype)
        part = _Part(number, ids.start, values, found.outcomes, self._wanted(number))
        if part.outcomes:
            earlier = self._values(found)
            part.values[: len(earlier)] = earlier[: len(ids)]
        return part

    def _settle(self, number: int) -> str:
        """Have a part hold exactly the wanted images and rows; return the digest of its record."""
        found, wanted = self._find(number), self._wanted(number)
        kept = {image for image, (_, failure, _) in found.outcomes.items() if image in wanted or failure is not None}
        rows = len(self._values(found)) if found.outcomes else -1
        if kept != set(found.outcomes) or rows != len(part_range(number, self.rows)):
            self._close(self._load(number))
            found = self._find(number)
        elif found.is_earlier:
            for name in _file_names(number):
                self.run_dir.keep(f"{FOLDER}/{name}")
        else:
            for name in _file_names(number):
                self.run_dir.new(f"{FOLDER}/{name}")  # a killed run left it, or this one wrote it
        self.failures |= {image: failure for image, (_, failure, _) in found.outcomes.items() if failure is not None}
        self.notes |= {image: note for image, (_, _, note) in found.outcomes.items() if note is not None}
        return digest_of(sorted((image, sha256) for image, (sha256, *_) in found.outcomes.items()))

    def _close(self, part: _Part) -> None:
        """Write a part. Values first, and no record while they change: a record on disk always tells the truth."""
        self._open = None
        for image in [
            image for image, (_, failure, _) in part.outcomes.items() if image not in part.wanted and failure is None
        ]:
            part.values[image - part.start] = 0  # vanished, or a duplicate now: its row is empty
            del part.outcomes[image]
        values, record = (self.run_dir.new(f"{FOLDER}/{name}") for name in _file_names(part.number))
        record.unlink(missing_ok=True)
        atomic.write_array(values, part.values)
        rows = [
            [image, sha256, *((failure.kind, failure.reason) if failure else (None, note) if note else ())]
            for image, (sha256, failure, note) in sorted(part.outcomes.items())
        ]
        atomic.write_bytes(record, json.dumps({"encoder": self.encoder, "rows": rows}).encode())

    def _values(self, found: _Found) -> npt.NDArray[Any]:
        return read_array(found.values, (None, self.dim), np.dtype(self.dtype))

    def _find(self, number: int) -> _Found:
        """What there is of a part: what was written lately, else what the run has from before."""
        values, record = (f"{FOLDER}/{name}" for name in _file_names(number))
        earlier = self.run_dir.earlier
        for file, of_it, is_earlier in (
            (self.run_dir.unfinished(values), self.run_dir.unfinished(record), False),
            (earlier.path(values), earlier.path(record), True),
        ):
            try:
                told = foreign.read_json(of_it, _Record)
            except FileNotFoundError:
                continue
            if told.encoder == self.encoder:
                with foreign.telling_of(of_it):
                    return _Found(file, told.outcomes(), is_earlier)
        return _Found(self.run_dir.unfinished(values), {}, False)


@dataclass(frozen=True, slots=True)
class _Record:
    """Beside a part: its encoder and, of each image that was tried, id, content hash, and how and why it failed.

    Of one that did not fail there may be a note of how it was decoded.
    """

    encoder: str
    rows: Any  # as many as there are images: `outcomes` looks at them

    def outcomes(self) -> dict[int, Outcome]:
        """Raises UnfitError if they are none."""
        if not isinstance(self.rows, list):
            raise unfit("rows", self.rows, "a list")
        return dict(map(_outcome, self.rows))


def _outcome(row: Any) -> tuple[int, Outcome]:
    match row:
        case [int(image), str(sha256)] if image >= 0:
            return image, (sha256, None, None)
        case [int(image), str(sha256), None, str(note)] if image >= 0:
            return image, (sha256, None, note)
        case [int(image), str(sha256), "read" | "decode" as kind, str(reason)] if image >= 0:
            return image, (sha256, Failure(kind, reason), None)
    raise unfit("a row", row, "id, content hash and, of a failure, how and why, or a note")


def _file_names(number: int) -> tuple[str, str]:
    """Of a part: its values, and its record."""
    return f"part-{number:05d}.npy", f"part-{number:05d}.json"


@dataclass(frozen=True, slots=True)
class _Found:
    """A part on disk: its values, what they are, and whether the run has it from before."""

    values: Path
    outcomes: dict[int, Outcome]
    is_earlier: bool


@dataclass(slots=True)
class _Part:
    """One part in memory: rows of ids from `start` on."""

    number: int
    start: int
    values: npt.NDArray[Any]  # [rows, dim]
    outcomes: dict[int, Outcome]
    wanted: dict[int, str]  # content hash by image id


def among(ids: pa.ChunkedArray, found: dict[int, Of]) -> dict[int, Of]:
    """What was found of these images."""
    known = np.fromiter(found, np.int64, len(found))
    is_in = pc.is_in(pa.array(known), value_set=ids).to_numpy(zero_copy_only=False)
    return {image: found[image] for image in known[is_in].tolist()}


def _is_settled(outcome: Outcome | None, sha256: str) -> bool:
    """Is there nothing left to do? A failure to read may pass, so it is tried again."""
    if outcome is None:
        return False
    known, failure, _ = outcome
    return known == sha256 and (failure is None or failure.kind == "decode")
