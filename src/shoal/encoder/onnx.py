"""A network from an ONNX file as an encoder, made ready without torch and checked against itself."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from shoal.encoder import onnx_input, onnx_network
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import OpenVinoEngine
from shoal.encoder.onnx_input import Said
from shoal.encoder.onnx_network import Network
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.probes import is_faithful, probe_images
from shoal.encoder.reference import similarity
from shoal.encoder.spec import CONFIG, ONNX, EncoderSpec
from shoal.errors import RunError, WeightsError
from shoal.rundir import digest_file

BYTES: Final = "u8"  # of a network that takes pixels as they are
AS_THEY_ARE: Final = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # mean and std, for pixels scaled to 0..1


@dataclass(frozen=True, slots=True, eq=False)
class OnnxEncoder:
    """See `making.Makeable`. `file` is kept as it is: it is the encoder's own form."""

    spec: EncoderSpec
    file: Path
    network: Network

    runs_in_torch: ClassVar[bool] = False

    @property
    def nbytes(self) -> int:
        return self.file.stat().st_size

    def save(self, target: Path) -> None:
        shutil.copyfile(self.file, target)

    def convert(self, target: Path) -> None:
        network, spec = self.network, self.spec
        model = taking_pixels(network.model.clone(), spec.mean, spec.std, network.layout, network.dtype)
        load_openvino().save_model(model, target, compress_to_fp16=False)

    def similarity(self, engine: OpenVinoEngine, model: Path) -> tuple[float, float]:
        """There is no other reference than the file itself: fp32, its images normalised here, one at a time or, where
        the file fixes how many, in another order.

        Raises:
            WeightsError: even in fp32 the features are others, or no numbers.
        """
        pixels = probe_images(self.spec.size)
        found = _in_batches(engine.infer, pixels, engine.batch_size)
        wanted = self._expected(pixels)
        if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
            mean = least = 0.0
            told = "gives features that are no numbers, of made images"
        elif not np.any(found, axis=1).all():
            mean = least = 0.0
            told = "gives features that are all zero, of made images"
        else:
            mean, least = similarity(found, wanted)
            told = f"gives an image other features beside other images (cosine {least:.3f})"
        if engine.precision == "fp32" and not is_faithful(mean, least):
            raise WeightsError(
                f"{self.spec.backbone} {told}; expected a network that was exported for evaluation, not for training"
            )
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


def find(file: Path, said: Said, features: str, resize: str) -> OnnxEncoder:
    """The encoder in an ONNX file that a person names.

    Raises:
        WeightsError: see `onnx_network.read`; or nobody says mean and std of its images.
    """
    network = onnx_network.read(file, said.input_size, said.output)
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
        weights_sha256=digest_file(file),
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
    return OnnxEncoder(spec, file, network)


def saved(spec: EncoderSpec, file: Path) -> OnnxEncoder:
    """The encoder of a finished run or a model folder: the same looks, since the file may come from anybody.

    Raises:
        WeightsError: see `onnx_network.read`. RunError: it gives other features than the folder says.
    """
    network = onnx_network.read(file, spec.size, spec.output)
    if network.dim != spec.dim:
        raise RunError(
            f"{file.parent / CONFIG}: encoder.dim has value {spec.dim:,}; expected {network.dim:,}, as the file gives"
        )
    return OnnxEncoder(spec, file, network)


def shown_name(file: Path) -> str:
    """The name of a file as people are told of the encoder: without where it lies, which is nobody's business."""
    return "".join(letter if letter.isprintable() else "?" for letter in file.name)


def _in_batches(infer: Any, images: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    """Features [n, dim] of images [n, …], `size` at a time; the last batch is filled up with the first images."""
    count = len(images)
    full = np.ascontiguousarray(np.resize(images, (-(-count // size) * size, *images.shape[1:])))
    found = [np.array(infer(part), dtype=np.float32) for part in np.split(full, len(full) // size)]
    return np.concatenate(found)[:count]
