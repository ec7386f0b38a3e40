"""What the parts of `gpu.py` share: the device, the time that is left, rates, and what has been found so far."""

from __future__ import annotations

import json
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

from shoal import atomic
from shoal.cores import core_count
from shoal.train.precision import Precision

# Dense bf16 (Turing: fp16) in TFLOP/s as NVIDIA's data sheets have it, by the beginning of the device's name.
PEAKS = {
    "NVIDIA B200": 2250, "NVIDIA H200": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H100 NVL": 835, "NVIDIA H100": 989,
    "NVIDIA GH200": 989, "NVIDIA A100": 312, "NVIDIA A40": 150, "NVIDIA A10": 125, "NVIDIA A30": 165,
    "NVIDIA L40S": 362, "NVIDIA L40": 181, "NVIDIA L4": 121, "NVIDIA GeForce RTX 4090": 165,
    "NVIDIA GeForce RTX 3090": 71, "Tesla V100": 125, "Tesla T4": 65,
}  # fmt: skip

Way = tuple[Callable[[], Callable[[], object]], int]  # makes the work, and its images a call


@dataclass
class Bench:
    """What was asked, and what has been found so far.

    Attributes:
        seconds: of each measurement; limit: of everything.
    """

    data: Path
    out: Path
    device: torch.device
    seconds: float
    limit: float
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        return self.limit - (time.monotonic() - self.began)

    @property
    def precision(self) -> Precision:
        """Of training: what a GPU does natively; a CPU that does not is not to be asked."""
        return Precision.of(self.device, "auto" if self.on_gpu else "fp32")

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def part(self, name: str, least: float, work: Callable[[Bench], dict[str, Any]]) -> None:
        """Do a part if there is time, whatever happens in it, and keep what it found."""
        began = time.monotonic()
        if self.on_gpu and self.left < least:
            told: dict[str, Any] = {"passed over": f"{self.left:.0f} s left; expected at least {least:.0f}"}
        else:
            try:
                told = work(self)
            except Exception:  # the next part may work
                told = {"failed": traceback.format_exc(limit=-6)}
        if self.on_gpu:
            torch.cuda.empty_cache()  # for a process that a part starts
        self.found[name] = {**told, "part_seconds": round(time.monotonic() - began, 1)}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.out, self.found)
        print(f"== {name}", json.dumps(self.found[name], indent=1), sep="\n", flush=True)

    def rate(self, work: Callable[[], object], images: int) -> dict[str, float]:
        """Images a second: the median and range over groups of calls, each waited for at its end."""
        work()
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        calls = max(1, min(100, int(0.25 / (time.perf_counter() - began))))
        rates: list[float] = []
        until = time.perf_counter() + self.seconds
        while not rates or time.perf_counter() < until:
            began = time.perf_counter()
            for _ in range(calls):
                work()
            self.wait()
            rates.append(calls * images / (time.perf_counter() - began))
        spread = {"median": statistics.median(rates), "least": min(rates), "most": max(rates)}
        return {name: round(rate, 1) for name, rate in spread.items()}

    def rates(self, ways: dict[str, Way], flops: int) -> dict[str, Any]:
        """Of each way to do the same; one that fails, as a compiler that is not there, leaves the others."""
        found: dict[str, Any] = {}
        for name, (make, images) in ways.items():
            try:
                found[name] = self.with_share(self.rate(make(), images), flops)
            except Exception as error:  # see above
                found[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        return found

    def with_share(self, rates: dict[str, float], flops: int) -> dict[str, Any]:
        """Beside the rate: TFLOP/s by counted operations, and their part of the card's peak, if that is known."""
        done = rates["median"] * flops / 1e12
        top = self.found["machine"].get("peak_tflops")
        met = self.found.get("card", {}).get("matmul_tflops")
        return {
            **rates,
            "tflops": round(done, 3),
            "of_peak": round(done / top, 3) if top else "unknown",
            "of_matmul": round(done / met, 3) if met else "unknown",
        }

    def compiled(self, network: Any) -> Any:
        """By torch.compile; without its code generator on a CPU, which would take longer than it is worth here."""
        return torch.compile(network, dynamic=False, backend="inductor" if self.on_gpu else "aot_eager")


def machine_facts(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch.__version__, "timm": timm.__version__, "cores": core_count()}
    if bench.on_gpu:
        about = torch.cuda.get_device_properties(bench.device)
        found |= {
            "card": about.name,
            "capability": f"{about.major}.{about.minor}",
            "memory_gb": round(about.total_memory / 1e9, 1),
            "processors": about.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "peak_tflops": peak(about.name),
        }
    return found


def peak(card: str) -> float | None:
    """TFLOP/s in bf16 by the data sheet; None for a card that is not known."""
    known = [name for name in PEAKS if card.startswith(name)]
    return float(PEAKS[max(known, key=len)]) if known else None
