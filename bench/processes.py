"""Whole processes under the clock: wall time, processor time and peak memory (Linux and macOS)."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

MAXRSS_UNIT = 1 if platform.system() == "Darwin" else 1024  # bytes


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """One finished process. `load` is the machine's one-minute load average before it began: over 1 is not quiet."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int  # resident set; of the largest process, should it have had children
    load: float

    def to_json(self) -> dict[str, Any]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


def run_process(command: Sequence[str], **environment: str) -> ProcessRun:
    """Run `command` to its end, with `environment` added to ours.

    Linux counts what this process held when it started the child into the child's peak: keep the caller small.

    Raises:
        RuntimeError: it exits with another code than 0; the message ends with what it printed last.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryFile() as printed:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=printed, env={**os.environ, **environment})
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it once more
        if process.returncode != 0:
            printed.seek(0)
            text = printed.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} exits with {process.returncode}:\n{text}")
    return ProcessRun(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * MAXRSS_UNIT, load)


def elsewhere(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call `work` in a process of its own, so that what it imports and holds does not stay here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
