"""Made images, and how alike features of them have to be for an engine to run the same encoder."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.encoder.engines import CPU_BATCH

MEAN_SIMILARITY: Final = 0.999
LEAST_SIMILARITY: Final = 0.99
PROBES: Final = 4 * CPU_BATCH


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
