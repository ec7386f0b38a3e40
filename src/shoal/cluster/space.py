"""The space in which clusters are made, and the way there from raw features.

For the cosine metric: signed square root (it keeps a few loud channels from deciding everything), unit length,
centring, the leading principal directions with half their whitening (each divided by the fourth root of its variance),
unit length again. The choices were compared on two labelled sets that serve nothing else; see docs/decisions.md.
For the Euclidean metric: the raw features, only moved so that their mean is zero, which changes no distance. Where
those are too large to hold, clusters are made of coordinates with the same distances (see `cluster_points`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from shoal import blas
from shoal.cluster import threads
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.consensus import Consensus
from shoal.cluster.kmeans import COSINE, EUCLIDEAN, cluster_sums
from shoal.embeddings import Float32, Ids, normalise_rows

DIMS: Final = 64
LARGEST_DIMS: Final = 512  # of a Euclidean space that can be neither held nor rotated
LEAST_DIMS: Final = 16
DIMS_PER_ROOT: Final = 1.5  # dims grow with the square root of the number of images: few images, few sound directions
WHITENING: Final = 0.5  # 0 leaves the variances as they are, 1 makes them equal

BLOCK_VALUES = 1 << 23  # feature values read at once (32 MB as float32)
COVARIANCE_DIM = 4096  # up to this many dimensions the covariance matrix is held; beyond it is only ever applied
SPARE_DIRECTIONS = 32
HELD_ROUNDS = 12  # rounds of subspace iteration with the covariance matrix in memory ...
STREAMED_ROUNDS = 4  # ... and by passes over the features
NEGLIGIBLE = 1e-7  # directions with less than this part of the largest variance are rounding
ROUNDING_LENGTH = 1e-6  # unit features that lie nearer to the mean than this are equal to it
POINT_VALUES = 1 << 27  # Euclidean points of up to this many values (512 MB) are held as they are
ROTATED_IMAGES = 8_192  # up to this many images the Gram matrix of a huge Euclidean space is held


class Rows(Protocol):
    """Rows of raw features by id: the embeddings of a run, or an array."""

    @property
    def dim(self) -> int: ...

    def read(self, ids: Ids, columns: slice = slice(None)) -> Float32:
        """Rows of `ids`, in that order, as a new array, or only some of its columns."""
        ...

    def blocks(self, ids: Ids, size: int = 8192) -> Iterator[tuple[slice, Float32]]:
        """Yield (slice into ids, rows) for consecutive blocks of `ids`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ArrayRows:
    """`Rows` of an array [n, d] in memory; the id of a row is its place."""

    values: Float32

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def read(self, ids: Ids, columns: slice = slice(None)) -> Float32:
        return self.values[ids][:, columns]

    def blocks(self, ids: Ids, size: int = 8192) -> Iterator[tuple[slice, Float32]]:
        for start in range(0, len(ids), size):
            where = slice(start, min(start + size, len(ids)))
            yield where, self.read(ids[where])


@dataclass(frozen=True, slots=True, eq=False)
class ClusterSpace:
    """A map from raw features [n, d] to points [n, dims]; made by `fit_space`, saved with the model.

    Attributes:
        metric: `cosine` or `euclidean`.
        mean: float32 [d], of the prepared features.
        basis: float32 [d, dims] with orthonormal columns; None for the Euclidean metric.
        scales: float32 [dims], what each direction is multiplied by; None for the Euclidean metric.
        consensus: for learned clusters, what makes points of the coordinates in place of unit length.
    """

    metric: str
    mean: Float32
    basis: Float32 | None = None
    scales: Float32 | None = None
    consensus: Consensus | None = None

    @property
    def dim(self) -> int:
        """Dimensions of the raw features."""
        return len(self.mean)

    @property
    def dims(self) -> int:
        """Dimensions of the points."""
        if self.basis is None:
            return self.dim
        return int((self.basis if self.consensus is None else self.consensus.directions).shape[1])

    @property
    def plain(self) -> ClusterSpace:
        """The space for looking at single images and at parts of clusters: this one, unless it is of learned clusters.

        In a consensus the images of one cluster are all alike. The leading directions of the space beneath it are
        those that k-means would use, and the roots of a whole whitening are half of one.
        """
        return self if self.consensus is None else self.half_whitened()

    def half_whitened(self) -> ClusterSpace:
        """The leading directions of a wholly whitened space (cosine metric), whitened by half as for k-means."""
        assert self.basis is not None
        assert self.scales is not None
        basis, scales = self.basis[:, :DIMS], np.sqrt(self.scales[:DIMS] / self.scales[0])
        return ClusterSpace(self.metric, self.mean, np.ascontiguousarray(basis), scales)

    def transform(self, features: Float32) -> Float32:
        """Points float32 [n, dims] of raw features [n, d]; rows of length 1 if the metric is cosine."""
        return self.project(features)[0]

    def project(self, features: Float32, unit: bool = True) -> tuple[Float32, Float32]:
        """Points [n, dims], and how long each centred feature is inside the space and outside it, [n, 2].

        `unit=False` leaves the points as long as they are (cosine metric without a consensus).
        """
        centred: Float32 = _prepared(features, self.metric) - self.mean
        if self.basis is None or self.scales is None:
            return centred, np.stack([_lengths(centred), np.zeros(len(centred), np.float32)], axis=1)
        coordinates: Float32 = centred @ self.basis
        lengths = _inside_and_outside(centred, coordinates)
        coordinates *= self.scales
        coordinates[np.hypot(*lengths.T) < ROUNDING_LENGTH] = 0  # a feature that is the mean has no direction
        if self.consensus is not None:
            return self.consensus.transform(coordinates), lengths
        return normalise_rows(coordinates) if unit else coordinates, lengths


def fit_space(
    store: Rows,
    ids: Ids,
    metric: str,
    rng: np.random.Generator,
    *,
    dims: int | None = None,
    whitening: float = WHITENING,
) -> ClusterSpace:
    """Find the space from the features of `ids`, read in blocks; memory does not grow with their number.

    For the cosine metric `dims` directions are kept (None takes as many as that number of images can tell) and
    `whitening` goes from 0, variances as they are (but the largest is 1), to 1, every variance 1.
    """
    if metric == EUCLIDEAN:
        return ClusterSpace(EUCLIDEAN, _mean(store, ids, metric).astype(np.float32))
    if dims is None:
        dims = int(min(DIMS, max(LEAST_DIMS, round(DIMS_PER_ROOT * len(ids) ** 0.5)), len(ids) - 1, store.dim))
    mean, apply = _moments(store, ids, metric)
    basis, variances = leading_directions(apply, store.dim, max(dims, 1), _rounds(store), rng)
    kept = max(1, int(np.sum(variances > NEGLIGIBLE * variances[0])))
    basis, variances = basis[:, :kept], variances[:kept]
    scales = np.divide(variances[0], variances, out=np.ones(kept), where=variances > 0) ** (whitening / 2)
    if variances[0] > 0:
        scales /= variances[0] ** 0.5  # the first direction has variance 1; unit points do not mind
    return ClusterSpace(COSINE, mean.astype(np.float32), basis.astype(np.float32), scales.astype(np.float32))


def points_of(space: ClusterSpace, store: Rows, ids: Ids, unit: bool = True) -> tuple[Float32, Float32]:
    """`space.project` of all `ids`, read in blocks: points [N, dims], and lengths inside and outside [N, 2]."""
    points, lengths = np.empty((len(ids), space.dims), np.float32), np.empty((len(ids), 2), np.float32)
    for where, features in store.blocks(ids, _rows(store)):
        points[where], lengths[where] = space.project(features, unit)
    return points, lengths


def cluster_points(space: ClusterSpace, store: Rows, ids: Ids) -> tuple[Float32, Float32]:
    """What clusters are made of: `points_of`, but for Euclidean features too large to hold other coordinates of them.

    Up to ROTATED_IMAGES images keep every distance (`rotated_points`). More of them keep only their leading principal
    directions, as many as fit, 512 at most; how long each is outside of those is the second column of the lengths.
    """
    values = len(ids) * store.dim
    if space.metric == COSINE or values <= min(POINT_VALUES, len(ids) ** 2):
        return points_of(space, store, ids)
    if len(ids) <= ROTATED_IMAGES:
        points = rotated_points(store, ids)
        return points, np.stack([_lengths(points), np.zeros(len(ids), np.float32)], axis=1)
    if values <= POINT_VALUES:
        return points_of(space, store, ids)
    _, apply = _moments(store, ids, EUCLIDEAN)
    count, rounds = min(LARGEST_DIMS, POINT_VALUES // len(ids)), _rounds(store)
    basis = leading_directions(apply, store.dim, count, rounds, np.random.default_rng(0))[0].astype(np.float32)
    points, lengths = np.empty((len(ids), count), np.float32), np.empty((len(ids), 2), np.float32)
    for where, features in store.blocks(ids, _rows(store)):
        centred = features - space.mean
        points[where] = centred @ basis
        lengths[where] = _inside_and_outside(centred, points[where])
    return points, lengths


def centroids_of(space: ClusterSpace, store: Rows, ids: Ids, labels: Labels, k: int) -> Float32:
    """Means of each cluster's points in `space` (Euclidean), float32 [k, d], whatever coordinates it was made in."""
    sums = np.zeros((k, space.dim), np.float32)
    for where, features in store.blocks(ids, _rows(store)):
        sums += cluster_sums(space.transform(features), labels[where], k)[0].astype(np.float32)
    sums /= np.bincount(labels, minlength=k)[:, None].astype(np.float32)
    return sums


def rotated_points(store: Rows, ids: Ids) -> Float32:
    """Coordinates [N, at most N] with the same Euclidean distances as the raw features [N, d], for d larger than N.

    The eigenvectors of the centred Gram matrix, scaled by the roots of its eigenvalues (principal coordinates;
    Torgerson, 1952). The features are read in blocks of columns.
    """
    gram = np.zeros((len(ids), len(ids)))
    columns = max(1, 2 * BLOCK_VALUES // len(ids))
    for start in range(0, store.dim, columns):
        block = store.read(ids, slice(start, start + columns))
        block -= block.mean(axis=0, dtype=np.float64).astype(np.float32)
        gram += block @ block.T
    values, vectors = threads.eigh(gram)
    kept = values > NEGLIGIBLE * max(values[-1], 0)
    if not kept.any():
        return np.zeros((len(ids), 1), np.float32)
    points: Float32 = (vectors[:, kept] * np.sqrt(values[kept])).astype(np.float32)[:, ::-1]
    return np.ascontiguousarray(points)


def leading_directions(
    apply: Callable[[Float64], Float64], dim: int, count: int, rounds: int, rng: np.random.Generator
) -> tuple[Float64, Float64]:
    """Leading eigenvectors [dim, count] and eigenvalues [count], falling, of the symmetric matrix that `apply` applies.

    Subspace iteration from a random start with spare directions (Halko, Martinsson and Tropp, 2011, algorithm 4.4) and
    a Rayleigh–Ritz step; exact if dim <= count + SPARE_DIRECTIONS. Signs are fixed: the largest entry is positive.
    """
    width = min(dim, count + SPARE_DIRECTIONS)
    block = np.eye(dim) if width == dim else rng.standard_normal((dim, width))
    with blas.single():
        orthonormal = np.linalg.qr(block)[0]
        for _ in range(0 if width == dim else rounds - 1):
            orthonormal = np.linalg.qr(apply(orthonormal))[0]
        inner = orthonormal.T @ apply(orthonormal)
        values, vectors = threads.eigh((inner + inner.T) / 2)
        directions = orthonormal @ vectors[:, ::-1][:, :count]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return directions * signs, np.maximum(values[::-1][:count], 0)


def _prepared(features: Float32, metric: str) -> Float32:
    """A new array: signed square roots of unit length for the cosine metric, the values as they are for the other."""
    if metric == EUCLIDEAN:
        return features.astype(np.float32)
    rooted = np.sqrt(np.abs(features), dtype=np.float32)
    return normalise_rows(np.copysign(rooted, features, out=rooted))


def _mean(store: Rows, ids: Ids, metric: str) -> Float64:
    total = np.zeros(store.dim)
    for _, features in store.blocks(ids, _rows(store)):
        total += _prepared(features, metric).sum(axis=0, dtype=np.float64)
    return total / len(ids)


def _moments(store: Rows, ids: Ids, metric: str) -> tuple[Float64, Callable[[Float64], Float64]]:
    """Mean [d] of the prepared features, and the product with their covariance matrix."""
    of = _covariance if store.dim <= COVARIANCE_DIM else _streamed_covariance
    return of(store, ids, metric)


def _rounds(store: Rows) -> int:
    return HELD_ROUNDS if store.dim <= COVARIANCE_DIM else STREAMED_ROUNDS


def _covariance(store: Rows, ids: Ids, metric: str) -> tuple[Float64, Callable[[Float64], Float64]]:
    """With the covariance matrix held: one pass over the features."""
    total, second = np.zeros(store.dim), np.zeros((store.dim, store.dim))
    for _, features in store.blocks(ids, _rows(store)):
        block = _prepared(features, metric)
        total += block.sum(axis=0, dtype=np.float64)
        second += block.T @ block
    mean = total / len(ids)
    second /= len(ids)
    second -= np.outer(mean, mean)
    return mean, lambda block: second @ block


def _streamed_covariance(store: Rows, ids: Ids, metric: str) -> tuple[Float64, Callable[[Float64], Float64]]:
    """With each product taking one pass over the features."""
    mean = _mean(store, ids, metric)

    def apply(block: Float64) -> Float64:
        product, directions = np.zeros(block.shape), block.astype(np.float32)
        for _, features in store.blocks(ids, _rows(store)):
            centred = _prepared(features, metric) - mean.astype(np.float32)
            product += centred.T @ (centred @ directions)
        return product / len(ids)

    return mean, apply


def _rows(store: Rows) -> int:
    return max(1, min(8192, BLOCK_VALUES // store.dim))


def _inside_and_outside(centred: Float32, coordinates: Float32) -> Float32:
    """Lengths [n, 2] of the part of `centred` [n, d] that has orthonormal `coordinates` [n, dims], and of the rest."""
    inside = _lengths(coordinates)
    return np.stack([inside, np.sqrt(np.maximum(_lengths(centred) ** 2 - inside**2, 0))], axis=1)


def _lengths(rows: Float32) -> npt.NDArray[np.float32]:
    lengths: Float32 = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return lengths
