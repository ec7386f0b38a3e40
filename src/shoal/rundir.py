"""The run directory: where everything lies, what was asked, and which stages are done.

The layout is a contract (see docs/run-directory.md); `RunDir` is the only place that knows file names.
"""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from shoal import atomic, lock, records
from shoal.errors import RunError

FORMAT_VERSION = 1
VERSIONED = ("shoal", "numpy", "pillow", "openvino", "torch", "timm", "scikit-learn")


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage hands back: the digest of what it wrote, and facts worth telling (JSON values)."""

    digest: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths and state of one run. Reading takes no lock; writers hold `writing()`."""

    root: Path

    # -- where things lie ---------------------------------------------------------------------------------------

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def images(self) -> Path:
        return self.root / "images.parquet"

    @property
    def labels(self) -> Path:
        """Only `shoal.evaluate` may open it; the index stage writes it."""
        return self.root / "labels.parquet"

    @property
    def embeddings(self) -> Path:
        return self.root / "embeddings"

    @property
    def neighbours(self) -> Path:
        return self.root / "neighbours"

    @property
    def clusters(self) -> Path:
        return self.root / "clusters.parquet"

    @property
    def levels(self) -> Path:
        return self.root / "levels.parquet"

    @property
    def map(self) -> Path:
        return self.root / "map.parquet"

    @property
    def choose_k(self) -> Path:
        return self.root / "choose_k.parquet"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def train(self) -> Path:
        """Checkpoints, log and outcomes of `shoal train`."""
        return self.root / "train"

    @property
    def edits(self) -> Path:
        return self.root / "edits.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def evaluation(self) -> Path:
        """What `evaluate` found, for the report: metrics, confusion, table. Derived from labels, so kept in report/."""
        return self.report / "evaluation.json"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    # -- opening ------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | Path) -> RunDir:
        """Open an existing run for reading.

        Raises:
            RunError: there is no run at `root`, or its format is newer than this version reads.
        """
        run = cls(Path(root))
        if not run.run_json.is_file():
            how = f"shoal cluster {root}" if run.root.exists() else f"shoal cluster SOURCE --out {root}"
            raise RunError(f"{root} is not a Shoal run: it has no run.json (make one with: {how})")
        run.read_state()
        return run

    def writing(self) -> AbstractContextManager[None]:
        """Hold the run's write lock while the block runs."""
        return lock.writing(self.root / "lock")

    # -- state --------------------------------------------------------------------------------------------------

    def read_state(self) -> dict[str, Any]:
        """run.json, or a fresh state if there is none yet."""
        if not self.run_json.is_file():
            return {"format_version": FORMAT_VERSION, "stages": {}}
        try:
            state: dict[str, Any] = json.loads(self.run_json.read_text(encoding="utf-8"))
            version = int(state["format_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.run_json} is not readable as a run's state: {error}") from error
        if version > FORMAT_VERSION:
            raise RunError(
                f"{self.root} has format_version {version}; this Shoal {metadata.version('shoal')} reads up to "
                f"{FORMAT_VERSION}: upgrade Shoal to open it"
            )
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        atomic.write_json(self.run_json, state)

    def stage(self, name: str) -> dict[str, Any] | None:
        """The record of a finished stage (key, digest, facts, seconds), or None."""
        record = self.read_state()["stages"].get(name)
        return record if record and record.get("state") == "done" else None

    def require(self, *stages: str) -> None:
        """Raise RunError unless every named stage is done."""
        for name in stages:
            if self.stage(name) is None:
                writer = lock.writer(self.root / "lock")
                advice = (
                    "run the same shoal cluster again"
                    if writer is None
                    else f"process {writer.pid} on {writer.host} is writing it: wait for it to end"
                )
                raise RunError(f"{self.root} is unfinished: its stage {name!r} is not done; {advice}")

    # -- tables -------------------------------------------------------------------------------------------------

    def read_images(self, columns: list[str] | None = None) -> pa.Table:
        return records.read_table(self.images, columns)

    def read_clusters(self, columns: list[str] | None = None) -> pa.Table:
        return records.read_table(self.clusters, columns)


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


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
