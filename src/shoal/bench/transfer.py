"""The transfer project's experiment: k-means on a supervised network's features, and the silhouette over K."""

from __future__ import annotations

from shoal.bench.request import BenchRequest
from shoal.bench.results import Absence
from shoal.progress import Progress


def run(request: BenchRequest, absences: list[Absence], progress: Progress) -> None:
    raise NotImplementedError
