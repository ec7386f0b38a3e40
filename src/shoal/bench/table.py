"""From results to tables: mean and spread over seeds, in Markdown for people and Parquet for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from shoal import atomic, records
from shoal.bench import results, transfer
from shoal.bench.benchmarks import BENCHMARKS, TRANSFER
from shoal.bench.published import KERAS_NOTE, PUBLISHED
from shoal.bench.request import ALL_METHODS, TRUE
from shoal.bench.results import Absence, Task
from shoal.bench.transfer import Curve

PEER: Final = "sklearn-kmeans"  # what others are compared with in wrongly placed images
SPREAD: Final = (*results.FIGURES, "sure", "sure_acc", "calibration_error", "calibration_error_majority", "confidence")
NAMES: Final = {"acc_top5": "top-5", "calibration_error": "ECE", "purity": "purity"}
MANY_CLASSES: Final = 50  # from here on the five likeliest clusters say something
COLUMNS: Final = ("acc", "nmi", "ari", "ami", "purity", "acc_top5", "calibration_error")


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over seeds, and the standard deviation (of a sample; None for a single run)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation)

    def percent(self) -> str:
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


@dataclass(frozen=True, slots=True)
class Line:
    """All seeds of one method asked for one number of clusters."""

    task: Task  # of the first seed
    runs: tuple[dict[str, Any], ...]

    def values(self, name: str, part: str = "reported") -> list[float]:
        return [run[part][name] for run in self.runs if run[part].get(name) is not None]

    def spread(self, name: str, part: str = "reported") -> Spread | None:
        found = self.values(name, part)
        return Spread.of(found) if found else None

    @property
    def counts(self) -> list[int]:
        """Numbers of clusters that were made."""
        return [int(run["facts"]["k"]) for run in self.runs]

    @property
    def taken(self) -> list[str]:
        """Methods that were taken, where the method asked for leaves that open."""
        return sorted({str(run["facts"].get("method", self.task.method)) for run in self.runs})

    @property
    def noise(self) -> float | None:
        shares = [run["facts"]["noise"] for run in self.runs if run["facts"].get("noise") is not None]
        return statistics.fmean(shares) if shares else None

    def seconds(self, name: str) -> float:
        return float(statistics.median(run["seconds"][name] for run in self.runs))


def lines(found: Iterable[dict[str, Any]]) -> list[Line]:
    """Results brought together by everything but the seed, in the order of the results."""
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in found:
        grouped.setdefault(Task(**result["task"]).line, []).append(result)
    made = [Line(Task(**runs[0]["task"]), tuple(runs)) for runs in grouped.values()]
    return sorted(made, key=_place)


def _place(line: Line) -> tuple[Any, ...]:
    """Benchmarks as they are listed, methods as well, and the true number of clusters first."""
    task = line.task
    place = ALL_METHODS.index(task.method), task.clusters != TRUE, task.clusters
    return (list(BENCHMARKS).index(task.benchmark), task.setting, *place)


def write(out: Path) -> str:
    """Write table.md, table.parquet and runs.parquet for everything under `out`; return the Markdown."""
    found = results.read_all(out)
    made = lines(found)
    text = markdown(made, results.read_absences(out), transfer.read_curves(out))
    if found:
        records.write_table(out / "runs.parquet", results.runs_table(found))
        records.write_table(out / "table.parquet", to_parquet(made))
    atomic.write_bytes(out / "table.md", text.encode())
    return text


def to_parquet(made: Sequence[Line]) -> pa.Table:
    """One row a line: mean and standard deviation of every figure, 0 to 1."""
    rows = []
    for line in made:
        task = line.task
        row: dict[str, Any] = {
            **{name: getattr(task, name) for name in ("benchmark", "backbone", "features", "resize", "limit")},
            **{name: getattr(task, name) for name in ("method", "clusters")},
            "runs": len(line.runs),
            "k": line.counts,
            "classes": line.runs[0]["classes"],
            "noise": line.noise,
            "fit_seconds": line.seconds("fit"),
        }
        for name in SPREAD:
            for part, prefix in (("reported", ""), ("fitted", "fit_")):
                spread = line.spread(name, part)
                row[f"{prefix}{name}"] = spread.mean if spread else None
                row[f"{prefix}{name}_std"] = spread.deviation if spread else None
        rows.append(row)
    return pa.Table.from_pylist(rows)


# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown(made: Sequence[Line], absences: Sequence[Absence], curves: Sequence[Curve] = (), level: int = 2) -> str:
    """A section for each benchmark that was asked for, published figures in the same tables."""
    parts = []
    for name, benchmark in BENCHMARKS.items():
        own = [line for line in made if line.task.benchmark == name]
        missing = [absence for absence in absences if absence.benchmark == name]
        if not own and not missing:
            continue
        parts.append(f"{'#' * level} {benchmark.title}")
        settings = dict.fromkeys(line.task.setting for line in own)
        parts += [_section([line for line in own if line.task.setting == setting]) for setting in settings]
        parts += [_published(name)] if any(row.benchmark == name for row in PUBLISHED) else []
        parts += ["\n".join(f"- {_absence(absence)}" for absence in missing)] if missing else []
    missing = [absence for absence in absences if absence.benchmark == TRANSFER]
    if curves or missing:
        parts.append(f"{'#' * level} Transfer: k-means on networks' features")
        parts += [transfer.markdown(curves)] if curves else []
        parts += ["\n".join(f"- {_absence(absence)}" for absence in missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def _section(own: Sequence[Line]) -> str:
    """One table: everything on the same embeddings."""
    peers = {line.task.clusters: line.spread("acc") for line in own if line.task.method == PEER}
    many = own[0].runs[0]["classes"] >= MANY_CLASSES
    shown = [name for name in COLUMNS if (name != "acc_top5" or many) and any(line.values(name) for line in own)]
    heads = ["method", "asked for", "K", "runs", *(NAMES.get(name, name.upper()) for name in shown)]
    is_split = own[0].runs[0]["images"]["tested_on"] is not None
    heads = [*heads, "sure", "ACC of sure", "fewer wrong", *(["ACC of fitted"] if is_split else []), "fit s"]
    rows = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    rows += [_row(line, shown, peers.get(line.task.clusters)) for line in own]
    return f"{_about(own[0])}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: Line, shown: Sequence[str], peer: Spread | None) -> list[str]:
    asked = "as many as classes" if line.task.clusters == TRUE else line.task.clusters
    taken = "" if line.taken == [line.task.method] else f" ({', '.join(line.taken)})"
    noise = "" if line.noise is None or not line.noise else f", {100 * line.noise:.0f} % noise"
    cells = [f"{line.task.method}{taken}{noise}", asked, _range(line.counts), str(len(line.runs))]
    cells += [_percent(line.spread(name)) for name in shown]
    cells += [_percent(line.spread("sure")), _percent(line.spread("sure_acc"))]
    cells += [_fewer_wrong(line, peer)]
    cells += [_percent(line.spread("acc", "fitted"))] if line.runs[0]["images"]["tested_on"] is not None else []
    return [*cells, f"{line.seconds('fit'):.1f}"]


def _fewer_wrong(line: Line, peer: Spread | None) -> str:
    """By how much of its wrongly placed images a line has fewer than scikit-learn's k-means for the same number."""
    own = line.spread("acc")
    if peer is None or own is None or line.task.method == PEER or peer.mean == 1:
        return ""
    return f"{100 * (own.mean - peer.mean) / (1 - peer.mean):+.1f} %"


def _about(line: Line) -> str:
    """What a table's figures are of: images, features, protocol, neighbours, time."""
    task, run = line.task, line.runs[0]
    images, benchmark = run["images"], BENCHMARKS[task.benchmark]
    tested = images["tested_on"]
    split = (
        f"Fitted on {images['fitted_on']:,} training images, reported on {tested:,} test images"
        if tested is not None
        else f"No split: fitted and reported on all {images['fitted_on']:,} images"
    )
    split = f"{split}, {run['classes']:,} classes"
    limited = f"; **only {task.limit:,} of each split were taken**" if task.limit else ""
    note = f"; {benchmark.note}" if benchmark.note else ""
    purity = ", ".join(f"{100 * value:.1f} at {k}" for k, value in _by_number(run["neighbour_purity"]))
    spent = [run["seconds"][name] for name in ("index", "embed", "neighbours")]
    times = ", ".join(
        f"{words} {seconds:.0f}"
        for words, seconds in zip(("reading", "embedding", "neighbours"), spent, strict=True)
        if seconds is not None
    )
    return (
        f"{split}{limited}{note}. {task.backbone}, {task.features} features ({images['dim']:,}-d, {task.resize}). "
        f"Neighbours with the same label, in per cent: {purity}. "
        f"Seconds: {times or 'not known, since it was interrupted'}."
    )


def _published(name: str) -> str:
    rows = ["| published | ACC | NMI | ARI | source |", "|---|---:|---:|---:|---|"]
    for row in PUBLISHED:
        if row.benchmark == name:
            figures = ("–" if value is None else f"{value:.1f}" for value in (row.acc, row.nmi, row.ari))
            rows.append(f"| {row.leads} | {' | '.join(figures)} | {row.source} |")
    return "\n".join(rows) + (f"\n\n{KERAS_NOTE}" if name == "cifar10" else "")


def _absence(absence: Absence) -> str:
    verdict = "failed" if absence.failed else "not run here"
    return f"{absence.what + ': ' if absence.what else ''}*{verdict}*: {absence.why}"


def _by_number(values: dict[str, float]) -> list[tuple[int, float]]:
    return sorted((int(k), value) for k, value in values.items())


def _percent(spread: Spread | None) -> str:
    return "" if spread is None else spread.percent()


def _range(counts: Sequence[int]) -> str:
    """`10`, or `8–12` where seeds differ."""
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"
