"""Converting an encoder for OpenVINO, and checking that what comes out is still the same encoder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.embed.bindings import load_openvino
from shoal.embed.engines import CPU_BATCH, OpenVinoEngine, TorchEngine

if TYPE_CHECKING:
    from shoal.embed.backbones import Encoder
    from shoal.embed.spec import EncoderSpec

MEAN_SIMILARITY = 0.999
LEAST_SIMILARITY = 0.99
PROBES = 4 * CPU_BATCH


def convert(encoder: Encoder, spec: EncoderSpec, target: Path) -> None:
    """Write `encoder` as an OpenVINO model that takes uint8 [CPU_BATCH, size, size, 3]. RuntimeError if it cannot."""
    import torch  # noqa: PLC0415  (cold start only)

    openvino = load_openvino()
    shape = (CPU_BATCH, 3, spec.size, spec.size)
    with warnings.catch_warnings(), _log_as_it_was():
        warnings.simplefilter("ignore")  # tracing warns of Python control flow, which the check below covers
        try:
            model = openvino.convert_model(
                encoder, example_input=torch.zeros(shape), input=[openvino.PartialShape(shape)]
            )
        except (openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure) as error:
            raise RuntimeError(f"OpenVINO cannot convert {spec.backbone}: {error}") from error
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean([255 * mean for mean in spec.mean]).scale(
        [255 * std for std in spec.std]
    )
    openvino.save_model(steps.build(), target, compress_to_fp16=False)


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


def similarity(encoder: Encoder, spec: EncoderSpec, engine: OpenVinoEngine) -> tuple[float, float]:
    """Mean and least cosine similarity of the engine's features to fp32 torch on made images."""
    pixels = probe_images(spec.size)
    expected = TorchEngine(encoder, spec, "cpu").infer(pixels)
    found = np.concatenate([engine.infer(batch) for batch in np.split(pixels, len(pixels) // CPU_BATCH)])
    cosine = np.einsum("nd,nd->n", expected, found) / np.maximum(
        np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1), 1e-12
    )
    return float(cosine.mean()), float(cosine.min())


def is_faithful(mean: float, least: float) -> bool:
    return mean >= MEAN_SIMILARITY and least >= LEAST_SIMILARITY


def probe_images(size: int) -> npt.NDArray[np.uint8]:
    """Made images, [PROBES, size, size, 3]: coloured noise with the 1/f spectrum of natural images, seeded."""
    generator = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0 / size
    white = generator.standard_normal((PROBES, 3, size, size))
    colours = np.einsum("cd,ndhw->nchw", generator.standard_normal((3, 3)), white)
    smooth = np.fft.irfft2(np.fft.rfft2(colours) / frequency, s=(size, size))
    spread = smooth.std(axis=(2, 3), keepdims=True)
    pixels = np.clip(127.5 + 64.0 * smooth / spread, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
