"""The classifier that an encoder came with, if it came with one whose words are known, or with a text tower."""

from __future__ import annotations

from pathlib import Path

from shoal.config import DEFAULT_BACKBONE, ClusterConfig
from shoal.encoder import classifier, lite, word_layer
from shoal.encoder import weights as weight_files
from shoal.encoder.names import PREFIX
from shoal.encoder.prepared import PreparedEncoder
from shoal.names import own_words
from shoal.names.classifier import MAP, POOLED, UNIT, Classifier
from shoal.names.kinds import LISTS, vocabulary
from shoal.progress import Progress
from shoal.rundir import RunDir, digest_file
from shoal.runfiles import HEAD

NONE = "none"  # digest where there is no classifier


def write(run_dir: RunDir, prepared: PreparedEncoder, config: ClusterConfig, progress: Progress) -> str:
    """Put the classifier into the run's model/, if there is one, and return a digest of it.

    Raises:
        WeightsError: the embedded backbone's weights are missing.
        ConfigError: words are to be read by a text tower, and what it needs is not installed.
    """
    tower = prepared.text_tower
    found = _find(prepared, config) if tower is None else _of_words(tower, config, progress)
    if found is None:
        return NONE
    path = run_dir.new(f"model/{HEAD}")
    found.save(path)
    return digest_file(path)


def _of_words(tower: Path, config: ClusterConfig, progress: Progress) -> Classifier:
    """What a text tower tells by words: those of ImageNet-1k, or a person's own."""
    if config.vocabulary is not None:
        words = own_words.read(config.vocabulary)
        return Classifier(len(words), UNIT, word_layer.of_words(tower, words, config.device, progress), words)
    known = vocabulary()
    assert known is not None
    said = [known.said[place] for place in known.classes.tolist()]
    return Classifier(len(said), UNIT, word_layer.of_words(tower, said, config.device, progress))


def _find(prepared: PreparedEncoder, config: ClusterConfig) -> Classifier | None:
    """None for encoders that learned without labels, of ONNX files, and with classes of a number that is no list's."""
    spec = prepared.spec
    if spec.is_onnx or spec.architecture.startswith(PREFIX):
        return None
    if spec.features in lite.TOP:
        return Classifier(spec.dim, spec.features, None) if spec.dim in LISTS else None
    if spec.backbone == DEFAULT_BACKBONE:
        weights = weight_files.checked_file(config.weights) if config.weights else None
        layer = classifier.embedded(spec.features, weights)
    else:
        layer = classifier.Layer.prepared(prepared.folder)
    if layer is None or len(layer.bias) not in LISTS:
        return None
    return Classifier(len(layer.bias), MAP if spec.features == "map" else POOLED, layer)
