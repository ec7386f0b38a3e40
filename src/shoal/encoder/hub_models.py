"""A timm model in a repository of somebody's on the Hub, as a person's `--backbone hf_hub:OWNER/NAME` asks for it.

Its config.json is data: timm is given only what was read and checked here, never the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import huggingface_hub
import timm

from shoal import foreign, hub
from shoal.encoder.spec import INTERPOLATIONS, Channels, Deviations, Part, Side, Words
from shoal.errors import RunError, WeightsError
from shoal.typed import Between, OneOf

SCHEMES: Final = ("hf_hub:", "hf-hub:")
MOST_CLASSES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Pretrained:
    input_size: tuple[Annotated[int, Between(3, 3)], Side, Side]
    mean: Channels
    std: Deviations
    interpolation: Annotated[str, OneOf(INTERPOLATIONS)] = "bicubic"
    crop_pct: Part = 0.875
    crop_mode: Annotated[str, OneOf(("center", "squash", "border"))] = "center"
    license: Words | None = None
    num_classes: Annotated[int, Between(0, MOST_CLASSES)] = 1000


@dataclass(frozen=True, slots=True)
class _Config:
    architecture: Words
    pretrained_cfg: _Pretrained
    num_classes: Annotated[int, Between(0, MOST_CLASSES)] | None = None
    model_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HubModel:
    """An architecture of timm's, and what timm is to know of its weights: where they are, what images they want."""

    architecture: str
    weights: dict[str, Any]


def is_on_hub(backbone: str) -> bool:
    return backbone.startswith(SCHEMES)


def read(backbone: str) -> HubModel:
    """Fetch and check the description of `hf_hub:OWNER/NAME` or, of one state of it, `hf_hub:OWNER/NAME@REVISION`.

    Raises:
        WeightsError: it says what no model has; or its model has arguments of its own, without which it could not be
            made again from what a run keeps.
        Whatever the Hub's client raises.
    """
    repository, _, revision = backbone.partition(":")[2].partition("@")
    path = hub.fetch(
        lambda place: Path(
            huggingface_hub.hf_hub_download(repository, "config.json", revision=revision or None, cache_dir=place)
        )
    )
    try:
        config = foreign.read_json(path, _Config)
    except RunError as error:
        raise WeightsError(f"--backbone {backbone}: {error}") from error
    if not timm.is_model(config.architecture):
        raise WeightsError(
            f"--backbone {backbone}: architecture has value {config.architecture!r}; expected one that timm has"
        )
    if config.model_args:
        raise WeightsError(
            f"--backbone {backbone}: model_args has the key {min(config.model_args)!r}; expected a model of "
            "timm's as it is, without arguments of its own"
        )
    known = config.pretrained_cfg
    classes = known.num_classes if config.num_classes is None else config.num_classes
    source = {"source": "hf-hub", "hf_hub_id": backbone.partition(":")[2]}
    values = {name: getattr(known, name) for name in ("input_size", "mean", "std", "interpolation", "crop_pct")}
    more = {"crop_mode": known.crop_mode, "license": known.license, "num_classes": classes}
    return HubModel(config.architecture, {**source, **values, **more})
