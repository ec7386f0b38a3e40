"""One linear head that has learned a clustering: what becomes of it for images that were not there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.cluster.arrays import Labels, Neighbours
from shoal.cluster.consensus import Consensus
from shoal.cluster.ground.information import own_shares
from shoal.cluster.heads.adam import Adam
from shoal.cluster.heads.objectives import LinearHeads
from shoal.embeddings import Float32

STEPS, BATCH, RATE = 600, 512, 1e-2
SMOOTHING = 0.1
SURE = 0.5  # share of an image's neighbours in its cluster, to be taught; the surer half of each cluster is always
LIFTED = 8  # rounds in which clusters may take an image from another
MEAN_CONFIDENCE = 0.7


def distil(white: Float32, labels: Labels, neighbours: Neighbours, k: int, seed: int) -> Consensus | None:
    """A head for whitened points [n, d], taught `labels` [n] by the images whose neighbours share their cluster.

    Images on the border of two clusters say little of either, and what the head makes of them is better than what they
    had (sure images by the agreement of neighbours: DCBoost). None if it would leave a cluster without images, as of
    almost as many clusters as images.
    """
    random = np.random.default_rng([seed, k, 13])
    taught = np.flatnonzero(_sure(labels, neighbours, k))
    head = LinearHeads(np.zeros((k, white.shape[1]), np.float32), np.zeros(k, np.float32), 1)
    optimiser = Adam(head.parameters, RATE, STEPS)
    for _ in range(STEPS):
        images = random.choice(taught, min(BATCH, len(taught)), replace=False)
        error = head.probabilities(white[images])
        error -= np.float32(SMOOTHING / k)
        error[0, labels[images], np.arange(len(images))] -= np.float32(1 - SMOOTHING)
        optimiser.step(head.gradient(white[images], error / np.float32(len(images))))
    logits = white @ head.weights.T + head.bias
    lift = _lift(logits, labels, k)
    if lift is None:
        return None
    head.bias += lift
    logits += lift
    sharpness = _sharpness(logits)
    return Consensus.of_head(head.weights.T * sharpness, head.bias * sharpness)


def _sure(labels: Labels, neighbours: Neighbours, k: int) -> npt.NDArray[np.bool_]:
    shares = own_shares(labels, neighbours)
    sure = shares >= SURE
    for cluster in range(k):
        members = np.flatnonzero(labels == cluster)
        if len(members):
            sure[members] |= shares[members] >= np.median(shares[members])
    return sure


def _lift(logits: Float32, labels: Labels, k: int) -> Float32 | None:
    """What is added to the logits [n, k] of clusters that no image would be in, so that their own best one is, [k].

    None if that takes the last image of others.
    """
    lift = np.zeros(k, np.float32)
    for _ in range(LIFTED + 1):
        empty = np.setdiff1d(labels, (logits + lift).argmax(axis=1))
        if len(empty) == 0:
            return lift
        for cluster in empty:
            members = np.flatnonzero(labels == cluster)
            behind = float(((logits[members] + lift).max(axis=1) - logits[members, cluster] - lift[cluster]).min())
            lift[cluster] += np.float32(behind + 1e-3 * (1 + behind))
    return None


def _sharpness(logits: Float32) -> np.float32:
    """What logits [n, k] are multiplied by, so that the mean greatest probability is MEAN_CONFIDENCE.

    The likeliest cluster stays. Sharper, all images of a cluster would lie at one point, and nothing could be told of
    them but the cluster: how sure it is, and what parts of it people took out.
    """
    gaps = logits - logits.max(axis=1, keepdims=True)
    low, high = 1e-3, 1e3
    for _ in range(40):
        middle = (low * high) ** 0.5
        mean = float(np.mean(1 / np.exp(np.float32(middle) * gaps).sum(axis=1)))
        low, high = (middle, high) if mean < MEAN_CONFIDENCE else (low, middle)
    return np.float32((low * high) ** 0.5)
