"""What a phase of training leaves for the next one: an encoder, perhaps a cluster head, in one safetensors file.

The same file, as train/encoder.safetensors, is what `--backbone shoal:… --weights FILE` opens: its metadata say which
encoder it is and how images are prepared for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shoal import atomic, foreign
from shoal.encoder.backbones import TRAINED
from shoal.encoder.names import full_name
from shoal.errors import RunError
from shoal.train.config import TrainConfig
from shoal.train.encoders import Head
from shoal.train.pretext import Colours

ENCODER, HEAD = "encoder.", "head."


@dataclass(frozen=True, slots=True)
class _Told:
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tensors of the encoder by name, the chosen head if there is one, and facts worth telling (JSON values)."""

    encoder: dict[str, Tensor]
    head: Head | None
    facts: dict[str, Any]

    @classmethod
    def of(cls, encoder: nn.Module, head: Head | None, facts: dict[str, Any]) -> Outcome:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
        return cls(tensors, head, facts)

    def save(self, path: Path, metadata: dict[str, Any]) -> None:
        tensors = {f"{ENCODER}{name}": tensor for name, tensor in self.encoder.items()}
        if self.head is not None:
            tensors |= {f"{HEAD}weight": self.head.weight, f"{HEAD}bias": self.head.bias}
        # One text only: safetensors writes several in no fixed order, and equal outcomes are to be equal files.
        texts = {TRAINED: json.dumps({**metadata, "facts": self.facts}, sort_keys=True)}
        with atomic.replacing(path) as temporary:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, texts)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Raises RunError if there is no readable outcome at `path`."""
        try:
            tensors = load_file(path)
            with safe_open(path, "pt") as file:
                told = foreign.parse_json(file.metadata()[TRAINED], path)
            facts = foreign.READER.read(_Told, told).facts
        except (OSError, ValueError, KeyError, TypeError, RunError, SafetensorError) as error:
            raise RunError(f"{path} holds no readable outcome of a training: {error}") from error
        encoder = {name.removeprefix(ENCODER): tensor for name, tensor in tensors.items() if name.startswith(ENCODER)}
        head = None
        if f"{HEAD}weight" in tensors:
            head = Head(tensors[f"{HEAD}weight"], tensors[f"{HEAD}bias"])
        return cls(encoder, head, facts)


def metadata(config: TrainConfig, colours: Colours) -> dict[str, Any]:
    """How images are prepared for the encoder of a recipe: what `shoal.embed` reads back."""
    return {
        "encoder": full_name(config.encoder.name),
        "size": config.data.size,
        "crop_fraction": config.data.size / config.data.stored_size,
        "resize": config.data.resize,
        "mean": list(colours[0]),
        "std": list(colours[1]),
    }
