"""What is known of a prepared encoder, in plain JSON values, so that a warm start needs neither torch nor timm."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from shoal.errors import RunError


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder: architecture, weights, what it is fed and what it gives."""

    backbone: str  # as the person named it
    architecture: str  # timm's name
    features: str  # default | map | logits | probabilities | best
    weights_sha256: str  # of the weights file that was read, or of the tensors where a hub gave them
    weights_source: str  # package, hub or file: told to people, never read back
    licence: str  # of the weights, as their publisher states it; "unknown" otherwise
    dim: int
    size: int  # side of the square input, pixels
    crop_fraction: float
    interpolation: str
    resize: str  # crop | squash
    mean: tuple[float, float, float]  # per channel, for pixels scaled to 0..1
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EncoderSpec:
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (KeyError, TypeError) as error:
            raise RunError(f"the model's encoder description does not fit this version of Shoal: {error}") from error
