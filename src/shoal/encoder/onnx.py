"""A network from an ONNX file as an encoder, made ready without torch and checked against itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from shoal.config import FEATURES
from shoal.encoder import onnx_file, onnx_input, onnx_network
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import OpenVinoEngine
from shoal.encoder.onnx_input import Said
from shoal.encoder.onnx_network import Network
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.probes import is_faithful, probe_images
from shoal.encoder.reference import similarity
from shoal.encoder.spec import CONFIG, ONNX, EncoderSpec
from shoal.errors import RunError, WeightsError
from shoal.rundir import digest_bytes

BYTES: Final = "u8"  # of a network that takes pixels as they are
AS_THEY_ARE: Final = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # mean and std, for pixels scaled to 0..1


@dataclass(frozen=True, slots=True, eq=False)
class OnnxEncoder:
    """See `making.Makeable`. The file is kept as it is: it is the encoder's own form."""

    spec: EncoderSpec
    data: bytes  # of the file
    network: Network

    runs_in_torch: ClassVar[bool] = False
    beside: ClassVar[tuple[()]] = ()

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def save(self, target: Path) -> None:
        target.write_bytes(self.data)

    def convert(self, target: Path) -> None:
        network, spec = self.network, self.spec
        model = taking_pixels(network.model.clone(), spec.mean, spec.std, network.layout, network.dtype)
        load_openvino().save_model(model, target, compress_to_fp16=False)

    def similarity(self, engine: OpenVinoEngine, model: Path) -> tuple[float, float]:
        """There is no other reference than the file itself: fp32, its images normalised here, one at a time or, where
        the file fixes how many, in another order.

        Raises:
            WeightsError: even in fp32 the features are others, no numbers, or zero of every image.
        """
        pixels = probe_images(self.spec.size)
        found = _in_batches(engine.infer, pixels, engine.batch_size)
        wanted = self._expected(pixels)
        rows = found.any(axis=1) | wanted.any(axis=1)  # an image may well have none of what the network looks for
        mean = least = 0.0
        if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
            told = "gives features that are no numbers, of made images; expected a network without such: look at its "
            told += "mean and std, and at --output"
        elif not rows.any():
            told = "gives features that are all zero, of every made image; expected others: --output NAME takes them "
            told += "from elsewhere in the network"
        else:
            mean, least = similarity(found[rows], wanted[rows])
            told = f"gives an image other features beside other images (cosine {least:.3f}); expected a network that "
            told += "was exported for evaluation, not for training"
        if engine.precision == "fp32" and not is_faithful(mean, least):
            raise WeightsError(f"{self.spec.backbone} {told}")
        return mean, least

    def _expected(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        network = self.network
        one = network.of_one()
        compiled = load_openvino().Core().compile_model(one, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        if network.dtype == BYTES:
            images: npt.NDArray[Any] = pixels
        else:
            scaled = (pixels / np.float32(255) - np.array(self.spec.mean)) / np.array(self.spec.std)
            images = scaled.astype(np.float16 if network.dtype == "f16" else np.float32)
        if network.layout == "NCHW":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        batch = int(one.input().shape[0])
        return _in_batches(lambda some: compiled(some)[0], images[::-1], batch)[::-1]


def find(file: Path, digest: str, said: Said, features: str, resize: str) -> OnnxEncoder:
    """The encoder in an ONNX file that a person names.

    Args:
        digest: SHA-256 of the file that was asked for; the encoder is kept under it.

    Raises:
        WeightsError: see `onnx_network.read`; or nobody says mean and std of its images; or the file is another by now.
    """
    data = onnx_file.read(file)
    if digest_bytes(data) != digest:
        raise WeightsError(f"{file} was changed while it was used; run the same command again")
    network = onnx_network.read(file, data, said.input_size, said.output)
    if network.dtype == BYTES and (said.input_mean or said.input_std):
        raise WeightsError(f"{file} takes pixels as they are, uint8, and is said to take others, by mean and std")
    if network.dtype == BYTES:
        mean, std = AS_THEY_ARE
    elif said.input_mean is None or said.input_std is None:
        raise onnx_input.missing(str(file), "mean and std")
    else:
        mean, std = said.input_mean, said.input_std
    spec = EncoderSpec(
        backbone=shown_name(file),
        architecture=ONNX,
        features=features,
        weights_sha256=digest,
        weights_source="an ONNX file",
        licence="unknown",
        dim=network.dim,
        size=network.size,
        crop_fraction=said.crop_fraction or 1.0,  # the whole of the shorter side, as of the embedded backbone
        interpolation=said.interpolation or "bicubic",
        resize="squash" if resize == "squash" else said.resize or "crop",
        mean=mean,
        std=std,
        output=said.output,
    )
    return OnnxEncoder(spec, data, network)


def saved(spec: EncoderSpec, file: Path) -> OnnxEncoder:
    """The encoder of a finished run or a model folder: the same looks, since the file may come from anybody.

    Raises:
        WeightsError: see `onnx_network.read`. RunError: the folder describes another file.
    """
    config, data = file.parent / CONFIG, onnx_file.read(file)
    digest = digest_bytes(data)
    if spec.weights_sha256 != digest:
        raise RunError(
            f"{config}: encoder.weights_sha256 has value {spec.weights_sha256}; expected {digest}, that of {file.name}"
        )
    if spec.features != FEATURES[0]:
        raise RunError(f"{config}: encoder.features has value {spec.features!r}; an ONNX file has only {FEATURES[0]!r}")
    network = onnx_network.read(file, data, spec.size, spec.output)
    if network.dim != spec.dim:
        raise RunError(f"{config}: encoder.dim has value {spec.dim:,}; expected {network.dim:,}, as the file gives")
    return OnnxEncoder(spec, data, network)


def shown_name(file: Path) -> str:
    """The name of a file as people are told of the encoder: without where it lies, which is nobody's business."""
    return "".join(letter if letter.isprintable() else "?" for letter in file.name)


def _in_batches(infer: Any, images: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    """Features [n, dim] of images [n, …], `size` at a time; the last batch is filled up with the first images."""
    count = len(images)
    full = np.ascontiguousarray(np.resize(images, (-(-count // size) * size, *images.shape[1:])))
    found = [np.array(infer(part), dtype=np.float32) for part in np.split(full, len(full) // size)]
    return np.concatenate(found)[:count]
