"""What an export of files writes down in DEST before its first file, by which a later one knows it again.

A folder holds the files of one plan: those of two clusterings would be told apart by nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from shoal import atomic, parquet
from shoal.errors import RequestError
from shoal.export.placement import Plan
from shoal.export.rows import BLOCK
from shoal.export.transfer import open_plain

RECORD_NAME: Final = ".shoal-export.jsonl"
FORMAT_VERSION: Final = 1
BEGINNING: Final = b'{"shoal_export": '
LARGEST: Final = 1 << 16  # bytes
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
TOKEN: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Record:
    """An export of files: a line of JSON about it, and one for each labels.json written with it.

    Lines are only added, so that no temporary file of another name is needed, which a kill would leave to nobody.

    Attributes:
        kind: folders, imagefolder or fiftyone.
        plan: digest of which image goes to which name; the same for the same clustering exported again.
        parts: token in the names of half-written files.
        labels: digests of what may lie at DEST as FiftyOne's labels.json and is Shoal's own.
    """

    kind: str
    plan: str
    parts: str
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, dest: Path) -> Record | None:
        """The record in DEST, or None if there is none, or one whose writer died in its first line, before any file.

        Raises:
            RequestError: it is not one that Shoal wrote, or of a newer version.
        """
        path = dest / RECORD_NAME
        if not os.path.lexists(path):
            return None
        with open_plain(path) as file:
            data = file.read(LARGEST)
        lines = data.split(b"\n")
        if len(lines) == 1 and (BEGINNING.startswith(data) or data.startswith(BEGINNING)):
            return None
        try:
            return cls._of(lines[:-1])
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise RequestError(
                f"{path} is not readable as Shoal's record of an export ({type(error).__name__}); choose another DEST"
            ) from error

    @classmethod
    def _of(cls, lines: Sequence[bytes]) -> Record:
        first, *others = map(json.loads, lines)
        record = cls(str(first["kind"]), first["plan"], first["parts"], tuple(other["labels"] for other in others))
        if not TOKEN.fullmatch(record.parts) or not all(map(DIGEST.fullmatch, (record.plan, *record.labels))):
            raise ValueError("its digests are none")
        if first["shoal_export"] != FORMAT_VERSION:
            raise ValueError("of a newer version")
        return record

    def write(self, dest: Path) -> None:
        """Put this down in DEST, where there is none or one of an export that is gone; then it is on the disk."""
        first = {"shoal_export": FORMAT_VERSION, "kind": self.kind, "plan": self.plan, "parts": self.parts}
        _put_down(dest, "wb", first)

    def add_labels(self, dest: Path, digest: str) -> None:
        """Put down what is about to be written as labels.json."""
        if digest not in self.labels:
            _put_down(dest, "ab", {"labels": digest})


def _put_down(dest: Path, how: str, line: dict[str, Any]) -> None:
    with (dest / RECORD_NAME).open(how) as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    atomic.sync_folder(dest)


def plan_digest(plan: Plan) -> str:
    """The same for the same images under the same names."""
    state = hashlib.sha256()
    table = parquet.in_order(pa.table({"target": plan.targets, "sha256": plan.rows.table["sha256"]}), "target")
    for batch in table.to_batches(BLOCK):
        for line in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            state.update(json.dumps(line).encode() + b"\n")
    return state.hexdigest()


def holds_files(dest: Path) -> bool:
    """True if there is anything below DEST but folders and the record."""
    return any(name != RECORD_NAME or Path(folder) != dest for folder, _, names in os.walk(dest) for name in names)
