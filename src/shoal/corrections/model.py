"""The clusters' model after a person's corrections: what puts a new image where the corrected clusters want it.

A cluster may have several centroids: merged clusters keep those of each, and their confidence is the sum, as the
posterior of a mixture has it. Parts of a split and new clusters get the mean of their images. The noise has none:
nothing new is taken for noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shoal import foreign
from shoal.cluster import kmeans
from shoal.cluster.arrays import Labels
from shoal.cluster.kmeans import COSINE
from shoal.cluster.known import KNOWN_SHARE, closeness_of
from shoal.cluster.model import Assignment, ClusterModel
from shoal.cluster.model_file import NAMES
from shoal.cluster.space import points_of
from shoal.corrections.corrected import NONE, Corrected
from shoal.corrections.edit import Names
from shoal.corrections.shown import ShownName, read_guesses, shown_names
from shoal.embeddings import EmbeddingStore, Float32, normalise_rows
from shoal.names import guesses_file
from shoal.names.guesses_file import Guesses
from shoal.rundir import RunDir
from shoal.runfiles import GUESSES, Folder

BLOCK_SHARES = 1 << 22  # of images in clusters, that are held at once


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedModel:
    """Centroids that belong to numbered clusters; several may belong to one.

    Attributes:
        model: its `centroids` [M, dims] and `least_closeness` [M].
        numbers: int32 [M], the cluster of each centroid.
        names: that people gave; guesses: of what the clusters show, if there are any.
    """

    model: ClusterModel
    numbers: Labels
    names: dict[int, str]
    guesses: Guesses | None = None

    @property
    def shown(self) -> dict[int, ShownName]:
        """What the clusters are called."""
        return shown_names(self.names, self.guesses)

    def assign(self, features: Float32) -> Assignment:
        """Assign raw features float32 [n, d]; `runner_up` is -1 where there is one cluster only."""
        return self.assign_points(*self.model.space.project(features))

    def assign_points(self, points: Float32, lengths: Float32) -> Assignment:
        """Assign points [n, dims] of the space; `lengths` [n, 2] as `ClusterSpace.project` gives them."""
        if np.array_equal(self.numbers, np.arange(len(self.numbers))):
            return self.model.assign_points(points, lengths)
        rows = max(1, BLOCK_SHARES // max(len(self.numbers), 1))
        blocks = (slice(start, start + rows) for start in range(0, max(len(points), 1), rows))
        return Assignment.together([self._assigned(points[where], lengths[where]) for where in blocks])

    def _assigned(self, points: Float32, lengths: Float32) -> Assignment:
        clusters, shares = self.shares(points)
        best = shares.argmax(axis=1)
        cluster, confidence = clusters[best], shares[np.arange(len(shares)), best]
        confidence = self.model.trusted(confidence, points, len(clusters))
        shares[np.arange(len(shares)), best] = -np.inf
        runner_up = clusters[shares.argmax(axis=1)] if len(clusters) > 1 else np.full(len(points), NONE, np.int32)
        closeness, least = self._closeness(points, lengths, cluster)
        unknown = (closeness < least) | (lengths[:, 1] > self.model.most_outside)
        return Assignment.of(cluster, confidence, runner_up, unknown)

    def probabilities(self, features: Float32) -> tuple[Labels, Float32]:
        """Clusters [n, K] and the confidence in each [n, K], most likely first."""
        points = self.model.space.transform(features)
        clusters, shares = self.shares(points)
        shares = self.model.trusted(shares, points, len(clusters))
        order = np.argsort(-shares, axis=1, kind="stable")
        return clusters[order], np.take_along_axis(shares, order, axis=1)

    def shares(self, points: Float32) -> tuple[Labels, Float32]:
        """Clusters [K] that have a centroid, rising, and the posterior of each [n, K]."""
        order = np.argsort(self.numbers, kind="stable")
        clusters, starts = np.unique(self.numbers[order], return_index=True)
        shares = np.zeros((len(points), len(clusters)), np.float32)
        for where, scores in kmeans.score_blocks(points, self.model.centroids, metric=self.model.space.metric):
            posterior = np.exp(self.model.concentration * (scores - scores.max(axis=1, keepdims=True)))
            posterior /= posterior.sum(axis=1, keepdims=True)
            shares[where] = np.add.reduceat(posterior[:, order], starts, axis=1)
        return clusters.astype(np.int32), shares

    def _closeness(self, points: Float32, lengths: Float32, cluster: Labels) -> tuple[Float32, Float32]:
        """How close each point lies to the nearest centroid of its cluster, and how close it must at the least."""
        closeness, least = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
        metric = self.model.space.metric
        for where, scores in kmeans.score_blocks(points, self.model.centroids, metric=metric):
            own = np.where(self.numbers[None, :] == cluster[where, None], scores, -np.inf)
            nearest = own.argmax(axis=1)
            best = np.take_along_axis(own, nearest[:, None], axis=1)[:, 0].astype(np.float32)
            closeness[where] = closeness_of(points[where], best, lengths[where], metric)
            least[where] = self.model.least_closeness[nearest]
        return closeness, least


def load_model(folder: Folder) -> CorrectedModel:
    """The clusters of a model folder as they lie there, with the names beside them.

    Raises:
        RunError: there are none that can be read.
    """
    return replace(_load(folder), guesses=guesses_file.read(folder / GUESSES))


def _load(folder: Folder) -> CorrectedModel:
    model, numbers = ClusterModel.load_numbered(folder)
    return CorrectedModel(model, numbers, _read_names(folder))


def corrected_model(run_dir: RunDir, corrected: Corrected) -> CorrectedModel:
    """The model of a run after its edits. Only the images of clusters that splits and moves made are read.

    Raises:
        RunError: the run has no readable model.
    """
    return replace(corrected_clusters(run_dir, corrected), guesses=read_guesses(run_dir, corrected))


def corrected_clusters(run_dir: RunDir, corrected: Corrected) -> CorrectedModel:
    """The model of a run after its edits, without guesses: to make those anew, all images are looked through.

    Raises:
        RunError: the run has no readable model.
    """
    fitted = _load(corrected.source.model)
    if not corrected.is_changed:
        return fitted
    made = sorted(
        number for number in corrected.made if number != corrected.noise and (corrected.cluster == number).any()
    )
    now = corrected.follow[fitted.numbers]
    gone = [*made, corrected.noise if corrected.noise is not None else NONE]
    kept = np.flatnonzero(~np.isin(now, gone) & np.isin(now, corrected.numbers))
    centroids, least = [fitted.model.centroids[kept]], [fitted.model.least_closeness[kept]]
    for number in made:
        centroid, close = _centroid(run_dir, fitted.model, corrected, number)
        centroids.append(centroid)
        least.append(close)
    model = replace(fitted.model, centroids=np.concatenate(centroids), least_closeness=np.concatenate(least))
    numbers = np.r_[now[kept], made].astype(np.int32)
    return CorrectedModel(model, numbers, corrected.names)


def _read_names(folder: Folder) -> dict[int, str]:
    try:
        found: dict[int, str] = foreign.read_json(folder / NAMES, Names)
    except FileNotFoundError:
        return {}
    return found


def _centroid(
    run_dir: RunDir, fitted: ClusterModel, corrected: Corrected, number: int
) -> tuple[Float32, npt.NDArray[np.float32]]:
    """Mean [1, dims] of a cluster's images, and how close an image must lie to it [1]."""
    ids = np.unique(corrected.ids[corrected.original[corrected.cluster == number]])
    points, lengths = points_of(fitted.space, EmbeddingStore.open(run_dir.embeddings), ids)
    metric = fitted.space.metric
    centroid = points.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
    if metric == COSINE:
        normalise_rows(centroid)
    scores = np.concatenate([block for _, block in kmeans.score_blocks(points, centroid, metric=metric)])[:, 0]
    closeness = closeness_of(points, scores, lengths, metric)
    typical = float(np.median(fitted.least_closeness))  # a few images say little about how far is too far
    return centroid, np.array([min(typical, float(np.quantile(closeness, 1 - KNOWN_SHARE)) - 1e-4)], np.float32)
