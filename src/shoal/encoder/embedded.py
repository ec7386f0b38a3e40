"""The embedded networks, described and made ready by their weights alone: no torch, no timm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from shoal.config import DEFAULT_BACKBONE
from shoal.encoder import lite
from shoal.encoder import weights as weight_files
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import CPU_BATCH, OpenVinoEngine
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.probes import PROBES, probe_images
from shoal.encoder.reference import expected, similarity
from shoal.encoder.spec import CONFIG, EncoderSpec
from shoal.errors import RunError
from shoal.rundir import digest_file

STRIDE: Final = 32  # of the last map
MEAN = STD = (0.5, 0.5, 0.5)  # for pixels scaled to 0..1, as they were trained


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedEncoder:
    """One of the embedded networks, or several joined: what it is, and its tensors by timm's names."""

    spec: EncoderSpec
    tensors: Mapping[str, npt.NDArray[Any]]

    runs_in_torch: ClassVar[bool] = True
    beside: ClassVar[tuple[()]] = ()  # its classifier is in the package, or in the file that was given

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, target: Path) -> None:
        from safetensors.numpy import save_file  # noqa: PLC0415  (a warm start needs it not)

        save_file(dict(self.tensors), target)

    def convert(self, target: Path) -> None:
        """Write it as an OpenVINO model that takes uint8 [CPU_BATCH, size, size, 3]."""
        spec = self.spec
        model = lite.build(self.tensors, spec.architecture, spec.features, spec.size, CPU_BATCH)
        load_openvino().save_model(taking_pixels(model, spec.mean, spec.std), target, compress_to_fp16=False)

    def similarity(self, engine: OpenVinoEngine, model: Path) -> tuple[float, float]:
        """Mean and least cosine similarity of the engine's features on made images to what they should be.

        That is what torch gave for the package's own weights, which is kept; for others what fp32 gives.
        """
        pixels = probe_images(self.spec.size)
        found = _features(engine, pixels)
        wanted = expected(self.tensors, self.spec.features) if self._is_fed_as_trained else None
        if wanted is None:
            wanted = found if engine.precision == "fp32" else _features(OpenVinoEngine(model, "fp32"), pixels)
        return similarity(found, wanted)

    @property
    def _is_fed_as_trained(self) -> bool:
        size = lite.SCALES[lite.networks(self.spec.architecture)[-1]].size
        return (self.spec.size, self.spec.mean, self.spec.std) == (size, MEAN, STD)


def find(features: str, resize: str, weights: Path | None) -> EmbeddedEncoder:
    """The embedded backbone with its own weights, or with those of a file.

    Raises:
        WeightsError: the weights are missing or do not fit.
    """
    if weights is None:
        files = weight_files.embedded_files(features)
        found = {one.architecture: _own(one.architecture, features, path) for one, path in files}
        architecture, tensors = lite.joined(found) if len(found) > 1 else next(iter(found.items()))
        digest, source = weight_files.embedded_digest(features), "package"
    else:
        architecture = weight_files.EMBEDDED.architecture
        if weights.name == weight_files.EMBEDDED.file:
            tensors, source = _own(architecture, features, weights), "package"
        else:
            tensors, source = _by_name(architecture, features, weights), f"file {weights.name}"
        digest = digest_file(weights)
    size = lite.SCALES[lite.networks(architecture)[-1]].size
    spec = EncoderSpec(
        backbone=DEFAULT_BACKBONE,
        architecture=architecture,
        features=features,
        weights_sha256=digest,
        weights_source=source,
        licence=weight_files.EMBEDDED_LICENCE if source == "package" else "unknown",
        dim=_dim(architecture, features, size, tensors),
        size=size,
        crop_fraction=1.0,  # the whole of the shorter side; see docs/decisions.md for the comparison
        interpolation="bicubic",
        resize="squash" if resize == "squash" else "crop",
        mean=MEAN,
        std=STD,
    )
    return EmbeddedEncoder(spec, tensors)


def saved(spec: EncoderSpec, weights: Path) -> EmbeddedEncoder:
    """The encoder of a finished run or a model folder. Raises RunError if they give other features."""
    tensors = weight_files.read_tensors(weights)
    dim = _dim(spec.architecture, spec.features, spec.size, tensors)
    if dim != spec.dim:
        raise RunError(
            f"{weights.parent / CONFIG}: encoder.dim has value {spec.dim:,}; expected {dim:,}, as {spec.architecture} "
            f"gives as features {spec.features!r}"
        )
    return EmbeddedEncoder(spec, tensors)


def _own(architecture: str, features: str, path: Path) -> dict[str, npt.NDArray[Any]]:
    return lite.named(weight_files.read_tensors(path), architecture, features)


def _by_name(architecture: str, features: str, path: Path) -> dict[str, npt.NDArray[Any]]:
    state = weight_files.encoder_tensors(weight_files.read_tensors(path))
    wanted = lite.shapes(architecture, features)
    return {
        name: np.require(tensor, requirements="C")
        for name, tensor in state.items()
        if name in wanted or not name.startswith("classifier.")
    }


def _dim(architecture: str, features: str, size: int, tensors: Mapping[str, npt.NDArray[Any]]) -> int:
    if features == "map":
        return math.ceil(size / STRIDE) ** 2 * lite.HEAD
    if features in lite.TOP:
        return len(tensors.get("classifier.bias", ()))
    return lite.HEAD * len(lite.networks(architecture))


def _features(engine: OpenVinoEngine, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.concatenate([engine.infer(batch) for batch in np.split(pixels, PROBES // CPU_BATCH)])
