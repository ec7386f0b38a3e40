"""Running benchmarks: methods by backbones by seeds, each result once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.bench import data, results, transfer
from shoal.bench.benchmarks import BENCHMARKS, TRANSFER, Benchmark
from shoal.bench.data import Places
from shoal.bench.embedded import Embedded, embed, label_places
from shoal.bench.placement import Outcome, Placed, by_pipeline, by_reference
from shoal.bench.references import REFERENCES
from shoal.bench.request import AUTO, TRUE, BenchRequest
from shoal.bench.results import Absence, Task
from shoal.config import DENSITY
from shoal.cores import core_count
from shoal.errors import DataAbsentError, ShoalError, WeightsError, WorkError
from shoal.evaluate.agreement import Agreement, agreement
from shoal.evaluate.evaluate import neighbour_purity
from shoal.evaluate.labels import read_labels
from shoal.pipeline import STAGE_VERSION
from shoal.progress import Progress
from shoal.rundir import digest_of, versions


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Labels of a run's images, duplicates too, and the place of each among the usable images."""

    names: npt.NDArray[np.str_]
    places: npt.NDArray[np.int64]

    def compare(self, placed: Placed) -> Agreement:
        known = (placed.confidence, placed.unsure, placed.ranked)
        confidence, unsure, ranked = (None if values is None else values[self.places] for values in known)
        return agreement(
            self.names,
            placed.clusters[self.places],
            confidence=confidence,  # type: ignore[arg-type]
            unsure=unsure,  # type: ignore[arg-type]
            ranked=ranked,  # type: ignore[arg-type]
        )

    def digest(self) -> str:
        return digest_of(self.names.tolist(), self.places.tolist())


@dataclass(slots=True)
class Tally:
    """How many of the results asked for are there, and what cannot be had, with why."""

    results: int = 0
    absences: list[Absence] = field(default_factory=list)


def run(request: BenchRequest, progress: Progress) -> Tally:
    """Run what was asked and is not there yet.

    A benchmark whose data, weights or packages are not on this machine is no error: the table says so.

    Raises:
        RequestError: the request was wrong.
    """
    results.require_own(request.out)
    whole = Tally()
    for name in dict.fromkeys(request.names):
        tally = Tally()
        if name == TRANSFER:
            tally.results, tally.absences = transfer.run(request, progress)
        else:
            _run_benchmark(BENCHMARKS[name], request, tally, progress)
        results.write_absences(request.out, name, tally.absences)
        whole.results += tally.results
        whole.absences += tally.absences
    return whole


def _run_benchmark(benchmark: Benchmark, request: BenchRequest, tally: Tally, progress: Progress) -> None:
    try:
        splits = data.find(benchmark.data, Places.of(request))
    except DataAbsentError as error:
        tally.absences.append(Absence(benchmark.name, "", str(error)))
        progress.say(f"{benchmark.title}: not run here: {error}")
        return
    for backbone in request.chosen_backbones:
        try:
            for features in request.chosen_features:
                progress.say(f"{benchmark.title}: {backbone}, {features} features")
                embedded = embed(request, benchmark.data, splits, backbone, features, progress)
                _Series(benchmark, request, embedded, backbone, features).run(tally, progress)
        except WeightsError as error:  # then they are missing for other features too: asking a hub takes a minute
            tally.absences.append(Absence(benchmark.name, backbone, str(error)))
            progress.say(f"  not run here: {error}")
        except WorkError as error:  # no usable image, a full disk: other benchmarks may fare better
            tally.absences.append(Absence(benchmark.name, backbone, str(error), failed=True))
            progress.say(f"  failed: {error}")


class _Series:
    """All methods and seeds on one set of embeddings."""

    def __init__(
        self, benchmark: Benchmark, request: BenchRequest, embedded: Embedded, backbone: str, features: str
    ) -> None:
        self._benchmark, self._request, self._embedded = benchmark, request, embedded
        self._backbone, self._features = backbone, features
        self._truths = {
            name: Truth(*label_places(run, benchmark.labels, benchmark.label_of))
            for name, run in (("fitted", embedded.train), ("reported", embedded.reported))
        }
        self._classes = benchmark.classes or len(np.unique(self._truths["fitted"].names))
        self._inputs = {
            "embeddings": embedded.digest(),
            "labels": [truth.digest() for truth in self._truths.values()],
            "versions": {**versions(), "cluster stage": STAGE_VERSION["cluster"]},
        }

    def run(self, tally: Tally, progress: Progress) -> None:
        for method in self._request.methods:
            reference = REFERENCES.get(method)
            if reference is not None and not reference.is_installed:
                why = f"package {reference.package} is not installed (pip install {reference.package})"
                tally.absences.append(Absence(self._benchmark.name, method, why))
                progress.say(f"  {method}: {why}")
                continue
            seeds = range(self._request.seeds if reference is None or reference.is_random else 1)
            for clusters in self._request.clusters:
                if _can(method, clusters):
                    self._run_seeds(method, clusters, seeds, tally, progress)

    def _run_seeds(self, method: str, clusters: str, seeds: range, tally: Tally, progress: Progress) -> None:
        """One line of the table; where a seed fails, the seeds after it are not tried."""
        for seed in seeds:
            task = self._task(method, clusters, seed)
            what = f"{method}, {clusters} clusters, seed {seed}"
            try:
                if results.read(self._embedded.root, task, self._inputs) is None:
                    self._make(task, progress)
            except ShoalError as error:
                tally.absences.append(Absence(self._benchmark.name, what, str(error), failed=True))
                progress.say(f"  {what}: {error}")
                return
            tally.results += 1

    def _task(self, method: str, clusters: str, seed: int) -> Task:
        asked = self._request
        return Task(
            self._benchmark.name, self._backbone, self._features, asked.resize, asked.limit, method, clusters, seed
        )

    def _make(self, task: Task, progress: Progress) -> None:
        outcome = self._outcome(task)
        fitted = self._truths["fitted"].compare(outcome.fitted)
        reported = self._truths["reported"].compare(outcome.reported)
        values = {
            **self._shared,
            "seconds": {**self._shared["seconds"], **outcome.seconds},
            "fitted": results.figures(fitted),
            "reported": results.figures(reported),
            "details": results.details(reported),
            "facts": outcome.facts,
            "placed": {"fitted": outcome.fitted.digest(), "reported": outcome.reported.digest()},
        }
        results.write(self._embedded.root, task, values)
        progress.say(
            f"  {task.method}, {task.clusters}, seed {task.seed}: ACC {100 * reported.acc:.1f}  "
            f"NMI {100 * reported.nmi:.1f}  ({outcome.facts['k']} clusters, {outcome.seconds['fit']:.1f} s)"
        )

    def _outcome(self, task: Task) -> Outcome:
        clusters = str(self._classes) if task.clusters == TRUE else task.clusters
        if task.method in REFERENCES:
            return by_reference(self._embedded, task.method, None if clusters == AUTO else int(clusters), task.seed)
        config = self._request.config(
            self._embedded.splits.train,
            self._backbone,
            self._features,
            method=task.method,
            clusters=clusters,
            seed=task.seed,
        )
        return by_pipeline(self._embedded, config)

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """What the results of all methods and seeds have in common."""
        labels = read_labels(self._embedded.train, self._benchmark.labels).renamed(self._benchmark.label_of)
        purity = neighbour_purity(self._embedded.train, labels)
        return {
            "inputs": self._inputs,
            "images": self._embedded.facts(),
            "classes": self._classes,
            "neighbour_purity": {str(k): value for k, value in purity.items()},
            "seconds": self._embedded.seconds(),
            "cores": core_count(),
        }


def _can(method: str, clusters: str) -> bool:
    """Whether the method can be asked for so many clusters at all; other packages take one number, or none."""
    reference = REFERENCES.get(method)
    if reference is None:
        return method != DENSITY or clusters == AUTO
    if clusters == AUTO:
        return reference.without_count
    return reference.with_count and (clusters == TRUE or clusters.isdigit())
