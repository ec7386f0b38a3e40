"""An encoder's own classifier, by which features that are stored tell classes: features @ weight.T + bias.

The embedded networks' lies in their packages; that of another is kept beside the prepared encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from shoal import atomic
from shoal.embeddings import Float32
from shoal.encoder import lite
from shoal.encoder import weights as weight_files
from shoal.foreign import Tensors

WEIGHT, BIAS = "classifier.weight", "classifier.bias"
# Mean length of each network's features before `best` makes them of unit length; it varies among images by some 11 %,
# and the likeliest class stays what it is for 99 % of them (bench/feature_lengths.py, on tinyimagenet-20).
LENGTHS: Final = {"tf_efficientnet_lite0": 16.2, "tf_efficientnet_lite1": 14.6, "tf_efficientnet_lite2": 13.6}


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A classifier's last layer, linear on an encoder's pooled features."""

    weight: Float32  # [classes, d]
    bias: Float32  # [classes]

    file: ClassVar[str] = "classifier.safetensors"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.bias.nbytes

    def save(self, folder: Path) -> None:
        """Keep it in a folder of the cache."""
        with atomic.replacing(folder / self.file) as temporary:
            save_file({"weight": self.weight, "bias": self.bias}, temporary)

    @classmethod
    def prepared(cls, folder: Path) -> Layer | None:
        """The one that lies in the folder of a prepared encoder, if one does. Raises RunError if it is not readable."""
        if not (folder / cls.file).is_file():
            return None
        return cls(**Tensors.of(folder / cls.file, "classifier").read("weight", "bias"))


def embedded(features: str, weights: Path | None) -> Layer | None:
    """The classifier of the embedded backbone, for pooled features as `default` and `best` store them.

    Joined networks have one together: the mean of their logits.

    Args:
        weights: a file in place of the package's own; None is returned if it has no classifier, as one that was learned
            without labels.

    Raises:
        WeightsError: the weights are missing or do not fit.
    """
    if weights is not None and weights.name != weight_files.EMBEDDED.file:
        return _of(weight_files.encoder_tensors(weight_files.read_tensors(weights)))
    files = weight_files.embedded_files("default" if weights is not None else features)
    layers = {one.architecture: of_network(one.architecture, weights or path) for one, path in files}
    if len(layers) == 1:
        return next(iter(layers.values()))
    scaled = [layer.weight * np.float32(LENGTHS[name] / len(layers)) for name, layer in layers.items()]
    biases: Float32 = np.stack([layer.bias for layer in layers.values()]).mean(axis=0)
    return Layer(np.concatenate(scaled, axis=1), biases)


def of_network(architecture: str, path: Path) -> Layer:
    """The classifier of one of the networks, from its own weights. Raises WeightsError if they do not fit."""
    found = _of(lite.named(weight_files.read_tensors(path), architecture, "logits"))
    assert found is not None
    return found


def _of(tensors: Mapping[str, npt.NDArray[Any]]) -> Layer | None:
    weight, bias = tensors.get(WEIGHT), tensors.get(BIAS)
    if weight is None or bias is None or weight.shape != (len(bias), lite.HEAD):
        return None
    return Layer(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
