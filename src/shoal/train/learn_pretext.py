"""The first phase of a training: an encoder, by a pretext task, and the features that tell neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shoal.encoder.architectures import Whitened
from shoal.errors import ConfigError
from shoal.train import checkpoint, draws, encoders, evidence, how_many, pretext
from shoal.train.gather import rank
from shoal.train.loop import train
from shoal.train.outcome import Outcome
from shoal.train.training import FEATURES, PRETEXT, Training

SOME_CLUSTERS = 20  # by which encoders are compared where nobody said how many


def learn(training: Training) -> None:
    """The encoder, by the pretext task; with no epochs, as it starts (from its weights), but for a whitening.

    Where it starts from weights, what it learned is kept only if it tells the images apart better than before.

    Raises:
        ConfigError, TooFewImagesError: scan could not be done after it; told before hours are spent.
    """
    if training.config.pretext.epochs == 0 and training.config.encoder.weights is None:
        raise ConfigError("pretext.epochs is 0 and encoder.weights is not set; expected one of the two")
    if training.config.encoder.frozen and training.config.encoder.weights is None:
        raise ConfigError("encoder.frozen is set, but encoder.weights is not: those parts would stay as drawn")
    with draws.seeded(training.device, training.seed, PRETEXT, "weights"):
        encoder = encoders.encoder(training.config.encoder)
        how_many.require_room(training, int(encoder.dim))  # type: ignore[arg-type]
        settings = training.settings(training.config.pretext, PRETEXT, training.inputs())
        phase = pretext.build(
            training.config.pretext, encoder, training.pixels, training.colours, settings.precision, training.monitor
        )
    position = train(phase, settings, training.folder, training.progress)
    facts: dict[str, Any] = {"epochs": position.epoch, "images": len(training.pixels)}
    result = phase.encoder
    if not training.leaves_features:
        training.write(PRETEXT, Outcome.of(result, None, facts))
        return
    both = training.features(_SideBySide(phase.network), settings.precision)
    seen, projections = both.tensor_split([int(result.dim)], dim=1)  # type: ignore[arg-type]
    features = _settled(result, seen)
    near = projections if training.config.neighbours.features == "projection" else features
    if training.config.encoder.weights is not None and training.config.pretext.epochs > 0:
        before = encoders.encoder(training.config.encoder).to(training.device)
        earlier = _settled(before, training.features(before, settings.precision))
        facts |= _compared(training, earlier, features)
        if not facts["kept"]:
            result, near = before, earlier
    if rank() == 0:
        checkpoint.write_tensors(training.run_dir.new(FEATURES), {"features": near.contiguous()})
    training.write(PRETEXT, Outcome.of(result, None, facts))


def _compared(training: Training, earlier: Tensor, now: Tensor) -> dict[str, Any]:
    """What tells whether an encoder's features became better by the pretext task than its weights gave."""
    clusters, k = how_many.asked_for(training) or SOME_CLUSTERS, training.config.neighbours.k
    before, after = evidence.crosswise(earlier, now, clusters, k, training.seed, training.device)
    if after <= before:
        training.progress.say(
            f"The pretext task made the encoder worse ({after:.4f} of an image's neighbours told by its cluster, "
            f"before {before:.4f}): the weights it started from stay"
        )
    return {"agreement_before": before, "agreement": after, "kept": after > before}


class _SideBySide(nn.Module):
    """A Projector whose features and projections are the columns of one matrix: one pass gives both."""

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        self.training = projector.training

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.projector(images), dim=1)


def _settled(encoder: nn.Module, features: Tensor) -> Tensor:
    """An encoder's features of all images; one that whitens them is fitted to them."""
    return encoder.whitening.fit(features) if isinstance(encoder, Whitened) else features
