"""The second phase of a training: clusters that neighbours share."""

from __future__ import annotations

from shoal.rundir import digest_of
from shoal.train import checkpoint, draws, evidence, how_many, scan
from shoal.train.features import encode
from shoal.train.loop import take_best, train
from shoal.train.outcome import Outcome
from shoal.train.training import FEATURES, PRETEXT, SCAN, Training


def learn(training: Training) -> None:
    """Clusters, by neighbours of the features that the pretext task left.

    Raises:
        CollapseError: all images went into one cluster.
        TooFewImagesError: fewer images than clusters.
    """
    config = training.config.scan
    features = checkpoint.read_tensors(training.run_dir.path(FEATURES))["features"]
    clusters, words = how_many.clusters(training, features[training.chosen])
    anchors, neighbours, held_out = evidence.split(
        features, training.chosen, config.held_out, training.config.neighbours.k, training.seed, training.device
    )
    encoder = training.encoder(PRETEXT)
    settings = training.settings(config, SCAN, digest_of(training.digest(PRETEXT), training.inputs()))
    precision = settings.precision
    with draws.seeded(training.device, training.seed, SCAN, "weights"):
        phase: scan.TunedScan | scan.FrozenScan
        if config.tune_encoder:
            phase = scan.TunedScan(
                config, clusters, anchors, neighbours, held_out, encoder, training.pixels, training.colours, precision
            )
        else:
            encoder.to(training.device)
            views = scan.view_features(
                encoder, config, training.pixels, training.colours, precision, training.seed, training.progress
            )
            plain = encode(encoder, training.pixels, held_out.positions, training.plain, precision)
            phase = scan.FrozenScan(config, clusters, anchors, neighbours, held_out, views, plain, training.device)
    position = train(phase, settings, training.folder, training.progress)
    take_best(phase, settings, training.folder, position)
    chosen = phase.head(phase.best_head())
    if isinstance(phase, scan.TunedScan):
        encoder = phase.encoder
    facts = {"clusters": clusters, "why": words, "best_epoch": position.best_epoch, "loss": position.best}
    training.write(SCAN, Outcome.of(encoder, chosen, facts))
