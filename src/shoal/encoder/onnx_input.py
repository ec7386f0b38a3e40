"""What an ONNX network is fed and asked for: what people, the file itself or a JSON beside it say of its images.

One name means the same everywhere: an option `--input-mean`, a key `input_mean` of FILE.json, an entry `input_mean` of
the file's metadata. A preprocessor_config.json, as Hugging Face writes it, has names of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from shoal import foreign
from shoal.config import RESIZES, three_numbers
from shoal.encoder import huggingface, onnx_file
from shoal.encoder.spec import INTERPOLATIONS, Channels, Deviations, Part, Side, Words
from shoal.errors import ConfigError, RunError, WeightsError
from shoal.typed import OneOf, UnfitError, shown

IMAGENET: Final = "--input-mean 0.485,0.456,0.406 --input-std 0.229,0.224,0.225"


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of an ONNX network; None: nothing."""

    input_size: Side | None = None  # of the square images, pixels
    input_mean: Channels | None = None  # per channel, for pixels scaled to 0..1
    input_std: Deviations | None = None
    crop_fraction: Part | None = None  # of the shorter side, that the square shows
    interpolation: Annotated[str, OneOf(INTERPOLATIONS)] | None = None
    resize: Annotated[str, OneOf(RESIZES)] | None = None
    output: Words | None = None  # name of the tensor that holds the features

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


KEYS: Final = tuple(field.name for field in dataclasses.fields(Said))


def find(file: Path, options: Mapping[str, Any]) -> Said:
    """What is said of the network in `file`: each value by the first of the places that has it.

    These are the person's own options, FILE.json beside FILE.onnx, and the file's metadata. A preprocessor_config.json
    belongs to a folder, perhaps to another network, and is asked only where they leave mean and std open.

    Args:
        options: values by KEYS; None is none.

    Raises:
        ConfigError: an option has a value that it cannot have.
        WeightsError: a value in a file is none that can be, a JSON is not readable, or the file is no ONNX file.
    """
    beside = file.with_suffix(".json")
    places: list[tuple[str, Mapping[str, Any]]] = [
        ("", {name: value for name, value in options.items() if value is not None}),
        (str(beside), _of_beside(_json(beside), beside)),
        (f"{file}: metadata", {name: _value(name, text) for name, text in onnx_file.metadata(file).items()}),
    ]
    if not all(any(key in values for _, values in places) for key in ("input_mean", "input_std")):
        for path in huggingface.processors(file):
            places.append((str(path), huggingface.image_input(_json(path), path)))
    return Said(**{key: _first(key, places) for key in KEYS})


def missing(name: str, what: str) -> WeightsError:
    """Neither people nor files say `what` (`size`, `mean and std`) of the network `name`."""
    hint = "--input-size 224" if what == "size" else f"those it was trained with, often ImageNet's: {IMAGENET}"
    return WeightsError(f"{name} does not say the {what} of its images, and no JSON beside it does; give {hint}")


def _first(key: str, places: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    for place, values in places:
        if key in values:
            try:
                return getattr(foreign.READER.read(Said, {key: values[key]}), key)
            except UnfitError as error:
                scale = ", of pixels scaled to 0..1" if key in ("input_mean", "input_std") else ""
                if not place:
                    option = f"--{key.replace('_', '-')}"
                    raise ConfigError(f"{str(error).replace(key, option, 1)}{scale}") from error
                raise WeightsError(f"{place}: {error}{scale}") from error
    return None


def _of_beside(told: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What FILE.json says: in Shoal's own words if it has one of KEYS, in Hugging Face's, or, of other things, nothing.

    Null is as good as nothing there.

    Raises:
        WeightsError: among Shoal's own words is another.
    """
    if not any(key in told for key in KEYS):
        return huggingface.image_input(told, path) if huggingface.is_processor(told) else {}
    for key in told:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            expected = f"{near[0]}?" if near else f"only {', '.join(KEYS)}"
            raise WeightsError(f"{path} has unknown key {shown(key)}; expected {expected}")
    return {key: value for key, value in told.items() if value is not None}


def _value(key: str, text: str) -> Any:
    """What an entry of metadata says; where it is not what it should be, the text itself, which is told."""
    try:
        if key in ("input_mean", "input_std"):
            return three_numbers(text, key)
        return int(text) if key == "input_size" else float(text) if key == "crop_fraction" else text
    except ValueError:
        return text


def _json(path: Path) -> Any:
    try:
        found = foreign.parse_json(foreign.read_bytes(path), path)
    except FileNotFoundError:
        return {}
    except RunError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no object; expected keys such as {', '.join(KEYS[:3])}")
    return found
