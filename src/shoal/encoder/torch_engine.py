"""The engine of torch: on CUDA and MPS in half precision where a network bears it, and in fp32 on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from shoal.encoder.engines import CPU_BATCH, Float32, Pixels
from shoal.encoder.networks import Encoder
from shoal.encoder.probes import is_faithful, probe_images
from shoal.encoder.reference import similarity
from shoal.encoder.spec import EncoderSpec

GPU_BATCH: Final = 64
NAMES: Final = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


class TorchEngine:
    """A torch module as an engine: see `engines.Engine`."""

    def __init__(
        self, encoder: Encoder, spec: EncoderSpec, device: str, halves: Sequence[torch.dtype] | None = None
    ) -> None:
        """Move the encoder to its device and choose the precision: the first that gives made images their features.

        Args:
            device: cpu, cuda or mps.
            halves: precisions to try before fp32; None: those of the device.
        """
        self._device = torch.device(device)
        self._encoder = encoder.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Pixels come as 0..255; the model wants (pixel / 255 - mean) / std.
        self._mean = torch.tensor(spec.mean, device=self._device).mul(255.0).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=self._device).mul(255.0).view(1, 3, 1, 1)
        self._one_at_a_time = threading.Lock()
        self.batch_size = CPU_BATCH if device == "cpu" else GPU_BATCH
        self._dtype = self._faithful(native_halves(device) if halves is None else halves, spec.size)
        self.name = f"torch {device} {NAMES[self._dtype]}"

    def infer(self, pixels: Pixels) -> Float32:
        with self._one_at_a_time:
            return self._infer(pixels, self._dtype)

    def _infer(self, pixels: Pixels, dtype: torch.dtype) -> Float32:
        with torch.inference_mode():
            # [n, h, w, c] -> [n, c, h, w]: a view whose memory is channels_last already
            images = torch.from_numpy(pixels).to(self._device, non_blocking=True).permute(0, 3, 1, 2).float()
            images = (images - self._mean) / self._std
            with torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32):
                features = self._encoder(images)
            out: Float32 = features.float().cpu().numpy()
        return out

    def _faithful(self, halves: Sequence[torch.dtype], size: int) -> torch.dtype:
        """The first of `halves` that gives the features of fp32 on the same device; fp32 if none does.

        Some networks have inner numbers above what fp16 holds (attention of large transformers, above all): their
        features would be no numbers, and every image would be told as one that cannot be read.
        """
        if not halves:
            return torch.float32
        pixels = probe_images(size)
        wanted = self._infer(pixels, torch.float32)
        for half in halves:
            found = self._infer(pixels, half)
            if np.isfinite(found).all() and is_faithful(*similarity(found, wanted)):
                return half
        return torch.float32


def native_halves(device: str) -> Sequence[torch.dtype]:
    """In the order to try them: fp16 keeps eight times as much of a number as bf16, but no number above 65,504."""
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16, torch.bfloat16
    return () if device == "cpu" else (torch.float16,)
