"""What runs an encoder: OpenVINO on CPUs; torch (`torch_engine`) on CUDA, MPS, and wherever OpenVINO cannot.

An engine is chosen by rule, never by timing, so that the same machine always gives the same bytes:
CUDA or MPS if asked for or found; else OpenVINO, in bf16 where the CPU computes bf16 natively and in fp32
elsewhere; else torch on the CPU.
"""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shoal.cores import core_count
from shoal.encoder import needs
from shoal.encoder.bindings import load_openvino
from shoal.errors import ConfigError

# Images in one inference; short batches are padded, so every image meets the same arithmetic. On a CPU four images'
# activations stay in the cache of a core: 217 images/s of the embedded backbone on 2 cores, against 150 with sixteen.
CPU_BATCH = 4

Pixels = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


class Engine(Protocol):
    """Runs an encoder on batches. Safe to call from several threads at once."""

    name: str  # told to people: "openvino fp32", "torch cuda fp16", …
    batch_size: int

    def infer(self, pixels: Pixels) -> Float32:
        """uint8 [batch_size, size, size, 3] in RGB -> float32 [batch_size, dim]."""
        ...


class OpenVinoEngine:
    """A converted model on the CPU: one stream of one thread a core, each serving one caller at a time."""

    def __init__(self, model: Path, precision: str) -> None:
        openvino = load_openvino()
        cores = core_count()
        self.precision = precision
        self.name = f"openvino {precision}"
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "NUM_STREAMS": str(cores),
                "INFERENCE_NUM_THREADS": str(cores),
                "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            },
        )
        self.batch_size = int(compiled.input(0).shape[0])
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(cores):
            self._requests.put(compiled.create_infer_request())

    def infer(self, pixels: Pixels) -> Float32:
        request = self._requests.get()
        try:
            request.infer({0: pixels}, share_inputs=True)
            return np.array(request.get_output_tensor().data, dtype=np.float32)
        finally:
            self._requests.put(request)


def resolve_device(device: str) -> str:
    """Turn `auto` into a device, and check that the one asked for is there. torch is imported only if it could matter.

    Raises:
        ConfigError: the device asked for is not on this machine.
    """
    if device == "cpu" or (device == "auto" and (needs.missing() or not _may_have_gpu())):
        return "cpu"
    needs.require_torch(f"--device {device}")
    import torch  # noqa: PLC0415

    found = [
        name
        for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
        if there
    ]
    if device == "auto":
        return found[0] if found else "cpu"
    if device not in found:
        raise ConfigError(f"--device has value {device!r}; this machine has only {', '.join([*found, 'cpu'])}")
    return device


def cpu_precision() -> str:
    """`bf16` where the CPU computes it natively, else `fp32`."""
    capabilities = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


def _may_have_gpu() -> bool:
    """A cheap look that spares CPU machines the import of torch: is there a GPU driver at all?"""
    if sys.platform == "darwin":
        return os.uname().machine == "arm64"
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").exists()
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
