"""The files that a model's clusters lie in: clusters.safetensors, clusters.json, names.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from shoal import atomic, foreign
from shoal.cluster.arrays import Labels
from shoal.cluster.confidence import Landmarks
from shoal.cluster.consensus import Consensus
from shoal.cluster.kmeans import COSINE
from shoal.cluster.known import NO_LIMIT
from shoal.config import METRICS, MOST_NUMBERS
from shoal.embeddings import Float32
from shoal.errors import RunError
from shoal.foreign import INTEGERS, Tensors
from shoal.runfiles import Folder
from shoal.typed import Between, OneOf

FORMAT_VERSION = 1
NAMES = "names.json"  # of clusters, as people gave them


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A model's clusters.json."""

    format_version: Annotated[int, Between(0)]
    metric: Annotated[str, OneOf(METRICS)]
    clusters: Annotated[int, Between(1, MOST_NUMBERS)]
    concentration: Annotated[float, Between(0, NO_LIMIT)]
    most_outside: Annotated[float, Between(0, NO_LIMIT)] = NO_LIMIT  # models of before 2026-11-24 have none

    @classmethod
    def read(cls, path: Path) -> ClusterFacts:
        """Raises RunError if there are none, or none that this version reads."""
        try:
            facts = foreign.read_json(path, cls)
        except FileNotFoundError as error:
            raise RunError(f"{path} is not there: this model has no clusters") from error
        if facts.format_version > FORMAT_VERSION:
            raise RunError(
                f"{path}: format_version has value {facts.format_version}; expected at most {FORMAT_VERSION}: "
                "upgrade Shoal to open it"
            )
        return facts


def write_clusters(
    folder: Folder, facts: ClusterFacts, tensors: Mapping[str, npt.NDArray[np.generic]], names: Mapping[int, str]
) -> None:
    """Write what `read_clusters` reads and, if there are names, those."""
    with atomic.replacing(folder / "clusters.safetensors") as temporary:
        save_file(dict(tensors), temporary)
    atomic.write_json(folder / "clusters.json", asdict(facts))
    if names:
        atomic.write_json(folder / NAMES, {str(cluster): name for cluster, name in names.items()})


def read_clusters(folder: Folder) -> tuple[ClusterFacts, dict[str, Float32], Labels]:
    """Facts and tensors of a model folder's clusters, and the cluster [K] of each centroid.

    Shapes are checked before anything is read.

    Raises:
        RunError: there are none, or a value or a shape that no clusters have.
    """
    facts = ClusterFacts.read(folder / "clusters.json")
    file = Tensors.of(folder / "clusters.safetensors", "clusters")
    (d,) = file.shape("mean", (None,))
    dims = _dims(file, d, facts.metric)
    count, _ = file.shape("centroids", (None, dims))
    file.shape("least_closeness", (count,))
    landmarks, trust = Landmarks.names()
    if landmarks in file.found:
        file.shape(trust, (file.shape(landmarks, (None, dims))[0],))
    tensors = file.read("mean", "basis", "scales", "centroids", "least_closeness", landmarks, trust, *Consensus.names())
    return facts, tensors, _numbers(file, count)


def _dims(file: Tensors, d: int, metric: str) -> int:
    """Dimensions of the points that a space of `d` features makes, by the shapes of its tensors."""
    if "basis" not in file.found:
        if metric == COSINE and "scales" in file.found:
            file.shape("basis", (d, None))
        return d
    _, inner = file.shape("basis", (d, None))
    file.shape("scales", (inner,))
    weights, bias, scale, centre, directions = Consensus.names()
    if weights not in file.found:
        return inner
    _, heads, k = file.shape(weights, (inner, None, None))
    file.shape(bias, (heads, k))
    file.shape(scale, (heads * k,))
    file.shape(centre, (heads * k,))
    return file.shape(directions, (heads * k, None))[1]


def _numbers(file: Tensors, count: int) -> Labels:
    if "numbers" not in file.found:
        return np.arange(count, dtype=np.int32)
    file.shape("numbers", (count,), INTEGERS)
    numbers = file.read("numbers")["numbers"]
    if not 0 <= numbers.min() <= numbers.max() < MOST_NUMBERS:
        raise RunError(
            f"{file.path}: tensor 'numbers' goes from {numbers.min()} to {numbers.max()}; expected numbers of "
            f"clusters, from 0 to {MOST_NUMBERS - 1:,}"
        )
    return numbers.astype(np.int32)
