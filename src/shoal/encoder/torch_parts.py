"""The parts of an encoder in torch, found by sending an image through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shoal.encoder.architectures import Whitened
from shoal.encoder.parts import Part
from shoal.encoder.rebuilt import rebuild
from shoal.encoder.spec import EncoderSpec


def met_parts(spec: EncoderSpec, weights: Path) -> list[Part]:
    """Top-level modules in the order in which an image meets them."""
    encoder, _ = rebuild(spec, weights)
    met: dict[str, Part] = {}
    network = encoder.model.inner if isinstance(encoder.model, Whitened) else encoder.model
    is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"  # channels, in what the parts give

    def listener(name: str, module: nn.Module) -> Any:
        def listen(_: nn.Module, __: Any, out: Any) -> None:
            first = out if isinstance(out, torch.Tensor) else next((one for one in out if torch.is_tensor(one)), None)
            if first is not None and name not in met:
                parameters = sum(one.numel() for one in module.parameters())
                met[name] = Part(name, _kind(module), _shape(first, is_last), parameters)

        return module.register_forward_hook(listen)

    hooks = [listener(name, module) for name, module in _pieces(encoder.model)]
    with torch.inference_mode():
        encoder(torch.zeros(1, 3, spec.size, spec.size))
    for hook in hooks:
        hook.remove()
    return list(met.values())


def _pieces(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Top-level modules; sequences of blocks are opened, and an encoder that is whitened."""
    if isinstance(model, Whitened):
        yield from ((f"inner.{name}", one) for name, one in _pieces(model.inner))
        yield "whitening", model.whitening
        return
    for name, child in model.named_children():
        opened = isinstance(child, nn.Sequential) and any(list(one.children()) for one in child)
        if opened:
            yield from ((f"{name}.{inner}", one) for inner, one in child.named_children())
        else:
            yield name, child


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Sequential) and len(module):
        names = [type(one).__name__ for one in module]
        if len(set(names)) > 1:
            return " + ".join(names)
        return f"{len(names)} × {names[0]}" if len(names) > 1 else names[0]
    return type(module).__name__


def _shape(out: torch.Tensor, is_last: bool) -> tuple[int, ...]:
    one = tuple(out.shape[1:])
    return (*one[1:], one[0]) if len(one) == 3 and not is_last else one
