"""How fast is it, by which way, and where does the host wait? Four parts of `gpu.py`."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gpu_bench import Bench, Way
from gpu_subjects import config_of, networks, phase_of, step_of
from gpu_time import LEARN, forward_flops
from shoal.encoder.networks import Encoder
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.torch_engine import GPU_BATCH, TorchEngine
from shoal.progress import Progress
from shoal.train import draws, log, loop, recipe
from shoal.train.precision import Precision

LARGEST_BATCH = 2048


def card(bench: Bench) -> dict[str, Any]:
    """The ceilings as they are met here: a large matrix product in bf16, and a copy within the memory."""
    side, count = (8192, 1 << 30) if bench.on_gpu else (512, 1 << 24)
    left, right = (torch.randn(side, side, device=bench.device).to(torch.bfloat16) for _ in range(2))
    values = torch.empty(count, dtype=torch.float32, device=bench.device).normal_()
    other = torch.empty_like(values)
    products = bench.rate(lambda: left @ right, 1)["median"]
    copies = bench.rate(lambda: other.copy_(values), 1)["median"]
    return {
        "matmul_tflops": round(products * 2 * side**3 / 1e12, 2),
        "copy_gb_per_second": round(copies * 2 * values.nbytes / 1e9, 1),
    }


def embedding(bench: Bench) -> dict[str, Any]:
    """Images a second through the embedded backbone and ResNet-50, beside timm's model in a plain loop."""
    found: dict[str, Any] = {}
    known = networks(bench)["embedded"]
    resnet = timm.create_model("resnet50", pretrained=False, num_classes=0).eval()
    resnet50 = (
        Encoder(resnet, "default"),
        dataclasses.replace(known[1], backbone="resnet50", architecture="resnet50", dim=2048),
    )
    for name, (encoder, spec) in {"embedded": known, "resnet50": resnet50}.items():
        flops = counted(spec.architecture, spec.size)
        network = encoder.to(bench.device, memory_format=torch.channels_last)
        plain = timm.create_model(spec.architecture, pretrained=False, num_classes=0).eval().to(bench.device)
        batch = fitting(
            bench, lambda many, network=network, spec=spec: passes(bench, network, many, spec.size, torch.bfloat16)
        )
        ways = embedding_ways(bench, encoder, network, plain, spec, batch)
        found[name] = {"batch": batch, "gflop_an_image": round(flops / 1e9, 3), **bench.rates(ways, flops)}
    return found


def embedding_ways(
    bench: Bench, encoder: Any, network: nn.Module, plain: nn.Module, spec: EncoderSpec, batch: int
) -> dict[str, Way]:
    """A plain loop around timm's model, the same in other layouts and numbers, and what `shoal cluster` does."""

    def passing(model: Callable[[], nn.Module], dtype: torch.dtype) -> Way:
        return lambda: passes(bench, model(), batch, spec.size, dtype), batch

    usual = GPU_BATCH if bench.on_gpu else batch
    return {
        "timm, plain loop, fp32": passing(lambda: plain, torch.float32),
        "timm, plain loop, bf16": passing(lambda: plain, torch.bfloat16),
        "channels_last, bf16": passing(lambda: network, torch.bfloat16),
        "channels_last, fp16": passing(lambda: network, torch.float16),
        "channels_last, bf16, compiled": passing(lambda: bench.compiled(network), torch.bfloat16),
        "engine, pixels to features, its batch": (lambda: engine_work(bench, encoder, spec, usual), usual),
        "engine, pixels to features, batch by memory": (lambda: engine_work(bench, encoder, spec, batch), batch),
    }


def passes(bench: Bench, network: nn.Module, batch: int, size: int, dtype: torch.dtype) -> Callable[[], object]:
    """A pass of made images that are there already, in the layout of the network's weights."""
    last = any(weight.ndim == 4 and not weight.is_contiguous() for weight in network.parameters())
    layout = torch.channels_last if last else torch.contiguous_format
    images = torch.randn(batch, 3, size, size, device=bench.device).contiguous(memory_format=layout)
    precision = Precision(bench.device, dtype)

    def work() -> None:
        with torch.inference_mode(), precision.autocast():
            network(images)

    return work


def engine_work(bench: Bench, encoder: Any, spec: EncoderSpec, batch: int) -> Callable[[], object]:
    engine = TorchEngine(encoder, spec, bench.device.type)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, spec.size, spec.size, 3), dtype=np.uint8)
    return lambda: engine.infer(pixels)


def fitting(bench: Bench, work_of: Callable[[int], Callable[[], object]]) -> int:
    """The largest batch, a power of two, of which half the memory is enough."""
    if not bench.on_gpu:
        return 2
    batch = GPU_BATCH
    while batch < LARGEST_BATCH:
        torch.cuda.reset_peak_memory_stats(bench.device)
        try:
            work_of(2 * batch)()
            bench.wait()
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if torch.cuda.max_memory_allocated(bench.device) > torch.cuda.mem_get_info(bench.device)[1] // 2:
            break
        batch *= 2
    return batch


def pretext_step(bench: Bench) -> dict[str, Any]:
    """The pretext step of `scan-cifar10`, eager and compiled, its views alone, and the loop around it."""
    config = recipe.load("scan-cifar10")
    batch = config.pretext.loop.batch if bench.on_gpu else 4
    flops = 2 * LEARN * forward_flops(config)
    found: dict[str, Any] = {
        "batch": batch,
        "gflop_an_image": round(flops / 1e9, 3),
        "dtype": str(bench.precision.dtype),
    }
    phase: Any = phase_of("simclr", 4 * batch, bench.precision, batch)
    pixels = phase.examples(torch.arange(batch), torch.Generator()).to(bench.device)
    random = draws.generator(bench.device, 0, "views")
    found["views alone"] = bench.rate(lambda: phase._two_views(pixels, random), batch)

    def step(network: Any = None, timing: bool = False) -> Callable[[], object]:
        torch.backends.cudnn.benchmark = timing
        return step_of(bench, phase, config.pretext, batch, network)

    ways: dict[str, Way] = {
        "step, eager": (step, batch),
        "step, eager, cudnn chooses by timing": (lambda: step(timing=True), batch),
        "step, compiled": (lambda: step(bench.compiled(phase.network)), batch),
    }
    found |= bench.rates(ways, flops)
    steps = 100 if bench.on_gpu else 2
    with tempfile.TemporaryDirectory() as folder:
        lines = trained(bench, "simclr", steps * batch, batch, Path(folder), epochs=2)
        found["loop, second epoch"] = lines[-1]["images_per_second"]
    return found


def waits(bench: Bench) -> dict[str, Any]:
    """Where the host waits for the GPU in the loop, by line of code and how often in so many steps."""
    if not bench.on_gpu:
        return {"not told": "a CPU waits for nobody"}
    found: dict[str, Any] = {}
    for kind, batch in (("simclr", 512), ("moco", 256), ("scan", 128), ("scan frozen", 512), ("selflabel", 1000)):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                trained(bench, kind, 40 * batch, batch, Path(folder), epochs=1)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        lines = Counter(
            f"{'/'.join(Path(one.filename).parts[-3:])}:{one.lineno}"
            for one in seen
            if "synchroniz" in str(one.message)
        )
        found[kind] = {"steps": 40, "lines": dict(lines.most_common(20))}
    return found


def trained(bench: Bench, kind: str, count: int, batch: int, folder: Path, epochs: int) -> list[dict[str, Any]]:
    """So many epochs of the loop itself on `count` images; the lines of its log."""
    phase = phase_of(kind, count, bench.precision, batch)
    section = getattr(config_of(kind, batch), phase.name)
    asked = dataclasses.replace(section.loop, checkpoint_minutes=1000)
    settings = loop.Settings(epochs, asked, section.optimiser, section.schedule, 0, bench.precision, "bench")
    loop.train(phase, settings, folder, Progress())
    return log.read(folder)


def counted(architecture: str, size: int) -> int:
    """Multiplications and additions of one image through timm's model."""
    with torch.device("meta"):
        model, image = timm.create_model(architecture, num_classes=0).eval(), torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return int(counter.get_total_flops())
