"""What a person asks of an export, what it is done with, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoal.errors import RequestError
from shoal.executor import Executor
from shoal.export.files import COPY, Read
from shoal.export.kinds import DEFAULT_NAMES, KINDS, KINDS_OF_FILES, LAYOUTS, MODES, TABLES
from shoal.export.transfer import Place
from shoal.progress import Progress

SHOWN_LEFT_OUT: Final = 10

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """How a run is to be written out; for the fields see `shoal.export.export.export`.

    Attributes:
        dest: absolute.

    Raises:
        RequestError: a field has a value it cannot have, or not together with another's.
    """

    kind: str
    dest: Path
    mode: str
    layout: str
    by_number: bool
    dry_run: bool

    def __post_init__(self) -> None:
        kind, mode, layout = self.kind, self.mode, self.layout
        for option, value, choices in (("--to", kind, KINDS), ("--mode", mode, MODES), ("--layout", layout, LAYOUTS)):
            if value not in choices:
                raise RequestError(f"{option} has value {value!r}; expected one of {', '.join(choices)}")
        if mode != COPY and kind not in KINDS_OF_FILES:
            raise RequestError(
                f"--mode {mode} does not go with --to {kind}, only with --to {', '.join(KINDS_OF_FILES)}"
            )
        if self.by_number and kind in TABLES:
            raise RequestError(f"--numbers does not go with --to {kind}, which has columns for numbers and for names")
        if layout != "long" and kind != "csv":
            raise RequestError(f"--layout {layout} does not go with --to {kind}, only with --to csv")

    @property
    def file(self) -> Path:
        """The file to be written, for kinds that are one."""
        return self.dest / DEFAULT_NAMES[self.kind] if self.dest.is_dir() else self.dest


@dataclass(frozen=True, slots=True)
class Means:
    """What an export is done with; for the fields see `shoal.export.export.export`."""

    say: Say
    progress: Progress
    read: Read | None
    place: Place
    executor: Executor


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did.

    Attributes:
        dest: the folder or file written, absolute.
        images: clustered images of the run.
        written: images exported by this call, or that would be in a dry run.
        already: images that an earlier call had exported.
        hows: of the written files, how many were copied, moved, or became a hard or symbolic link.
        left_out: (path, reason) of images that could not be taken.
        journal: what `undo` takes, after moves.
    """

    kind: str
    dest: Path
    dry_run: bool
    images: int
    written: int
    already: int
    hows: tuple[tuple[str, int], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    journal: Path | None = None

    def summary(self) -> str:
        """A few lines for the person: what became of the images, and which were left out."""
        did = ", ".join(f"{count:,} {how}" for how, count in self.hows) or f"{self.written:,} written"
        if self.dry_run:
            did = f"{self.written:,} would be written"
        lines = [f"{self.dest}: {self.images:,} images, {did}, {self.already:,} there already"]
        if self.left_out:
            lines.append(f"{len(self.left_out):,} images left out:")
            lines += [f"  {path}: {reason}" for path, reason in self.left_out[:SHOWN_LEFT_OUT]]
        if len(self.left_out) > SHOWN_LEFT_OUT:
            lines.append(f"  … and {len(self.left_out) - SHOWN_LEFT_OUT:,} more")
        if self.journal is not None:
            lines.append(f"what was moved is written down in {self.journal}, for undoing")
        return "\n".join(lines)
