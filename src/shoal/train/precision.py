"""In which numbers a network computes: a half precision where the device has it natively, float32 elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from shoal.encoder.engines import cpu_precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Precision:
    """A device and the type that networks compute in on it; losses compute in float32 outside `autocast`."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: torch.device, asked: str) -> Precision:
        """`asked`: auto, bf16, fp16 or fp32. fp16 is for GPUs only; a CPU takes bf16 in its place."""
        if asked == "auto":
            asked = _native(device)
        if device.type == "cpu" and asked == "fp16":
            asked = "bf16"
        return cls(device, DTYPES[asked])

    @property
    def needs_scaling(self) -> bool:
        """Do small gradients vanish in this type, so that the loss must be scaled?"""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def _native(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return cpu_precision() if device.type == "cpu" else "fp32"
