"""The classifier that an encoder came with, if it came with one whose words are known."""

from __future__ import annotations

from pathlib import Path

from shoal.config import DEFAULT_BACKBONE
from shoal.encoder import classifier, lite
from shoal.encoder.names import PREFIX
from shoal.encoder.prepared import PreparedEncoder
from shoal.names.classifier import MAP, POOLED, Classifier
from shoal.names.kinds import LISTS
from shoal.rundir import RunDir, digest_file
from shoal.runfiles import HEAD

NONE = "none"  # digest where there is no classifier


def write(run_dir: RunDir, prepared: PreparedEncoder, weights: Path | None) -> str:
    """Put the classifier into the run's model/, if there is one, and return a digest of it.

    Args:
        weights: the file that the encoder was read from; None: the package's own.

    Raises:
        WeightsError: the embedded backbone's weights are missing.
    """
    found = _find(prepared, weights)
    if found is None:
        return NONE
    path = run_dir.new(f"model/{HEAD}")
    found.save(path)
    return digest_file(path)


def _find(prepared: PreparedEncoder, weights: Path | None) -> Classifier | None:
    """None for encoders that learned without labels, of ONNX files, and with classes of a number that is no list's."""
    spec = prepared.spec
    if spec.is_onnx or spec.architecture.startswith(PREFIX):
        return None
    if spec.features in lite.TOP:
        return Classifier(spec.dim, spec.features, None) if spec.dim in LISTS else None
    is_embedded = spec.backbone == DEFAULT_BACKBONE
    layer = classifier.embedded(spec.features, weights) if is_embedded else classifier.Layer.prepared(prepared.folder)
    if layer is None or len(layer.bias) not in LISTS:
        return None
    return Classifier(len(layer.bias), MAP if spec.features == "map" else POOLED, layer)
