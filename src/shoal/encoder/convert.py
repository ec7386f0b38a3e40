"""Converting a torch encoder for OpenVINO, and comparing what comes out with it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import save_file

from shoal.encoder.backbones import Encoder
from shoal.encoder.bindings import load_openvino
from shoal.encoder.classifier import Layer
from shoal.encoder.engines import CPU_BATCH, OpenVinoEngine, TorchEngine
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.probes import probe_images
from shoal.encoder.reference import similarity
from shoal.encoder.spec import EncoderSpec


@dataclass(frozen=True, slots=True, eq=False)
class TorchMakeable:
    """An encoder in torch, not yet made ready: see `making.Makeable`."""

    encoder: Encoder
    spec: EncoderSpec
    classifier: Layer | None = None

    runs_in_torch: ClassVar[bool] = True

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.encoder.model.state_dict().values())

    def save(self, target: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in self.encoder.model.state_dict().items()}, target)

    def convert(self, target: Path) -> None:
        openvino, spec = load_openvino(), self.spec
        shape = (CPU_BATCH, 3, spec.size, spec.size)
        with warnings.catch_warnings(), _log_as_it_was():
            warnings.simplefilter("ignore")  # tracing warns of Python control flow, which the comparison below covers
            try:
                model = openvino.convert_model(
                    self.encoder, example_input=torch.zeros(shape), input=[openvino.PartialShape(shape)]
                )
            except (openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure) as error:
                raise RuntimeError(f"OpenVINO cannot convert {spec.backbone}: {error}") from error
        openvino.save_model(taking_pixels(model, spec.mean, spec.std), target, compress_to_fp16=False)

    def similarity(self, engine: OpenVinoEngine, model: Path) -> tuple[float, float]:
        pixels = probe_images(self.spec.size)
        expected = TorchEngine(self.encoder, self.spec, "cpu").infer(pixels)
        found = np.concatenate([engine.infer(batch) for batch in np.split(pixels, len(pixels) // CPU_BATCH)])
        return similarity(found, expected)


@contextmanager
def _log_as_it_was() -> Iterator[None]:
    """A conversion that fails leaves the log of the whole process as OpenVINO wants it: without anybody's warnings."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers
