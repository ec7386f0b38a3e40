"""How many clusters a training makes, and whether there are images and dimensions enough for them."""

from __future__ import annotations

from torch import Tensor

from shoal.cluster.number.choose_k import choose
from shoal.errors import ConfigError, TooFewImagesError
from shoal.train.features import standardised
from shoal.train.training import Training

LEAST_IMAGES = 4  # for scan: two to learn from, two to judge by


def clusters(training: Training, features: Tensor) -> tuple[int, str]:
    """--clusters, or the recipe's, or the number that k-means on the features float32 [n, d] finds best; and why."""
    asked = asked_for(training)
    if asked is None:
        found = choose(standardised(features), training.clusters, training.seed)
        return found.chosen.k, found.sentence
    return (
        asked,
        f"{asked} clusters were asked for" if training.clusters.is_fixed else f"the recipe has {asked} clusters",
    )


def asked_for(training: Training) -> int | None:
    """Clusters by --clusters, or else by the recipe; None if the number is to be found."""
    if training.clusters.is_fixed:
        return training.clusters.values[0]
    return training.config.scan.clusters if training.clusters.is_auto else None


def require_room(training: Training, dim: int) -> None:
    """Are there images, and dimensions of the features, for as many clusters as will be made?

    Args:
        dim: of the encoder's features.

    Raises:
        ConfigError, TooFewImagesError: there are not.
    """
    asked = asked_for(training) or min(training.clusters.values, default=2)
    by_scan = training.config.scan.epochs > 0
    images, least = len(training.chosen if by_scan else training.pixels), max(asked, LEAST_IMAGES if by_scan else 2)
    if images < least:
        raise TooFewImagesError(
            f"{images} usable images are fewer than {least}, which {'scan' if by_scan else 'clustering'} needs"
        )
    if training.is_taught and asked_for(training) and asked > dim:
        raise ConfigError(
            f"--clusters has value {asked}; expected at most {dim}, the dimensions of the encoder's features, for "
            "self-labelling"
        )
    if by_scan and asked > dim:
        raise ConfigError(
            f"scan.clusters has value {asked}; expected at most {dim}, the dimensions of the encoder's features"
        )
