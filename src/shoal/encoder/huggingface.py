"""preprocessor_config.json: how Hugging Face writes down what a network's images are to be like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from shoal import foreign
from shoal.encoder.spec import DEVIATIONS, MEANS, Part
from shoal.errors import WeightsError
from shoal.typed import Between, UnfitError, unfit

FILE: Final = "preprocessor_config.json"
FOLDER: Final = "onnx"  # of a repository; FILE lies above it
BILINEAR: Final = 2  # of Pillow's numbers; to the others bicubic is nearest
UNKNOWN: Final = ("rescale_offset", "do_flip_channel_order")  # steps that there are not here
SIGNS: Final = ("image_processor_type", "feature_extractor_type", "image_mean", "image_std", "do_normalize")
LARGEST_EDGE: Final = 1 << 16  # pixels
Edge = Annotated[int, Between(1, LARGEST_EDGE)]
CONVNEXT: Final = "ConvNext"  # begins the name of a processor with ways of its own
CROP_PCT: Final = 224 / 256  # its part, if it does not say another
WHOLE_FROM: Final = 384  # pixels; from that side on it squashes the whole image, whatever its part is

Numbers = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _Processor:
    image_mean: Numbers | None = None
    image_std: Numbers | None = None
    do_normalize: bool = True
    do_rescale: bool = True
    rescale_factor: Annotated[float, Between(1e-9, 1e9)] = 1 / 255
    do_resize: bool = True
    do_center_crop: bool = True
    size: Any = None
    crop_size: Any = None
    crop_pct: Part | None = None
    resample: Any = None
    rescale_offset: bool = False
    do_flip_channel_order: bool = False
    image_processor_type: str = ""
    feature_extractor_type: str = ""

    @property
    def is_convnext(self) -> bool:
        return (self.image_processor_type or self.feature_extractor_type).startswith(CONVNEXT)


def processors(file: Path) -> list[Path]:
    """Where the description of the network in `file` may lie: those that are there."""
    folders = [file.parent, *([file.parent.parent] if file.parent.name == FOLDER else [])]
    return [folder / FILE for folder in folders if (folder / FILE).is_file()]


def is_processor(values: Mapping[str, Any]) -> bool:
    """Is this such a description, by its keys?"""
    return any(values.get(key) is not None for key in SIGNS)


def image_input(values: Mapping[str, Any], name: object) -> dict[str, Any]:
    """What it says, by the names of `onnx_input`.

    Args:
        name: how errors call it.

    Raises:
        WeightsError: a value is none that can be, or it tells of a step that Shoal does not take.
    """
    try:
        said = {key: value for key, value in values.items() if value is not None}  # null is as good as nothing there
        processor = foreign.READER.read(_Processor, said)
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
    if not processor.do_normalize:
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif processor.image_mean is None or processor.image_std is None:
        return {}
    else:
        mean, std = processor.image_mean, processor.image_std
    return {
        "input_mean": _scaled("image_mean", mean, scale, MEANS),
        "input_std": _scaled("image_std", std, scale, DEVIATIONS),
    }


def _scaled(name: str, values: Sequence[float], scale: float, limits: Between) -> list[float]:
    """`values` for pixels of 0..1 instead of 0..`scale`, within `limits`."""
    for place, value in enumerate(values):
        if not limits.takes(value / scale):
            expected = f"a number from {limits.least * scale:,.6g} to {limits.most * scale:,.6g}"
            raise unfit(f"{name}[{place}]", value, f"{expected}, of pixels scaled to 0..{scale:,.6g}")
    return [value / scale for value in values]


def _sizes(processor: _Processor) -> dict[str, Any]:
    if not processor.do_resize:
        return {}
    if processor.is_convnext or (processor.crop_pct is not None and processor.crop_size is None):
        return _sizes_of_convnext(processor)
    is_fixed = isinstance(processor.size, Mapping) and "shortest_edge" not in processor.size
    shorter, square = _shorter(processor.size), _square(processor.size, "size")
    if processor.crop_size is not None and processor.do_center_crop:
        side = _square(processor.crop_size, "crop_size")
        before = shorter or square
        if side is None or before is None:
            return {}
        if is_fixed and before != side:
            raise unfit("size", processor.size, "its shortest_edge, as the centre is cropped after it")
        # PoolFormer: what is cropped is larger than it says by crop_pct.
        found = {"input_size": side, "crop_fraction": side / before * (processor.crop_pct or 1.0)}
        return {**found, "resize": "squash"} if is_fixed else found
    if shorter is not None:
        return {"input_size": shorter, "crop_fraction": 1.0}
    return {} if square is None else {"input_size": square, "resize": "squash"}


def _sizes_of_convnext(processor: _Processor) -> dict[str, Any]:
    """The centre of an image whose shorter side is size / crop_pct; of a large one, all of it.

    https://github.com/huggingface/transformers: models/convnext/image_processing_convnext.py, `resize`.
    """
    side = _shorter(processor.size) or _square(processor.size, "size")
    if side is None:
        return {}
    if side >= WHOLE_FROM:
        return {"input_size": side, "resize": "squash"}
    return {"input_size": side, "crop_fraction": processor.crop_pct or CROP_PCT}


def _shorter(size: Any) -> int | None:
    """The side of `{"shortest_edge": 224}`."""
    return _edge(size["shortest_edge"], "size") if isinstance(size, Mapping) and "shortest_edge" in size else None


def _square(size: Any, name: str) -> int | None:
    """The side of `{"height": 224, "width": 224}` or `224`."""
    if not isinstance(size, Mapping):
        return None if size is None else _edge(size, name)
    if "height" not in size and "width" not in size:
        return None
    height, width = (_edge(size.get(key), name) for key in ("height", "width"))
    if height != width:
        raise unfit(name, size, "a square")
    return height


def _edge(value: Any, name: str) -> int:
    return foreign.READER.read(Edge, value, name)
