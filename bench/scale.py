"""What a command costs on 100,000 and on 1,000,000 images: seconds of every stage, and the most anonymous memory.

    python bench/scale.py --images 100000
    python bench/scale.py --images 1000000
    python bench/scale.py --images 1000000 --only tables report     # some steps, measured anew

A step that results/scale.json has for this number of images is not measured again, so that one that was broken off goes
on; `--anew` measures all of them. Nothing else should run meanwhile.

    tables    index, embedding (given features are taken over) and images, into a run that is thrown away
    again     the same once more, where nothing has changed
    cluster   shoal cluster FOLDER --embeddings FILE --clusters K: every stage from index to report
    report, assign, similar, csv, wide, parquet, folders, evaluate      commands on that run
    search    find, similar and assign of one image with the embedded backbone, on the run of bench/browse.py
    faiss     faiss's k-means (1,000 clusters) of the same rows, in memory

Memory is RssAnon and RssShmem of /proc/PID/status, summed over all processes of a command and sampled: pages of memory
maps, which the system drops when it needs them, do not count. `largest_rss_mb` is the usual resident set, with them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from browse import large_run
from knn import library_python
from machine import RESULTS, describe, machine_line, write_result
from photos import WORK
from scale_data import feature_file, image_folder, path_of

HERE = Path(__file__).parent
NAME = "scale"
SAMPLED_S = 0.05
CURVE_POINTS = 200  # of a memory curve that is kept
FAISS_CLUSTERS = 1000
SEVERAL = 3  # repeats of what takes a moment
IN_ORDER = ("index", "embed", "classes", "images", "neighbours", "cluster", "names", "map", "evaluate", "report")
SHOAL = (sys.executable, "-m", "shoal")
TABLES = """
import sys
from pathlib import Path
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.embed.given import open_given
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir
folder, features, run = sys.argv[1:]
config = ClusterConfig(source=(folder,), embeddings=features)
stages = pipeline.clustering_stages(open_source((folder,)), open_given(features))
wanted = [stage for stage in stages if stage.name in ("index", "embed", "images")]
pipeline.run(config, RunDir(Path(run)), wanted, Progress())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="What a command costs as images get many.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--clusters", default="100", help="as --clusters of shoal cluster; another K is another result")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--anew", action="store_true", help="measure what is measured already, too")
    options = parser.parse_args()
    work = Work(options.images, options.clusters)
    for name in options.only or STEPS:
        if options.only or options.anew or name not in work.kept():
            print(f"{options.images:,} images: {name}", file=sys.stderr)
            work.keep(name, STEPS[name](work))
    print(table(read_results()))
    print(machine_line(describe()))


# -- one command -------------------------------------------------------------------------------------------------------


def measured(command: Sequence[str | Path], repeats: int = 1) -> dict[str, Any]:
    """The quickest of some runs of a command: seconds, processor seconds, most memory, and how memory went.

    Raises:
        SystemExit: it failed.
    """
    found: list[dict[str, Any]] = [_measured_once(command) for _ in range(repeats)]
    return min(found, key=lambda one: one["seconds"])


def _measured_once(command: Sequence[str | Path]) -> dict[str, Any]:
    before, began = _processor_seconds(), time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([str(word) for word in command], stdout=said, stderr=said, cwd=WORK)
        samples = Samples(process.pid)
        code = process.wait()
        seconds = time.perf_counter() - began
        samples.stop()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code != 0:
        raise SystemExit("\n".join([" ".join(map(str, command)), f"ended with {code}:", *lines[-20:]]))
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(_processor_seconds() - before, 2),
        "anonymous_mb": round(samples.most / 1e3, 1),
        "largest_rss_mb": round(samples.most_resident / 1e3, 1),
        "curve": samples.curve(),
        "said": lines[-1:],
    }


def _processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    told = os.times()
    return told.children_user + told.children_system


class Samples:
    """Memory of a process and all that it started, in kB, sampled by a thread."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._found: list[tuple[float, int]] = []
        self.most_resident = 0
        self._done = threading.Event()
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    @property
    def most(self) -> int:
        return max((size for _, size in self._found), default=0)

    def curve(self) -> list[tuple[float, float]]:
        """Seconds from the start, and MB: the largest of each of CURVE_POINTS stretches."""
        step = max(1, -(-len(self._found) // CURVE_POINTS))
        parts = [self._found[start : start + step] for start in range(0, len(self._found), step)]
        return [(round(part[0][0], 1), round(max(size for _, size in part) / 1e3, 1)) for part in parts]

    def _watch(self) -> None:
        while not self._done.wait(SAMPLED_S):
            anonymous = resident = 0
            for pid in self._pids():
                found = _status(pid)
                anonymous += found.get("RssAnon", 0) + found.get("RssShmem", 0)
                resident += found.get("VmRSS", 0)
            self._found.append((time.perf_counter() - self._began, anonymous))
            self.most_resident = max(self.most_resident, resident)

    def _pids(self) -> list[int]:
        try:
            return [self._root.pid, *(child.pid for child in self._root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return {}
    pairs = (line.split() for line in lines if line.startswith(("RssAnon", "RssShmem", "VmRSS")))
    return {name.rstrip(":"): int(size) for name, size, *_ in pairs}


# -- steps -------------------------------------------------------------------------------------------------------------


class Work:
    """The folder, the features and the run of one number of images, and the results kept of them."""

    def __init__(self, images: int, clusters: str) -> None:
        WORK.mkdir(exist_ok=True)
        self.images, self.clusters = images, clusters
        self.folder, self.features = image_folder(images), feature_file(images)
        self.run = WORK / f"scale-{images}-{clusters}.shoal"
        self._key = str(images) if clusters == "100" else f"{images}, {clusters} clusters"

    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = read_results().get(self._key, {})
        return found

    def keep(self, name: str, found: dict[str, Any]) -> None:
        sizes = read_results()
        told = {**found, "curve": told_curve(found["curve"])} if "curve" in found else found
        sizes[self._key] = {**self.kept(), name: told}
        write_result(NAME, {"sizes": sizes, "ratios": ratios(sizes)})

    def clustered(self) -> Path:
        """The run, made now if no earlier step made it."""
        if not (self.run / "run.json").is_file():
            self.keep("cluster", cluster(self))
        return self.run

    def one_image(self) -> Path:
        return self.folder / path_of(self.images // 2)


def tables(work: Work) -> dict[str, Any]:
    run = _tables_run(work)
    shutil.rmtree(run, ignore_errors=True)
    return _staged((sys.executable, "-c", TABLES, work.folder, work.features, run), run)


def again(work: Work) -> dict[str, Any]:
    run = _tables_run(work)
    if not (run / "run.json").is_file():
        tables(work)
    found = _staged((sys.executable, "-c", TABLES, work.folder, work.features, run), run)
    shutil.rmtree(run)
    return found


def _tables_run(work: Work) -> Path:
    return WORK / f"scale-tables-{work.images}.shoal"


def cluster(work: Work) -> dict[str, Any]:
    shutil.rmtree(work.run, ignore_errors=True)
    options = ("--embeddings", work.features, "--out", work.run, "--clusters", work.clusters)
    return _staged((*SHOAL, "cluster", work.folder, *options), work.run)


def _staged(command: Sequence[str | Path], run: Path) -> dict[str, Any]:
    """What a command took that runs stages, with the seconds of each, and the most memory while it ran."""
    found = measured(command)
    told = json.loads((run / "run.json").read_text())["stages"]
    stages = {name: told[name]["seconds"] for name in IN_ORDER if name in told}
    assert len(stages) == len(told), sorted(told)
    at, most = max(0.0, found["seconds"] - sum(stages.values())), {}
    for name, seconds in stages.items():  # each begins as one ends
        most[name] = max((size for when, size in found["curve"] if at <= when <= at + seconds), default=None)
        at += seconds
    return {**found, "stages": stages, "memory_by_stage": most}


def report(work: Work) -> dict[str, Any]:
    return measured((*SHOAL, "report", work.clustered()))


def assign(work: Work) -> dict[str, Any]:
    """All images of the folder again, with their features."""
    target = WORK / "scale-assign.csv"
    target.unlink(missing_ok=True)
    found = measured((*SHOAL, "assign", work.clustered(), work.folder, "--embeddings", work.features, "--to", target))
    target.unlink()
    return found


def similar(work: Work) -> dict[str, Any]:
    return measured((*SHOAL, "similar", work.clustered(), work.one_image()), SEVERAL)


def evaluate(work: Work) -> dict[str, Any]:
    return measured((*SHOAL, "evaluate", work.clustered(), "--labels", "folders", "--json"))


def exported(kind: str, *options: str) -> Callable[[Work], dict[str, Any]]:
    """The step that exports the run so."""

    def export(work: Work) -> dict[str, Any]:
        target = WORK / f"scale-export-{kind}"
        target.unlink(missing_ok=True)
        found = measured((*SHOAL, "export", work.clustered(), target, "--to", kind, *options))
        target.unlink(missing_ok=True)
        return found

    return export


def search(work: Work) -> dict[str, Any]:
    """One image and some words in a run that has an encoder and classes."""
    run, picture = large_run(work.images), work.one_image()
    found = {
        "find": measured((*SHOAL, "find", run, "lakeside"), SEVERAL),
        "similar": measured((*SHOAL, "similar", run, picture), SEVERAL),
        "assign": measured((*SHOAL, "assign", run, picture), SEVERAL),
    }
    for one in found.values():
        del one["curve"]
    most = max(one["anonymous_mb"] for one in found.values())
    return {"seconds": max(one["seconds"] for one in found.values()), "anonymous_mb": most, "commands": found}


def faiss(work: Work) -> dict[str, Any]:
    found = measured((library_python(WORK), HERE / "scale_faiss.py", work.features, str(FAISS_CLUSTERS)))
    return {**found, "kmeans_seconds": float(found["said"][0]), "clusters": FAISS_CLUSTERS}


STEPS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "tables": tables,
    "again": again,
    "cluster": cluster,
    "report": report,
    "assign": assign,
    "similar": similar,
    "csv": exported("csv"),
    "wide": exported("csv", "--layout", "wide"),
    "parquet": exported("parquet"),
    "folders": exported("folders", "--dry-run"),
    "evaluate": evaluate,
    "search": search,
    "faiss": faiss,
}


# -- results -----------------------------------------------------------------------------------------------------------


def read_results() -> dict[str, Any]:
    """By number of images, as text: by step, what it took."""
    file = RESULTS / f"{NAME}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["sizes"]) if file.is_file() else {}


def told_curve(curve: Sequence[tuple[float, float]]) -> str:
    """A memory curve on one line: seconds and MB."""
    return " ".join(f"{seconds:g}:{size:g}" for seconds, size in curve)


def curve_of(told: str) -> list[tuple[float, float]]:
    """What `told_curve` was told."""
    pairs = (pair.split(":") for pair in told.split())
    return [(float(seconds), float(size)) for seconds, size in pairs]


def seconds_of(kept: dict[str, Any]) -> dict[str, float]:
    """Seconds by step; of its stages and commands by `step: name`."""
    found = {name: step["seconds"] for name, step in kept.items()}
    for name, step in kept.items():
        found |= {f"{name}: {stage}": seconds for stage, seconds in step.get("stages", {}).items()}
        found |= {f"{name}: {command}": one["seconds"] for command, one in step.get("commands", {}).items()}
    return found


def memory_of(kept: dict[str, Any]) -> dict[str, float | None]:
    """Most anonymous MB by the same names."""
    found = {name: step["anonymous_mb"] for name, step in kept.items()}
    for name, step in kept.items():
        found |= {f"{name}: {stage}": size for stage, size in step.get("memory_by_stage", {}).items()}
        found |= {f"{name}: {command}": one["anonymous_mb"] for command, one in step.get("commands", {}).items()}
    return found


def ratios(sizes: dict[str, Any]) -> dict[str, float]:
    """How many times as long a million images take as 100,000, of what can be told there by the clock."""
    few, many = seconds_of(sizes.get("100000", {})), seconds_of(sizes.get("1000000", {}))
    return {name: round(many[name] / few[name], 2) for name in many if few.get(name, 0) >= 0.05}


def table(sizes: dict[str, Any]) -> str:
    """Seconds and MB of every step by number of images, as Markdown."""
    seconds, memory = ({size: tell(kept) for size, kept in sizes.items()} for tell in (seconds_of, memory_of))
    by = ratios(sizes)
    lines = [
        f"| | {' | '.join(f'{size} s | MB' for size in sizes)} | ratio |",
        f"|---|{'---:|' * (2 * len(sizes) + 1)}",
    ]
    for name in sorted({name for told in seconds.values() for name in told}):
        cells = [f"{_told(seconds[size].get(name), 2)} | {_told(memory[size].get(name), 0)}" for size in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} | {by.get(name, '')} |")
    return "\n".join(lines)


def _told(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    main()
