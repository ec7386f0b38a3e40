"""What an encoder consists of, as people are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.encoder import lite, needs, onnx_file
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.weights import read_tensors


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the encoder: what it is called, what it consists of, the shape it gives, the numbers it has learned."""

    name: str
    kind: str
    shape: tuple[int, ...]  # of one image
    parameters: int


def parts_of(spec: EncoderSpec, weights: Path) -> list[Part]:
    """The parts of an encoder in the order in which an image meets them.

    Raises:
        ConfigError: only torch can tell, and it is not installed.
        WeightsError: the tensors are not the encoder's.
    """
    if lite.knows(spec.architecture):
        lite.check(read_tensors(weights), spec.architecture, spec.features)
        return _joined(_embedded(spec))
    if spec.is_onnx:
        with onnx_file.opened(weights) as view:
            contents = onnx_file.look_through(weights, view)
        return [Part(spec.output or "network", f"{contents.operators:,} operators", (spec.dim,), contents.numbers)]
    needs.require_torch(f"looking into the encoder {spec.backbone}")
    from shoal.encoder.torch_parts import met_parts  # noqa: PLC0415  (imports torch)

    return _joined(met_parts(spec, weights))


def _embedded(spec: EncoderSpec) -> list[Part]:
    names = lite.networks(spec.architecture)
    if len(names) > 1:
        return [Part(f"members.{place}", name, (lite.HEAD,), lite.parameters(name)) for place, name in enumerate(names)]
    side, found = spec.size, []
    for block in lite.blocks(lite.SCALES[names[0]]):
        for convolution in block.convolutions:
            side = -(-side // convolution.stride)
        shape = (side, side, block.convolutions[-1].channels[1])
        found.append(Part(block.name, block.kind, shape, block.parameters))
    if spec.features != "map":
        found.append(Part("global_pool", "mean over the map", (lite.HEAD,), 0))
    if spec.features in lite.TOP:
        found.append(Part("classifier", "linear", (spec.dim,), (lite.HEAD + 1) * spec.dim))
    return found


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Norms go with what they follow, equal neighbours of one sequence become one, what does nothing is left out."""
    found: list[tuple[Part, int, str]] = []  # the part, how many it stands for, the name of the last of them
    for part in parts:
        before = found[-1][0] if found else None
        changes = before is None or before.shape != part.shape
        if not part.parameters and not changes:
            continue
        same_place = before is not None and before.name.rpartition(".")[0] == part.name.rpartition(".")[0]
        if before is not None and "Norm" in part.kind and not changes and same_place:
            more = replace(before, kind=f"{before.kind} + {part.kind}", parameters=before.parameters + part.parameters)
            found[-1] = (more, *found[-1][1:])
        elif before is not None and "." in part.name and same_place and not changes and before.kind == part.kind:
            more = replace(before, parameters=before.parameters + part.parameters)
            found[-1] = (more, found[-1][1] + 1, part.name)
        else:
            found.append((part, 1, part.name))
    return [_named(*one) for one in found]


def _named(part: Part, count: int, last: str) -> Part:
    if count == 1:
        return part
    return replace(part, name=f"{part.name}–{last.rpartition('.')[2]}", kind=f"{count} × {part.kind}")
