"""Are the numbers of the device those of the CPU? A part each for features, and for the gradients of all losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu_bench import Bench
from gpu_subjects import networks, normalised, phase_of, pictures
from shoal.encoder.torch_engine import TorchEngine
from shoal.train import draws, views
from shoal.train.config import VIEW_SETS, ViewConfig
from shoal.train.precision import Precision

ALIKE = 0.999  # least mean cosine of features, and cosine of gradients in fp32
STEPS = (
    *("simclr", "simclr decoupled", "simclr keras", "moco", "rotnet"),
    *("scan", "scan keras", "scan frozen", "selflabel", "selflabel quota", "taught"),
)


def features(bench: Bench) -> dict[str, Any]:
    """Features of the embedded backbone and of resnet18-cifar, on the device against the CPU in fp32."""
    found: dict[str, Any] = {}
    for name, (encoder, spec) in networks(bench).items():
        pixels = pictures(bench, 256 if bench.on_gpu else 4, spec.size)
        images = normalised(torch.from_numpy(pixels), spec)
        with torch.inference_mode():
            wanted = torch.cat([encoder.cpu().float()(block) for block in images.split(64)])
            encoder.to(bench.device, memory_format=torch.channels_last)
            told = {}
            for kind in ("fp32", "bf16"):
                precision = Precision.of(bench.device, kind)
                with precision.autocast():
                    blocks = [encoder(block.to(bench.device)).float().cpu() for block in images.split(64)]
                told[kind] = alike(torch.cat(blocks), wanted)
            engine = TorchEngine(encoder, spec, bench.device.type)
            rows = [engine.infer(block.numpy()) for block in torch.from_numpy(pixels).split(64)]
            told[engine.name] = alike(torch.from_numpy(np.concatenate(rows)), wanted)
        found[name] = told
    unlike = [f"{name}, {way}" for name, told in found.items() for way, one in told.items() if one["mean"] < ALIKE]
    return {**found, "unlike": unlike}


def alike(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Least and mean cosine of rows; and the least of rows whose mean is taken away, which says more."""
    cosine = nn.functional.cosine_similarity(found, wanted)
    centre = wanted.mean(dim=0)
    centred = nn.functional.cosine_similarity(found - centre, wanted - centre)
    return {
        "least": round(float(cosine.min()), 6),
        "mean": round(float(cosine.mean()), 6),
        "least_centred": round(float(centred.min()), 6),
    }


def views_alike(bench: Bench) -> dict[str, Any]:
    """Each set of views of the same images: mean and deviation over them all, which other draws hardly change."""
    pixels = torch.from_numpy(pictures(bench, 4096 if bench.on_gpu else 256, 32)).permute(0, 3, 1, 2)
    found: dict[str, Any] = {}
    for kind in VIEW_SETS:
        config = ViewConfig(kind=kind, blur_chance=0.5)
        told = {}
        for device in (torch.device("cpu"), bench.device):
            make = views.Views(config, 32, (0.5,) * 3, (0.25,) * 3)
            made = make(pixels.to(device), draws.generator(device, 0, "views", device.type))
            apart = made - made.mean(dim=(2, 3), keepdim=True)
            told[device.type] = {
                "mean": round(float(made.mean()), 4),
                "deviation": round(float(made.std()), 4),
                "within_images": round(float(apart.std()), 4),
            }
        found[kind] = told
    return found


def gradients(bench: Bench) -> dict[str, Any]:
    """One step of each loss with the same weights and views on both devices: its value, and the whole gradient."""
    batch = 64 if bench.on_gpu else 4
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # fp32 is compared, not what a GPU may take for it
    cpu, found = torch.device("cpu"), {}
    try:
        for kind in STEPS:
            wanted_loss, wanted = gradient(kind, batch, Precision(cpu, torch.float32))
            told: dict[str, Any] = {"loss": wanted_loss}
            for name in ("fp32", "bf16"):
                loss, given = gradient(kind, batch, Precision.of(bench.device, name))
                told[name] = {
                    "loss": loss,
                    "cosine": round(float(nn.functional.cosine_similarity(given, wanted, dim=0)), 6),
                    "error": float(f"{float((given - wanted).norm() / wanted.norm()):.3g}"),
                }
            found[kind] = told
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    return {**found, "unlike": [kind for kind, told in found.items() if told["fp32"]["cosine"] < ALIKE]}


def gradient(kind: str, batch: int, precision: Precision) -> tuple[float, Tensor]:
    """The loss of a phase's first step, and its gradient in one row, on the CPU."""
    phase = phase_of(kind, 4 * batch, precision, batch)
    for name in ("_views", "_weak", "_strong"):
        if callable(getattr(phase, name, None)):
            setattr(phase, name, OnCpu(getattr(phase, name)))
    phase.begin_epoch(0)
    phase.network.train()
    examples = phase.examples(torch.arange(batch), draws.generator("cpu", 0, "examples"))
    loss = phase.losses(phase.network, examples, draws.generator(precision.device, 0, "views"))["loss"]
    loss.backward()
    weights = [weight.grad for weight in phase.network.parameters() if weight.grad is not None]
    return round(float(loss.detach()), 6), torch.cat([one.detach().float().cpu().flatten() for one in weights])


class OnCpu:
    """Views made on the CPU, with numbers of their own: the same on every device."""

    def __init__(self, views: Any) -> None:
        self.views, self.made = views, 0

    def __call__(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        self.made += 1
        made: Tensor = self.views(pixels.cpu(), draws.generator("cpu", 0, "the same", self.made))
        return made.to(pixels.device)
