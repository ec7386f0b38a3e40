"""Learning from corrections: the centroids are fitted anew so that they put images where people put them.

The corrected model says for every image how likely each cluster is; with the new centroids C it is to say the same
(distillation, so that what nobody touched stays), but of images that a person moved it is to say what the person said.
A cluster keeps all its centroids. With s the score of k-means, γ the model's concentration, p_c the posterior of a
cluster (the sum over its centroids of softmax(γ·s(x, C))) and t the targets:

    minimise Σ_i w_i · Σ_c −t_ic · log p_c(x_i) / Σ_i w_i + λ·γ·‖C − C₀‖² / M

by L-BFGS. Moved images weigh more than others, since there are few of them; where they are stays fixed throughout.
The others weigh as much as the corrected model is certain of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.kmeans import COSINE
from shoal.cluster.known import closeness_of, least_closeness
from shoal.corrections.model import CorrectedModel
from shoal.embeddings import Float32

ITERATIONS: Final = 40
SAMPLE: Final = 20_000  # images that nobody moved, which keep the centroids where they are; more say the same
PULL: Final = 0.05  # λ
WEIGHTS: Final = (5.0, 50.0)  # least and most that one moved image weighs
TOGETHER: Final = 0.25  # of a mean cluster, that the moved images of a cluster weigh together, within those bounds


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """The new model, its clusters numbered from 0 in the order of the old numbers, and that of every image [n]."""

    model: CorrectedModel
    labels: Labels
    numbers: dict[int, int]  # new by old


def refit(
    corrected: CorrectedModel, points: Float32, lengths: Float32, labels: Labels, pinned: npt.NDArray[np.bool_]
) -> Refit:
    """Fit anew.

    Args:
        points, lengths: [n, dims] and [n, 2] as `ClusterSpace.project` gives them.
        labels: int32 [n], the clusters now, by the numbers that `corrected` has.
        pinned: [n], images whose cluster a person chose.
    """
    order = np.argsort(corrected.numbers, kind="stable")
    fitted = replace(corrected.model, centroids=corrected.model.centroids[order])
    metric = fitted.space.metric
    clusters, owner = np.unique(corrected.numbers[order], return_inverse=True)  # owner: [M], place of its cluster
    places = np.searchsorted(clusters, labels)
    _, targets = corrected.shares(points)
    weights = np.where(pinned, _weights_of_moved(places, pinned, len(clusters)), _certainty(targets))
    targets[pinned] = 0
    targets[pinned, places[pinned]] = 1
    seen = _sample(places, pinned)
    weights = weights[seen] * np.where(pinned[seen], 1, (~pinned).sum() / max((~pinned[seen]).sum(), 1))
    centroids = _fit(points[seen], targets[seen], weights, fitted.centroids, owner, fitted.concentration, metric)
    draft = CorrectedModel(replace(fitted, centroids=centroids), owner.astype(np.int32), {})
    found = draft.shares(points)[1].argmax(axis=1)
    found[pinned] = places[pinned]
    found = _none_empty(found, places, len(clusters))
    scores = np.where(owner == found[:, None], _scores(points, centroids, metric), np.float32(-np.inf))
    closeness = closeness_of(points, scores.max(axis=1), lengths, metric)
    least = least_closeness(closeness, scores.argmax(axis=1), len(centroids))
    model = replace(draft.model, least_closeness=least)
    numbers = {int(old): new for new, old in enumerate(clusters)}
    names = {numbers[old]: name for old, name in corrected.names.items() if old in numbers}
    return Refit(CorrectedModel(model, draft.numbers, names), found.astype(np.int32), numbers)


def _sample(places: npt.NDArray[np.intp], pinned: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """All moved images, and at most SAMPLE of the others, evenly from every cluster."""
    others = np.random.default_rng(0).permutation(np.flatnonzero(~pinned))
    others = others[np.argsort(places[others], kind="stable")]
    evenly = np.linspace(0, len(others) - 1, min(len(others), SAMPLE)).astype(np.intp)
    return np.sort(np.concatenate([np.flatnonzero(pinned), others[evenly]]))


def _certainty(posterior: Float32) -> Float32:
    """How far the likeliest cluster is ahead, 0 to 1: where the model wavers, it has nothing to teach."""
    if posterior.shape[1] < 2:
        return np.ones(len(posterior), np.float32)
    second, first = np.partition(posterior, -2, axis=1)[:, -2:].T
    return np.asarray(first - second, np.float32)


def _weights_of_moved(places: npt.NDArray[np.intp], pinned: npt.NDArray[np.bool_], k: int) -> Float32:
    moved = np.bincount(places[pinned], minlength=k)
    each = np.clip(TOGETHER * len(places) / k / np.maximum(moved, 1), *WEIGHTS)
    return np.asarray(each[places], np.float32)


def _fit(
    points: Float32,
    targets: Float32,
    weights: Float32,
    start: Float32,
    owner: npt.NDArray[np.intp],
    concentration: float,
    metric: str,
) -> Float32:
    from scipy.optimize import minimize  # noqa: PLC0415  (only a refit needs it)

    loss = objective(points, targets, weights, start, owner, concentration, metric)
    found = minimize(
        loss, start.astype(np.float64).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}
    )
    return found.x.reshape(start.shape).astype(np.float32)  # type: ignore[no-any-return]


def objective(
    points: Float32,
    targets: Float32,
    weights: npt.NDArray[np.floating],
    start: Float32,
    owner: npt.NDArray[np.intp],
    concentration: float,
    metric: str,
) -> Callable[[Float64], tuple[float, Float64]]:
    """What is minimised (see the module's text): from centroids [M * dims] to the value and its slope.

    Args:
        points: [n, dims]; targets: [n, K]; weights: [n].
        start: [M, dims], C₀; owner: [M], the cluster of each centroid among the K, rising.
    """
    gamma = np.float32(concentration)
    share = (weights[:, None] / weights.sum()).astype(np.float32)
    pull = PULL * concentration / len(start)
    firsts = np.searchsorted(owner, np.arange(targets.shape[1]))

    def loss(flat: Float64) -> tuple[float, Float64]:
        centroids = flat.reshape(start.shape).astype(np.float32)
        logits = gamma * _scores(points, centroids, metric)  # [n, M]
        top = np.maximum.reduceat(logits, firsts, axis=1)  # [n, K], of each cluster's centroids
        part = np.exp(logits - top[:, owner])
        sums = np.add.reduceat(part, firsts, axis=1)
        part /= sums[:, owner]  # of a centroid in its cluster
        logarithm = top + np.log(sums)
        logarithm -= logarithm.max(axis=1, keepdims=True)
        logarithm -= np.log(np.exp(logarithm).sum(axis=1, keepdims=True))  # of each cluster's posterior
        value = -float((share * targets * logarithm).sum(dtype=np.float64))
        error = share * gamma * part * (np.exp(logarithm) - targets)[:, owner]  # d value / d score
        slope = (error.T @ points).astype(np.float64)
        if metric != COSINE:
            slope -= error.sum(axis=0, dtype=np.float64)[:, None] * centroids
        away = flat.reshape(start.shape) - start
        return value + pull * float((away**2).sum()), (slope + 2 * pull * away).ravel()

    return loss


def _scores(points: Float32, centroids: Float32, metric: str) -> Float32:
    scores: Float32 = points @ centroids.T
    if metric != COSINE:
        scores -= np.float32(0.5) * np.einsum("kd,kd->k", centroids, centroids)
    return scores


def _none_empty(found: npt.NDArray[np.intp], before: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.intp]:
    """A cluster that would lose all its images keeps those it had: a person named or made it."""
    for cluster in np.flatnonzero(np.bincount(found, minlength=k) == 0):
        found[before == cluster] = cluster
    return found
