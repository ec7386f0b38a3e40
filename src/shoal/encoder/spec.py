"""What is known of a prepared encoder, in plain JSON values, so that a warm start needs neither torch nor timm."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from shoal import foreign
from shoal.config import FEATURES, RESIZES
from shoal.errors import RunError
from shoal.hub import ENCODER_FILES
from shoal.typed import Between, Like, Most, OneOf, Printable

MODEL_FORMAT: Final = 1
CONFIG: Final = "config.json"  # of a model
INTERPOLATIONS: Final = ("bicubic", "bilinear")
LEAST_SIDE: Final = 8  # pixels
LARGEST_SIDE: Final = 1024  # no model of timm's wants more
MOST_DIMS: Final = 1 << 24  # of features: whole maps of the largest models have some 4 million
ONNX: Final = "onnx"  # the architecture of a network from an ONNX file, which says itself what it is
# The encoder's tensors, of a model and in the cache; or the file of a network that came as one.
WEIGHTS, NETWORK = ENCODER_FILES
# timm's own names, several of the embedded networks' joined, an encoder of `shoal train`, or the image tower of one of
# open_clip's models: no address of any kind.
ARCHITECTURE: Final = re.compile(
    r"shoal:[A-Za-z0-9_./-]{1,200}|clip:[A-Za-z0-9_.-]{1,100}|[A-Za-z0-9_]{1,100}(?:[.+][A-Za-z0-9_]{1,100}){0,3}"
)

Words = Annotated[str, Most(1000), Printable()]
Side = Annotated[int, Between(LEAST_SIDE, LARGEST_SIDE)]
Part = Annotated[float, Between(1 / 64, 4)]
MEANS: Final = Between(-10, 10)
DEVIATIONS: Final = Between(1e-4, 100)
Channels = tuple[Annotated[float, MEANS], Annotated[float, MEANS], Annotated[float, MEANS]]
Deviations = tuple[Annotated[float, DEVIATIONS], Annotated[float, DEVIATIONS], Annotated[float, DEVIATIONS]]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder: architecture, weights, what it is fed and what it gives."""

    backbone: Words  # as the person named it
    architecture: Annotated[str, Like(ARCHITECTURE, "the name of an architecture that Shoal, timm or open_clip has")]
    features: Annotated[str, OneOf(FEATURES)]
    weights_sha256: Annotated[str, Like(re.compile("[0-9a-f]{64}"), "64 hexadecimal digits")]
    # ... of the weights file that was read, or of the tensors where a hub gave them
    weights_source: Words  # package, hub or file: told to people, never read back
    licence: Words  # of the weights, as their publisher states it; "unknown" otherwise
    dim: Annotated[int, Between(1, MOST_DIMS)]
    size: Side  # of the square input, pixels
    crop_fraction: Part
    interpolation: Annotated[str, OneOf(INTERPOLATIONS)]
    resize: Annotated[str, OneOf(RESIZES)]
    mean: Channels  # per channel, for pixels scaled to 0..1
    std: Deviations
    output: Words | None = None  # of an ONNX file: the tensor that a person named

    @property
    def file(self) -> str:
        """The name of the file that holds it, in a model and in the cache."""
        return NETWORK if self.is_onnx else WEIGHTS

    @property
    def is_onnx(self) -> bool:
        return self.architecture == ONNX

    def to_json(self) -> dict[str, Any]:
        values = {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Any, name: object) -> EncoderSpec:
        """Raises RunError, naming the file `name`, if there is a value that no encoder has."""
        with foreign.telling_of(name):
            return foreign.READER.read(cls, values, "encoder")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model's config.json. `name` is a publication's title.

    `encoder` is None where the embeddings were given: nothing can make more of them.
    """

    format_version: Annotated[int, Between(0)]
    encoder: EncoderSpec | None
    name: Words | None = None

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """Raises RunError if there is none, or none that this version reads."""
        try:
            found = foreign.read_json(path, cls)
        except FileNotFoundError as error:
            raise RunError(f"{path} is not there: this is no model") from error
        if found.format_version > MODEL_FORMAT:
            raise RunError(
                f"{path}: format_version has value {found.format_version}; expected at most {MODEL_FORMAT}: "
                "upgrade Shoal to open it"
            )
        return found


@dataclass(frozen=True, slots=True)
class TrainedInput:
    """What `shoal train` writes beside an encoder's tensors: which one it is, and how images are prepared for it."""

    encoder: Annotated[str, Like(ARCHITECTURE, "the name of an encoder that Shoal trains")]
    size: Side
    crop_fraction: Part
    resize: Annotated[str, OneOf(RESIZES)]
    mean: Channels
    std: Deviations
