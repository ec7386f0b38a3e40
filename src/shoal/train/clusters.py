"""The clusters that a trained head tells, as the tables and the model of an ordinary run.

A linear softmax head divides the space of features as the nearest of K sites does: any head W, b is a ClusterModel of
the Euclidean metric, exactly. With sites o + α·w_k, the distance of x to site k is, but for what all sites share,
−2α(x·w_k + b_k) if o·w_k = −b_k − α‖w_k‖²/2 + c for all k. Of all such α, c and o, those are taken that bring the sites
nearest to the images of their clusters, so that an image far from its site is unknown.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shoal import records
from shoal.cluster import kmeans, levels
from shoal.cluster import write as clusters
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.kmeans import EUCLIDEAN
from shoal.cluster.known import MARGIN, NO_LIMIT, closeness_of, least_closeness
from shoal.cluster.model import ClusterModel
from shoal.cluster.number import silhouette
from shoal.cluster.rows import ImageRows
from shoal.cluster.space import ClusterSpace, points_of
from shoal.cluster.write import Clusters, Evidence, EvidenceRow
from shoal.embeddings import EmbeddingStore, Float32, Ids
from shoal.errors import ConfigError
from shoal.rundir import RunDir, StageResult
from shoal.train.encoders import Head

LEAST_SCALE = 1e-3  # of the least-squares fit's α, which may come out negative for heads that learned nothing


def write(run_dir: RunDir, head: Head, seed: int, method: str, words: str) -> StageResult:
    """Write clusters, levels, sweep, choose_k and the model's clusters of `head` on the run's embeddings.

    Args:
        method: the phase that trained the head.
        words: why that many clusters. Those that got no image are dropped, and counted there.
    """
    images = run_dir.read_images(["id", "path", "status", "duplicate_of"])
    status = images["status"].to_numpy(zero_copy_only=False)
    ids = np.flatnonzero(status == records.OK).astype(np.int64)
    store = EmbeddingStore.open(run_dir.embeddings)
    weight, bias = head.weight.numpy().astype(np.float64), head.bias.numpy().astype(np.float64)
    order = _used_by_size(store, ids, weight, bias)
    while True:
        model = fit(store, ids, weight[:, order], bias[order])
        points, lengths = points_of(model.space, store, ids)
        found = model.assign_points(points, lengths)
        sizes = np.bincount(found.cluster, minlength=len(order))
        if sizes.all():
            break
        del points, lengths, found  # each as large as all features
        order = order[sizes > 0]  # a head's image on a border may be the model's on the other side
    k = len(order)
    if k < weight.shape[1]:
        words = f"{words}; {weight.shape[1] - k} of them got no image"
    silhouettes = silhouette.of(points, found.cluster, EUCLIDEAN).astype(np.float32)
    means = kmeans.means_of(points, found.cluster, EUCLIDEAN)
    return clusters.write(
        run_dir,
        Clusters(
            rows=ImageRows.of(images, ids),
            cluster=found.cluster,
            confidence=found.confidence,
            unsure=found.unsure,
            silhouette=silhouettes,
            runner_up=found.runner_up,
            levels=levels.nested(points, found.cluster, means, seed, EUCLIDEAN),
            model=model,
            evidence=_evidence(points, found.cluster, means, silhouettes, sizes),
            facts={
                "k": k,
                "sentence": words,
                "method": method,
                "metric": EUCLIDEAN,
                "sizes": sizes.tolist(),
                "runners_up": [],
            },
        ),
    )


def fit(store: EmbeddingStore, ids: Ids, weight: Float64, bias: Float64) -> ClusterModel:
    """The head weight [d, K], bias [K] as sites among the features of `ids`.

    Raises:
        ConfigError: more clusters than the features have dimensions.
    """
    d, k = weight.shape
    if k > d:
        raise ConfigError(
            f"scan.clusters has value {k}; expected at most {d}, the dimensions of the encoder's features"
        )
    sums, counts, centre = _sums(store, ids, weight, bias)
    means = sums / np.maximum(counts, 1)[:, None]  # [K, d]
    lengths = np.square(weight).sum(axis=0)
    inverse = np.linalg.pinv(weight.T)  # [d, K]: the least vector with given products with the weights
    shifted, slope, level = inverse @ bias, inverse @ lengths / 2, inverse @ np.ones(k)
    # Within the span of the weights, site k minus mean k is α·(w_k − slope) + c·level − (mean_k + shifted).
    inside = weight @ inverse.T  # the projection onto that span, [d, d]
    root = np.sqrt(counts)[:, None]
    left = np.stack([((weight.T - slope) * root).ravel(), (np.tile(level, (k, 1)) * root).ravel()], axis=1)
    right = ((means @ inside.T + shifted) * root).ravel()
    (scale, constant), *_ = np.linalg.lstsq(left, right, rcond=None)
    scale = max(float(scale), LEAST_SCALE)
    constant = float(level @ _mean_gap(weight, shifted, slope, means @ inside.T, counts, scale) / (level @ level))
    origin = -shifted - scale * slope + constant * level + (centre - inside @ centre)
    space = ClusterSpace(EUCLIDEAN, origin.astype(np.float32))
    sites, anywhere = (scale * weight.T).astype(np.float32), np.full(k, -np.inf, np.float32)
    model = ClusterModel(space, sites, 1 / scale, anywhere, NO_LIMIT)
    return replace(model, least_closeness=_least_closeness(model, store, ids))


def _mean_gap(
    weight: Float64, shifted: Float64, slope: Float64, means: Float64, counts: Float64, scale: float
) -> Float64:
    """Mean over the images of what the sites lack at c = 0, [d]: the best c given α."""
    gaps = means + shifted - scale * (weight.T - slope)
    return np.asarray((gaps * counts[:, None]).sum(axis=0) / max(counts.sum(), 1))


def _sums(store: EmbeddingStore, ids: Ids, weight: Float64, bias: Float64) -> tuple[Float64, Float64, Float64]:
    """Sums of the features of each cluster [K, d], images in each [K], and the mean of all features [d]."""
    sums, counts = np.zeros(weight.T.shape), np.zeros(weight.shape[1])
    for _, features in store.blocks(ids):
        labels = (features @ weight + bias).argmax(axis=1)
        np.add.at(sums, labels, features)
        counts += np.bincount(labels, minlength=len(counts))
    return sums, counts, sums.sum(axis=0) / max(len(ids), 1)


def _used_by_size(store: EmbeddingStore, ids: Ids, weight: Float64, bias: Float64) -> npt.NDArray[np.intp]:
    """Clusters that have an image, by falling size."""
    _, counts, _ = _sums(store, ids, weight, bias)
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] > 0]


def _least_closeness(model: ClusterModel, store: EmbeddingStore, ids: Ids) -> Float32:
    """For each cluster the closeness that all but a few of its images have; that of all images for small ones."""
    points, lengths = points_of(model.space, store, ids)
    labels = model.assign_points(points, lengths).cluster
    scores = np.einsum("nd,nd->n", points, model.centroids[labels])
    scores -= np.float32(0.5) * np.einsum("kd,kd->k", model.centroids, model.centroids)[labels]
    closeness = closeness_of(points, scores, lengths, EUCLIDEAN)
    margin = MARGIN * np.abs(closeness).max()
    return least_closeness(closeness, labels, len(model.centroids), margin)


def _evidence(
    points: Float32, labels: Labels, means: Float32, silhouettes: Float32, sizes: npt.NDArray[np.int64]
) -> Evidence:
    """The number was asked for: there is no other."""
    row = EvidenceRow(
        k=len(means),
        silhouette=float(silhouettes.mean(dtype=np.float64)),
        inertia=float(np.square(points - means[labels], dtype=np.float64).sum()),
        smallest=int(sizes.min()),
        images=len(points),
        chosen=True,
    )
    return Evidence.of([row], {f"k{len(means)}": labels})
