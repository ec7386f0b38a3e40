"""What a training says on its way: a JSON object a line in train/log.jsonl, and TensorBoard's files as an extra."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from shoal import atomic

FILE = "log.jsonl"


class Log:
    """Appends to `folder`/log.jsonl. Lines of `phase` from `epoch` on are dropped first: they will come again.

    Args:
        silent: write nothing, as all processes but the first do.
        tensorboard: also write TensorBoard's event files, if the package tensorboard is installed.
    """

    def __init__(self, folder: Path, phase: str, epoch: int, tensorboard: bool = True, silent: bool = False) -> None:
        self._path = folder / FILE
        self._phase = phase
        self._file: TextIO | None = None
        self._board: Any = None
        if silent:
            return
        kept = [line for line in read(folder) if line["phase"] != phase or line["epoch"] < epoch]
        atomic.write_bytes(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _board(folder / "tensorboard") if tensorboard else None

    def write(self, epoch: int, **values: Any) -> None:
        """One line for an epoch, counted from 0."""
        if self._file is None:
            return
        self._file.write(json.dumps({"phase": self._phase, "epoch": epoch, **values}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{self._phase}/{name}", value, epoch)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def snapshot(folder: Path, phase: str, target: Path) -> None:
    """Keep the lines of a phase that is done in a file of their own: the log itself goes on with the next training."""
    lines = [line for line in read(folder) if line["phase"] == phase]
    atomic.write_bytes(target, "".join(json.dumps(line) + "\n" for line in lines).encode())


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut off is left out."""
    path = folder / FILE
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)  # a loss may be NaN
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    return SummaryWriter(str(folder))
