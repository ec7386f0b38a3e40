"""Results on disk: a small JSON file for each method and seed, so that a killed bench goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from shoal import atomic
from shoal.errors import RequestError
from shoal.evaluate.agreement import Agreement

MARK: Final = "bench.json"  # in a folder that is of benchmarks alone
MARKED: Final = {"shoal_bench": 1}
RESULTS: Final = "results"
ABSENT: Final = "absent"
MOST_CELLS: Final = 10_000  # of a confusion that is kept
FIGURES: Final = ("acc", "acc_top5", "nmi", "ami", "ari", "purity")


@dataclass(frozen=True, slots=True)
class Task:
    """One result to be had: a benchmark, how it is embedded, a method, how many clusters were asked for, a seed."""

    benchmark: str
    backbone: str
    features: str
    resize: str
    limit: int | None
    method: str
    clusters: str  # true, auto, or as --clusters takes it
    seed: int

    @property
    def line(self) -> tuple[str, ...]:
        """What all seeds of one line of the table share."""
        return (*self.setting, self.method, self.clusters)

    @property
    def setting(self) -> tuple[str, ...]:
        """What all lines of one table share."""
        return (self.benchmark, self.backbone, self.features, self.resize, str(self.limit or ""))

    def file(self, root: Path) -> Path:
        """Where its result lies, in the folder `root` of its embeddings."""
        name = f"{self.method}-{re.sub(r'[^0-9a-z-]+', '_', self.clusters)}-seed{self.seed}.json"
        return root / RESULTS / self.benchmark / name


@dataclass(frozen=True, slots=True)
class Absence:
    """Lines that a table has no figures for, and why."""

    benchmark: str
    what: str  # the whole benchmark, or a backbone or a method of it
    why: str
    failed: bool = False  # it was run, and failed


def figures(found: Agreement) -> dict[str, Any]:
    """The figures of one placement as flat JSON values."""
    flat: dict[str, Any] = {name: getattr(found, name) for name in FIGURES}
    flat |= {"n": found.n, "clusters": found.clusters, "classes": found.classes}
    if found.sure is not None:
        flat |= {"sure": found.sure.share, "sure_acc": found.sure.acc}
    if found.calibration is not None:
        matched, majority = found.calibration.matched, found.calibration.majority
        flat |= {"confidence": matched.confidence, "calibration_error": matched.error}
        flat["calibration_error_majority"] = majority.error
    return flat


def details(found: Agreement) -> dict[str, Any]:
    """What a table has no room for: clusters one by one, reliability bins, and the confusion unless it is huge."""
    whole = found.to_json()
    kept = {"table": whole["table"], "matching": whole["matching"], "calibration": whole["calibration"]}
    return kept | ({"confusion": whole["confusion"]} if found.confusion.counts.size <= MOST_CELLS else {})


def require_own(out: Path) -> None:
    """Make `out` the folder of benchmarks, or raise RequestError: it holds something, and not what we put there."""
    if (out / MARK).is_file() and (out / MARK).read_bytes() == atomic.json_bytes(MARKED):
        return
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out has value {str(out)!r}, which is a file; expected a folder")
    other = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if other:
        raise RequestError(
            f"--out has value {str(out)!r}, a folder with files that shoal bench has not written (such as "
            f"{other[0]!r}); expected a new folder, an empty one, or one of earlier benchmarks"
        )
    atomic.write_json(out / MARK, MARKED)


def write(root: Path, task: Task, values: dict[str, Any]) -> None:
    atomic.write_json(task.file(root), {"task": asdict(task), **values})


def read(root: Path, task: Task, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The result of `task` if there is one of the same inputs (embeddings, labels, versions)."""
    try:
        found: dict[str, Any] = json.loads(task.file(root).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if found.get("inputs") == inputs else None


def read_all(out: Path) -> list[dict[str, Any]]:
    """All results under `out`, in the order of their names."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in _files(out)]


def _files(out: Path) -> Iterator[Path]:
    yield from sorted(out.glob(f"*/*/{RESULTS}/*/*.json"))


def write_absences(out: Path, benchmark: str, absences: list[Absence]) -> None:
    """Keep why `benchmark` has no figures for something; what was kept of it before is forgotten."""
    atomic.write_json(out / ABSENT / f"{benchmark}.json", [asdict(absence) for absence in absences])


def read_absences(out: Path) -> list[Absence]:
    files = sorted((out / ABSENT).glob("*.json"))
    return [Absence(**values) for file in files for values in json.loads(file.read_text(encoding="utf-8"))]


def runs_table(results: list[dict[str, Any]]) -> pa.Table:
    """One row a result: what was asked, figures on the images reported on, those on the images fitted on, seconds."""
    rows = []
    for result in results:
        row = dict(result["task"])
        row |= result["reported"]
        row |= {f"fit_{name}": value for name, value in result["fitted"].items()}
        row |= {f"neighbour_purity_{k}": value for k, value in result["neighbour_purity"].items()}
        row |= {f"seconds_{name}": value for name, value in result["seconds"].items()}
        row |= {name: result["facts"].get(name) for name in ("k", "noise", "sentence")}
        row |= {"method_taken": result["facts"].get("method"), "fitted_on": result["images"]["fitted_on"]}
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})
