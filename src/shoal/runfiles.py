"""The files of a run by name, wherever they lie: at its root, in the generation that a reader holds, or in a draft."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from shoal import atomic, foreign, generations
from shoal.errors import RunError
from shoal.generations import Generation, Number
from shoal.typed import Between, Most

FORMAT_VERSION: Final = 2  # 1: no generations, all files at the root
RUN_JSON: Final = "run.json"
UNFINISHED_RUN_JSON: Final = "run.json.part"
LOCK: Final = "lock"
CACHE: Final = "cache"  # may be deleted at any time
LISTING: Final = "own/listing.parquet"  # the index stage's own table, which images.parquet is made from
ORDER: Final = "own/order.parquet"  # likewise, where embeddings are given: what the source lists, in its order
IN_MEMORY: Final = "an array"  # how run.json's word for embeddings begins that are no file
NO_BACKBONE: Final = "none: embeddings were given"  # what people read where a backbone's name is else
PICTURES: Final = "pictures"  # folder of the pictures that a program gave, in tables called by what they hold
IN_RUN: Final = "run://"  # how the URIs of what lies in the run itself begin; `RunDir` says where that is
LABELS: Final = "labels.parquet"
HEAD: Final = "head.safetensors"  # of a model: the classifier that the encoder came with
TEXT_TOWER: Final = "text.safetensors"  # of a run's model: by which its images are found by free text
GUESSES: Final = "guesses.json"  # of a model: what its clusters may show
KNN: Final = "report/knn.jsonl"  # how an encoder's neighbours tell labels, while it is trained


Words = Annotated[str, Most(1 << 16)]
Share = Annotated[float, Between(0, 1)]
Count = Annotated[int, Between(0)]


@dataclass(frozen=True, slots=True)
class _Matched:
    """Of embeddings that were given: how many rows, how many of no image; by order, whose the ends are."""

    name: Words
    rows: Count
    unused: Count
    first: Words | None = None
    last: Words | None = None


@dataclass(frozen=True, slots=True)
class _Facts:
    """What stages say of what they did, as far as anything reads it again; a stage has some of these."""

    images: Count = 0
    k: Count = 0
    n_unsure: Count = 0
    dim: Count = 0
    recall: Share = 1.0
    silhouette: Annotated[float, Between(-1, 1)] | None = None
    sizes: tuple[Count, ...] = ()
    sentence: Words = ""
    why_method: Words = ""
    method: Words = ""
    metric: Words = ""
    backbone: Words = ""
    licence: Words = ""
    weights_source: Words = ""
    given: _Matched | None = None


@dataclass(frozen=True, slots=True)
class _Stage:
    state: Words = ""
    key: Words = ""
    digest: Words = ""
    inputs: dict[Words, Words] = field(default_factory=dict)
    parts: dict[Words, Words] = field(default_factory=dict)
    facts: _Facts = field(default_factory=_Facts)
    seconds: Annotated[float, Between(0)] = 0.0


@dataclass(frozen=True, slots=True)
class _Source:
    name: Words = ""
    identity: Words = ""
    folder: Words | None = None
    beside: Words | None = None


@dataclass(frozen=True, slots=True)
class _Version:
    format_version: Count


@dataclass(frozen=True, slots=True)
class _State:
    """run.json, as far as anything reads it again: what it tells besides is not acted on."""

    format_version: Count
    stages: dict[Words, _Stage]
    generation: Number | None = None
    seed: Count = 0
    asked: dict[Words, Any] = field(default_factory=dict)  # `ClusterConfig.from_json` looks at it
    source: _Source = field(default_factory=_Source)
    versions: dict[Words, Words] = field(default_factory=dict)


def log_of(phase: str) -> str:
    """The log of a phase of training that is done."""
    return f"own/train-{phase}.jsonl"


class Folder(Protocol):
    """Files by name, `folder / "name"`: a Path, or files of a run wherever they lie."""

    def __truediv__(self, name: str, /) -> Path: ...


class Files(Protocol):
    """How one sees the files of a run."""

    def path(self, name: str) -> Path:
        """Where the file `name` (with `/` between parts) lies; where none is, if there is no such file."""

    def new(self, name: str) -> Path:
        """Where to write the file `name`."""

    def unfinished(self, name: str) -> Path:
        """Where a killed writer may have left the file `name`, to go on with."""

    def keep(self, name: str) -> None:
        """Take the file `name` over from before, unchanged."""

    def earlier(self) -> Files:
        """The files as they are until what is being written counts."""

    def run_json(self) -> dict[str, Any]:
        """run.json as it belongs to these files."""

    def log(self) -> tuple[int | None, str | None]:
        """How many lines of edits.jsonl belong to these files at least (None: all), and the refit that made them."""

    def kept(self, digest: str) -> Folder | None:
        """The files of a clustering as it was before a refit; None if they are not kept."""


@dataclass(frozen=True, slots=True)
class AtRoot:
    """Files at a run's root: those of an older run, and what programs from outside see. Written to in place."""

    root: Path

    def path(self, name: str) -> Path:
        return self.root / name

    new = unfinished = path

    def keep(self, name: str) -> None:
        """It lies there already."""

    def earlier(self) -> Files:
        return self

    def run_json(self) -> dict[str, Any]:
        return read_run_json(self.root)

    def log(self) -> tuple[int | None, str | None]:
        return None, None

    def kept(self, digest: str) -> Folder | None:
        return kept_at_root(self.root, digest)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Held:
    """The files of one generation, which stay as long as this object does."""

    root: Path
    generation: Generation
    found: dict[str, Any]
    places: dict[str, int]

    @classmethod
    def current(cls, root: Path, state: dict[str, Any]) -> Held | None:
        """The generation that `state` names, or None if it was replaced meanwhile."""
        try:
            generation, descriptor = generations.hold(root, state["generation"])
        except FileNotFoundError:
            return None
        held = cls(root, generation, state, generation.places)
        weakref.finalize(held, os.close, descriptor)
        return held

    def path(self, name: str) -> Path:
        return generations.place(self.root, name, self.places)

    def new(self, name: str) -> Path:
        raise RunError(f"{self.root} is open for reading; {name} cannot be written")

    unfinished = new

    def keep(self, name: str) -> None:
        self.new(name)

    def earlier(self) -> Files:
        return self

    def run_json(self) -> dict[str, Any]:
        return self.found

    def log(self) -> tuple[int | None, str | None]:
        return self.generation.log_lines, self.generation.refit_line

    def kept(self, digest: str) -> Folder | None:
        return kept_in(self.root, self.generation.kept, digest)


@dataclass(frozen=True, slots=True)
class Stored:
    """Files by the generation in whose folder they lie."""

    root: Path
    places: dict[str, int]

    def __truediv__(self, name: str) -> Path:
        return generations.place(self.root, name, self.places)


@dataclass(frozen=True, slots=True)
class Within:
    """A folder of a folder."""

    whole: Folder
    name: str

    def __truediv__(self, name: str) -> Path:
        return self.whole / f"{self.name}/{name}"


@dataclass(frozen=True, slots=True)
class Inside:
    """The files of one folder of a run."""

    files: Files
    name: str
    for_writing: bool = False

    def __truediv__(self, name: str) -> Path:
        whole = f"{self.name}/{name}"
        return self.files.new(whole) if self.for_writing else self.files.path(whole)


def kept_in(root: Path, kept: Mapping[str, Mapping[str, int]], digest: str) -> Folder | None:
    """The files that were kept of a clustering, by the generations in whose folders they lie. See `Files.kept`."""
    return Stored(root, dict(kept[digest])) if digest in kept else kept_at_root(root, digest)


def kept_at_root(root: Path, digest: str) -> Folder | None:
    """As copies of runs, and runs of before generations, have them."""
    folder = root / "refits" / digest
    return folder if folder.is_dir() else None


def read_run_json(root: Path) -> dict[str, Any]:
    """The state of the run at `root`, or a fresh one if there is none yet.

    Raises:
        RunError: it cannot be read, or is of a newer version.
    """
    path = root / RUN_JSON
    try:
        state = foreign.parse_json(foreign.read_bytes(path), path)
    except FileNotFoundError:
        return {"format_version": FORMAT_VERSION, "stages": {}}
    with foreign.telling_of(f"{path} is not readable as a run's state"):
        version = foreign.READER.read(_Version, state).format_version
        if version > FORMAT_VERSION:  # whatever else such a one holds
            raise RunError(
                f"{root} has format_version {version}; this Shoal {metadata.version('shoal')} reads up to "
                f"{FORMAT_VERSION}: upgrade Shoal to open it"
            )
        foreign.READER.read(_State, state)
    found: dict[str, Any] = state
    return found


def write_run_json(root: Path, state: dict[str, Any]) -> None:
    atomic.write_json(root / RUN_JSON, state, root / UNFINISHED_RUN_JSON)
