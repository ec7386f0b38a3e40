"""preprocessor_config.json: how Hugging Face writes down what a network's images are to be like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shoal import foreign
from shoal.encoder.spec import Channels, Deviations, Part
from shoal.errors import WeightsError
from shoal.typed import UnfitError, unfit

FILE: Final = "preprocessor_config.json"
FOLDER: Final = "onnx"  # of a repository; FILE lies above it
BILINEAR: Final = 2  # of Pillow's numbers; to the others bicubic is nearest
UNKNOWN: Final = ("rescale_offset", "do_flip_channel_order")  # steps that there are not here


@dataclass(frozen=True, slots=True)
class _Processor:
    image_mean: Channels | None = None
    image_std: Deviations | None = None
    do_normalize: bool = True
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_resize: bool = True
    do_center_crop: bool | None = None
    size: Any = None
    crop_size: Any = None
    crop_pct: Part | None = None
    resample: Any = None
    rescale_offset: bool = False
    do_flip_channel_order: bool = False


def processors(file: Path) -> list[Path]:
    """Where the description of the network in `file` may lie: those that are there."""
    folders = [file.parent, *([file.parent.parent] if file.parent.name == FOLDER else [])]
    return [folder / FILE for folder in folders if (folder / FILE).is_file()]


def is_processor(values: Mapping[str, Any]) -> bool:
    """Is this such a description, by its keys?"""
    return any(key.startswith(("image_", "do_")) for key in values)


def image_input(values: Mapping[str, Any], name: object) -> dict[str, Any]:
    """What it says, by the names of `onnx_input`.

    Args:
        name: how errors call it.

    Raises:
        WeightsError: a value is none that can be, or it tells of a step that Shoal does not take.
    """
    try:
        processor = foreign.READER.read(_Processor, values)
        for step in UNKNOWN:
            if getattr(processor, step):
                raise unfit(step, True, "false: Shoal does not take that step")
        found = {**_normalisation(processor), **_sizes(processor)}
    except UnfitError as error:
        raise WeightsError(f"{name}: {error}") from error
    if processor.resample is not None:
        found["interpolation"] = "bilinear" if processor.resample == BILINEAR else "bicubic"
    return found


def _normalisation(processor: _Processor) -> dict[str, Any]:
    """Mean and std for pixels scaled to 0..1, whatever they are scaled to there."""
    scale = processor.rescale_factor * 255 if processor.do_rescale else 255.0
    if not scale > 0:
        raise unfit("rescale_factor", processor.rescale_factor, "a number above 0")
    if not processor.do_normalize:
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif processor.image_mean is None or processor.image_std is None:
        return {}
    else:
        mean, std = processor.image_mean, processor.image_std
    return {"input_mean": [value / scale for value in mean], "input_std": [value / scale for value in std]}


def _sizes(processor: _Processor) -> dict[str, Any]:
    if not processor.do_resize:
        return {}
    shorter = _side(processor.size, "shortest_edge")
    square = _square(processor.size, "size")
    if processor.crop_size is not None and processor.do_center_crop is not False:
        side = _square(processor.crop_size, "crop_size")
        before = shorter or square
        if side is None or before is None:
            return {}
        if isinstance(processor.size, Mapping) and shorter is None and before != side:
            raise unfit("size", processor.size, "its shortest_edge, as the centre is cropped after it")
        found = {"input_size": side, "crop_fraction": side / before}
        return {**found, "resize": "squash"} if isinstance(processor.size, Mapping) and shorter is None else found
    if shorter is not None:  # ConvNeXt: the centre of an image whose shorter side is size / crop_pct
        return {"input_size": shorter, "crop_fraction": processor.crop_pct or 1.0}
    return {} if square is None else {"input_size": square, "resize": "squash"}


def _square(value: Any, name: str) -> int | None:
    """The side of `{"height": 224, "width": 224}` or `224`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    height, width = _side(value, "height"), _side(value, "width")
    if height != width:
        raise unfit(name, value, "a square")
    return height


def _side(value: Any, key: str) -> int | None:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
