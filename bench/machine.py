"""What every bench script shares: the machine it ran on, timing with its spread, tables, and where results are kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("shoal", "numpy", "scikit-learn", "scipy", "torch", "timm", "openvino", "pillow", "pyarrow", "faiss-cpu")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each repeat of one piece of work."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        """Least and most seconds, as text."""
        return f"{min(self.seconds):.3g} to {max(self.seconds):.3g}"

    def to_json(self) -> dict[str, Any]:
        return {"seconds": list(self.seconds), "median": self.median}


def measure(work: Callable[[], object], repeats: int = 5, warm_up: int = 1) -> Timing:
    """Time `work` `repeats` times by the wall clock, after `warm_up` calls that are not counted."""
    for _ in range(warm_up):
        work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return Timing(tuple(seconds))


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """The machine, the interpreter, and the versions of those `packages` that are installed."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def ratio_table(rows: Sequence[tuple[str, Timing]], reference: str) -> str:
    """A Markdown table of timings, each with how many times faster it is than the row called `reference`.

    The ratio is of medians; beside it stands its range over the repeats (least over most, most over least).
    """
    base = dict(rows)[reference]
    lines = ["| | median s | least to most s | times faster | range |", "|---|---:|---:|---:|---:|"]
    for name, timing in rows:
        low = min(base.seconds) / max(timing.seconds)
        high = max(base.seconds) / min(timing.seconds)
        ratio = base.median / timing.median
        lines.append(f"| {name} | {timing.median:.4g} | {timing.spread} | {ratio:.3g} | {low:.3g} to {high:.3g} |")
    return "\n".join(lines)


def machine_line(machine: dict[str, Any]) -> str:
    """`describe()` as one line under a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}; {versions}; {machine['measured']}"
    )


def write_result(name: str, values: dict[str, Any]) -> Path:
    """Keep `values`, with the machine beside them, as bench/results/<name>.json and return its path."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    kept = {"machine": describe(), **values}
    target.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def keep_run(name: str, run: str, found: dict[str, Any]) -> Path:
    """Put what one run of a benchmark found beside the others in results/NAME.json, with the machine it was made on."""
    return write_result(name, {"runs": {**kept_runs(name), run: {"machine": describe(), **found}}})


def kept_runs(name: str) -> dict[str, Any]:
    """What `keep_run` put there."""
    file = RESULTS / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["runs"]) if file.is_file() else {}


def peak_memory_bytes() -> int:
    """The most memory this process has held so far (resident set), in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # noqa: PLC0415  (not there on Windows)

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    if names.exists():
        for line in names.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
