"""The run directory: where everything lies, what was asked, and which stages are done.

The layout is a contract (see docs/run-directory.md); `RunDir` is the only place that knows file names, and
`shoal.generations` how they become current together.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal import generations, lock, records
from shoal.config import options_besides_defaults
from shoal.errors import RunError
from shoal.generations import Generation
from shoal.runfiles import (
    CACHE,
    IN_MEMORY,
    IN_RUN,
    LABELS,
    LISTING,
    LOCK,
    PICTURES,
    RUN_JSON,
    AtRoot,
    Files,
    Folder,
    Held,
    Inside,
    read_run_json,
)
from shoal.spool import Spool
from shoal.wording import command

_PICTURE = re.compile(rf"^{IN_RUN}(?P<name>{PICTURES}/[0-9a-f]{{64}}\.parquet)")
VERSIONED = ("shoal", "numpy", "pillow", "openvino", "torch", "timm", "scikit-learn")


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage hands back.

    Attributes:
        digest: of what it wrote.
        facts: worth telling (JSON values).
        parts: digests of parts of it, for stages that build on such a part only.
    """

    digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunDir:
    """Files and state of one run. Reading takes no lock; writers hold `writing()`.

    `RunDir.open` sees one generation for as long as it lives. `RunDir(root)` sees what lies at the root, as programs
    from outside do.
    """

    root: Path
    view: Files | None = None
    spool: Spool | None = None  # of the command that writes the run: what it has fetched

    @property
    def files(self) -> Files:
        return AtRoot(self.root) if self.view is None else self.view

    def path(self, name: str) -> Path:
        return self.files.path(name)

    def new(self, name: str) -> Path:
        """Where a stage writes a file of its own."""
        return self.files.new(name)

    def new_in(self, folder: str) -> Folder:
        """Where a stage writes files of one folder."""
        return Inside(self.files, folder, for_writing=True)

    def unfinished(self, name: str) -> Path:
        """For a stage: where a killed one may have left its file `name`, to go on with."""
        return self.files.unfinished(name)

    def keep(self, name: str) -> None:
        """For a stage: take its file `name` over from before, unchanged."""
        self.files.keep(name)

    @property
    def earlier(self) -> RunDir:
        """For a stage: the run as it was before, to take over what has not changed."""
        return RunDir(self.root, self.files.earlier())

    # -- where things lie ---------------------------------------------------------------------------------------

    @property
    def run_json(self) -> Path:
        return self.root / RUN_JSON

    @property
    def images(self) -> Path:
        return self.path("images.parquet")

    @property
    def listing(self) -> Path:
        """The index stage's own table: images before anybody looked at their pixels."""
        return self.path(LISTING)

    @property
    def labels(self) -> Path:
        """Only `shoal.evaluate` may open it; the index stage writes it."""
        return self.path(LABELS)

    @property
    def embeddings(self) -> Folder:
        return Inside(self.files, "embeddings")

    @property
    def neighbours(self) -> Folder:
        return Inside(self.files, "neighbours")

    @property
    def clusters(self) -> Path:
        return self.path("clusters.parquet")

    @property
    def levels(self) -> Path:
        return self.path("levels.parquet")

    @property
    def sweep(self) -> Path:
        return self.path("sweep.parquet")

    @property
    def map(self) -> Path:
        return self.path("map.parquet")

    @property
    def choose_k(self) -> Path:
        return self.path("choose_k.parquet")

    @property
    def model(self) -> Folder:
        return Inside(self.files, "model")

    @property
    def train(self) -> Path:
        """Checkpoints and the log of `shoal train` while it works; what a phase leaves is the run's as any file."""
        return self.root / "train"

    @property
    def edits(self) -> Path:
        return self.root / "edits.jsonl"

    @property
    def report(self) -> Folder:
        return Inside(self.files, "report")

    @property
    def evaluation(self) -> Path:
        """What `evaluate` found, for the report: metrics, confusion, table. Derived from labels, so kept in report/."""
        return self.path("report/evaluation.json")

    @property
    def cache(self) -> Path:
        return self.root / CACHE

    def shown(self, name: str) -> Path:
        """Where people find a file: its name at the root."""
        return self.root / name

    @property
    def generation(self) -> Generation | None:
        """What is seen, if it is a generation."""
        return self.view.generation if isinstance(self.view, Held) else None

    def kept(self, digest: str) -> Folder | None:
        """The files of a clustering as it was before a refit; None if they are not kept."""
        return self.files.kept(digest)

    # -- opening ------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | Path) -> RunDir:
        """Open an existing run for reading: its current generation, whatever is written meanwhile.

        Raises:
            RunError: there is no run at `root`, or its format is newer than this version reads.
        """
        run, missed = cls(Path(root)), None
        if not run.run_json.is_file():
            words = (root,) if run.root.exists() else ("SOURCE", "--out", root)
            how = command("shoal", "cluster", *words)
            raise RunError(f"{root} is not a Shoal run: it has no run.json (make one with: {how})")
        while True:
            state = read_run_json(run.root)
            number = state.get("generation")
            if number is None:
                return run
            held = Held.current(run.root, state)
            if held is not None:
                return cls(run.root, held)
            if number == missed:
                record = generations.record_of(run.root, number)
                raise RunError(f"{root} is not whole: {record} is missing; bring it back, or make the run anew")
            missed = number

    def writing(self) -> AbstractContextManager[None]:
        """Hold the run's write lock while the block runs."""
        return lock.writing(self.root / LOCK)

    # -- state --------------------------------------------------------------------------------------------------

    def read_state(self) -> dict[str, Any]:
        """run.json as it belongs to the files seen, or a fresh state if there is none yet."""
        return self.files.run_json()

    def stage(self, name: str) -> dict[str, Any] | None:
        """The record of a finished stage (key, digest, facts, seconds), or None."""
        record = self.read_state()["stages"].get(name)
        return record if record and record.get("state") == "done" else None

    def require(self, *stages: str) -> None:
        """Raise RunError unless every named stage is done, and current."""
        for name in stages:
            if self.stage(name) is None:
                writer = lock.writer(self.root / LOCK)
                advice = (
                    f"finish it with: {self.how_to_cluster()}"
                    if writer is None
                    else f"process {writer.pid} on {writer.host} is writing it: wait for it to end"
                )
                raise RunError(f"{self.root} is unfinished: its stage {name!r} is not done; {advice}")

    def how_to_cluster(self) -> str:
        """The command that brings the run up to date, or the call."""
        asked = self.read_state().get("asked", {})
        source, given = asked.get("source") or ["SOURCE"], asked.get("embeddings")
        options = options_besides_defaults(asked)
        if str(source[0]).startswith(IN_RUN) or str(given).startswith(IN_MEMORY):
            options.pop("embeddings", None)
            said = ", ".join(f"{name}={value!r}" for name, value in {**options, "out": str(self.root)}.items())
            return f"ImageClusterer({said}).fit(…) with what it was called with"
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", _as_word(value))]
        return command("shoal", "cluster", *source, *words, "--out", self.root)

    # -- tables -------------------------------------------------------------------------------------------------

    def read_images(
        self, columns: list[str] | None = None, ids: range | None = None, *, lasting: bool = False
    ) -> pa.Table:
        """images.parquet; before anything was embedded, the listing. URIs lead to where the source is now.

        Args:
            ids: only the rows of these.
            lasting: of what lies in the run itself, where programs from outside find it; where this generation has it
                goes with the generation.
        """
        path = self.images if self.images.is_file() else self.listing
        table = records.read_table(path, columns, ids)
        first = 0 if ids is None else ids.start
        if "id" in table.column_names and not np.array_equal(table["id"].to_numpy() - first, np.arange(len(table))):
            raise RunError(f"{path}: column 'id' does not count the images from 0 up")
        return self._where_it_is(table, AtRoot(self.root) if lasting else self.files)

    def read_listing(self, columns: list[str] | None = None, ids: range | None = None) -> pa.Table:
        """The index stage's own table, in the columns of images.parquet, or the rows of some ids."""
        return self._where_it_is(records.read_table(self.listing, columns, ids), self.files)

    def read_clusters(self, columns: list[str] | None = None) -> pa.Table:
        return records.read_table(self.clusters, columns)

    def located(self, uris: pa.ChunkedArray) -> pa.ChunkedArray:
        """Where images are that lie in the run itself; other URIs as they are."""
        return _located_all(uris, self.files)

    def _where_it_is(self, table: pa.Table, files: Files) -> pa.Table:
        if "uri" not in table.column_names:
            return table
        uris, moved = table["uri"], self.moved_source()
        if moved is not None:
            uris = _moved_uris(uris, *(folder.as_uri() for folder in moved))
        return table.set_column(table.column_names.index("uri"), "uri", _located_all(uris, files))

    def moved_source(self) -> tuple[Path, Path] | None:
        """The source's folder as it was, and as it is beside a run that was moved together with it."""
        source = self.read_state().get("source", {})
        folder, beside = source.get("folder"), source.get("beside")
        if folder is None or beside is None or not Path(folder).is_absolute() or Path(folder).exists():
            return None
        now = Path(os.path.normpath(self.root.absolute() / beside))
        return (Path(folder), now) if now.exists() else None


def _as_word(value: Any) -> str:
    """A value as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _located(uri: str, files: Files) -> str:
    match = _PICTURE.match(uri)
    return uri if match is None else files.path(match["name"]).absolute().as_uri() + uri[match.end("name") :]


def _located_all(uris: pa.ChunkedArray, files: Files) -> pa.ChunkedArray:
    for name in _tables_in_run(uris):
        uris = pc.replace_substring(uris, f"{IN_RUN}{name}", _located(f"{IN_RUN}{name}", files))
    return uris


def _tables_in_run(uris: pa.ChunkedArray) -> list[str]:
    """Names of the tables in the run that some of the URIs lead into."""
    names = pc.struct_field(pc.extract_regex(uris, _PICTURE.pattern), "name")
    return [name for name in pc.unique(names).to_pylist() if name is not None]


def _moved_uris(uris: pa.ChunkedArray, before: str, now: str) -> pa.ChunkedArray:
    """URIs that lie below `before`, as they are below `now`."""
    below = pc.starts_with(uris, before.rstrip("/") + "/")
    rest = pc.utf8_slice_codeunits(uris, len(before.rstrip("/")))
    return pc.if_else(below, pc.binary_join_element_wise(now.rstrip("/"), rest, ""), uris)


def versions() -> dict[str, str]:
    """Versions of what the result depends on, read from package metadata (nothing heavy is imported)."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def digest_of(*values: Any) -> str:
    """A digest of JSON values, the same on every machine."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
