"""Converting a torch encoder for OpenVINO, and comparing what comes out with it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import save_file

from shoal.encoder.beside import Beside
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import CPU_BATCH, OpenVinoEngine
from shoal.encoder.logs import log_as_it_was
from shoal.encoder.networks import Encoder
from shoal.encoder.pixels import taking_pixels
from shoal.encoder.probes import probe_images
from shoal.encoder.reference import similarity
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.torch_engine import TorchEngine


@dataclass(frozen=True, slots=True, eq=False)
class TorchMakeable:
    """An encoder in torch, not yet made ready: see `making.Makeable`."""

    encoder: Encoder
    spec: EncoderSpec
    beside: tuple[Beside, ...] = ()

    runs_in_torch: ClassVar[bool] = True

    @property
    def nbytes(self) -> int:
        own: int = sum(tensor.nbytes for tensor in self.encoder.model.state_dict().values())
        return own + sum(one.nbytes for one in self.beside)

    def save(self, target: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in self.encoder.model.state_dict().items()}, target)

    def convert(self, target: Path) -> None:
        openvino, spec = load_openvino(), self.spec
        shape = (CPU_BATCH, 3, spec.size, spec.size)
        with warnings.catch_warnings(), log_as_it_was():
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
