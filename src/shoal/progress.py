"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

PLAIN_LINE_SECONDS = 10.0


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, count: int = 1) -> None: ...


class Progress:
    """Shows nothing: for library use and tests. The base of what the command line shows."""

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        """Follow work of `total` units called `name`; 0: nobody knows how many."""
        yield _SilentTask()

    def say(self, line: str) -> None:
        """Show one line of text."""


class TerminalProgress(Progress):
    """Writes to `stream` (standard error by default): bars if it is a terminal, plain lines if not."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Task]:
        if self._stream.isatty():
            with _BarTask(name, total, unit, self._stream) as bar:
                yield bar
        else:
            yield _PlainTask(name, total, unit, self._stream)

    def say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        """Nobody is watching."""


class _BarTask:
    def __init__(self, name: str, total: int, unit: str, stream: TextIO) -> None:
        from tqdm import tqdm  # noqa: PLC0415  (only a terminal needs it)

        self._bar = tqdm(total=total or None, desc=name, unit=f" {unit}", file=stream, dynamic_ncols=True, leave=False)

    def __enter__(self) -> _BarTask:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)


class _PlainTask:
    def __init__(self, name: str, total: int, unit: str, stream: TextIO) -> None:
        self._name, self._total, self._unit, self._stream = name, total, unit, stream
        self._done = 0
        self._began = self._spoke = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._spoke < PLAIN_LINE_SECONDS or self._done == 0:
            return
        self._spoke = now
        rate = self._done / (now - self._began)
        left = max(self._total - self._done, 0) / rate  # more may turn up than was foreseen
        line = f"{self._name}: {self._done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s, {left:,.0f} s left"
        if self._total == 0:
            line = f"{self._name}: {self._done:,} {self._unit}, {rate:,.1f}/s"
        print(line, file=self._stream, flush=True)
