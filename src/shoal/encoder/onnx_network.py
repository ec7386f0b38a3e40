"""The network in an ONNX file, read by OpenVINO and cut down to images in, features out."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shoal.encoder import onnx_file, onnx_input
from shoal.encoder.bindings import load_openvino
from shoal.encoder.engines import CPU_BATCH
from shoal.encoder.spec import LARGEST_SIDE, LEAST_SIDE, MOST_DIMS
from shoal.errors import WeightsError

IMAGE_TYPES: Final = ("f32", "f16", "u8")
FEATURE_TYPES: Final = ("f32", "f16", "bf16", "f64")
LARGEST_BATCH: Final = 64
LARGEST_TENSOR: Final = 1 << 29  # numbers; the widest attention of a ViT-L at 1,024 pixels has no more
MOST_NUMBERS: Final = 1 << 36  # in all its tensors; that ViT-L has half as many
LARGEST_CONSTANTS: Final = 1 << 30  # bytes that there are before there are images
CONSTANTS_A_BYTE: Final = 32  # beside them, for each byte of the file: weights of 4 bits become others in some steps
_OF_MEMORY: Final = ("bad_alloc", "bad allocation", "could not allocate", "Cannot allocate memory", "out of memory")
_NOISE: Final = ("Exception from", "Check '", "FrontEnd API", "Model wasn't", "Summary", "To facilitate", "-- Conver")


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network of images [batch, 3, size, size] (`layout` NCHW) or [batch, size, size, 3] (NHWC) in numbers of `dtype`
    (f32, f16 or u8) -> features [batch, dim], float32.

    Attributes:
        model: an `openvino.Model` of that one input and that one output.
        has_own_batch: the file itself says how many images it takes at once; it is left so.
    """

    model: Any
    layout: str
    dtype: str
    size: int
    batch: int
    dim: int
    has_own_batch: bool

    def of_one(self) -> Any:
        """The model as it takes one image at a time, if it can."""
        model = self.model.clone()
        if not self.has_own_batch:
            model.reshape([1, *self.model.input().shape[1:]])
        return model


def read(path: Path, data: bytes, size: int | None, output: str | None) -> Network:
    """The network in a file from anywhere.

    Args:
        path: how errors call it.
        data: what is in it. What was looked through is what OpenVINO reads, whatever becomes of the file.
        size: of the images; None takes what the file fixes.
        output: name of the tensor with the features, an output or any other; None takes the first output that depends
            on the images alone and holds floats: of rank 2 or, if there is none, of rank 4 or 3.

    Raises:
        WeightsError: the file is damaged, or asks for what `onnx_file` refuses; OpenVINO cannot read it; it takes no
            images, or gives no features.
    """
    onnx_file.look_through(path, memoryview(data))
    with _told(f"{path} cannot be read by OpenVINO"):
        return _cut_down(_converted(data), path, len(data), size, output)


def words(error: BaseException) -> str:
    """What OpenVINO says went wrong, without where in its own source."""
    if isinstance(error, UnicodeError):
        return "a name in it is no text"
    if is_of_memory(error):
        return "it takes more memory than a network of its size should, or than there is"
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_NOISE)]
    return (told[-1] if told else type(error).__name__).removeprefix("-- ")[:300]


def is_of_memory(error: BaseException) -> bool:
    """Was there too little memory, by Python's or by C++'s words?"""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OF_MEMORY)


def _cut_down(model: Any, path: Path, nbytes: int, size: int | None, output: str | None) -> Network:
    image = _image(model, path)
    shape, layout = _layout(image, path)
    side = _side(shape[1:3] if layout == "NHWC" else shape[2:4], size, path)
    own = shape[0]
    if own is not None and not 1 <= own <= LARGEST_BATCH:
        raise WeightsError(f"{path} takes {own:,} images at once; expected any number, or at most {LARGEST_BATCH}")
    # One that takes any number may still have been exported with a number of images somewhere inside.
    for batch in (CPU_BATCH, 1) if own is None else (own,):
        pixels = [batch, side, side, 3] if layout == "NHWC" else [batch, 3, side, side]
        try:
            taken = _reshaped(model, image, pixels, path)
            features = _features(taken, image.get_friendly_name(), output, path)
            _check_sizes(features, path, nbytes)
            features = _pooled(features, batch, layout, path)
        except WeightsError:
            if own is not None or batch == 1:
                raise
        else:
            dim = features.output().shape[1]
            return Network(features, layout, _type(image.output(0)), side, batch, dim, own is not None)
    raise AssertionError("the last of the batches returns or raises")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever OpenVINO raises into one line."""
    failures = load_openvino().frontend
    kinds = (RuntimeError, ValueError, TypeError, MemoryError, failures.GeneralFailure, failures.OpConversionFailure)
    more = (failures.OpValidationFailure, failures.InitializationFailure, failures.NotImplementedFailure)
    try:
        yield
    except (*kinds, *more) as error:
        raise WeightsError(f"{what}: {words(error)}") from error


def _converted(data: bytes) -> Any:
    reader = load_openvino().frontend.FrontEndManager().load_by_framework("onnx")
    # As a stream: it has no folder beside which other files could lie.
    return reader.convert(reader.load(io.BytesIO(data)))


def _image(model: Any, path: Path) -> Any:
    """The one input that takes images."""
    found = [one for one in model.get_parameters() if _rank(one.output(0)) == 4 and _type(one.output(0)) in IMAGE_TYPES]
    if len(found) != 1:
        inputs = "; ".join(_shown(one.output(0)) for one in model.get_parameters()[:8]) or "none"
        raise WeightsError(
            f"{path} has {len(found)} inputs that take images; expected one, of rank 4 and of {', '.join(IMAGE_TYPES)} "
            f"(its inputs: {inputs})"
        )
    return found[0]


def _layout(image: Any, path: Path) -> tuple[list[int | None], str]:
    """The shape of the images, None for what is open, and which way round it is."""
    shape = [one.get_length() if one.is_static else None for one in image.output(0).get_partial_shape()]
    _, first, _, last = shape
    if last == 3 and first != 3:
        return shape, "NHWC"
    if first == 3 != last or (first is None and last is None):
        return shape, "NCHW"
    if first is None:
        return shape, "NCHW"
    raise WeightsError(f"{path} takes images {_shown(image.output(0))}; expected [n, 3, h, w] or [n, h, w, 3]")


def _side(sides: list[int | None], said: int | None, path: Path) -> int:
    fixed = {side for side in sides if side is not None}
    if len(fixed) > 1:
        raise WeightsError(f"{path} takes images of {sides[0]} × {sides[1]} pixels; expected square ones")
    side = fixed.pop() if fixed else said
    if side is None:
        raise onnx_input.missing(str(path), "size")
    if said not in (None, side):
        raise WeightsError(f"{path} takes images of {side} × {side} pixels, and is said to take {said} × {said}")
    if not LEAST_SIDE <= side <= LARGEST_SIDE:
        raise WeightsError(
            f"{path} takes images of {side} × {side} pixels; expected from {LEAST_SIDE} to {LARGEST_SIDE:,}"
        )
    return side


def _reshaped(model: Any, image: Any, shape: list[int], path: Path) -> Any:
    taken = model.clone()
    name = image.get_friendly_name()
    place = next(one.output(0) for one in taken.get_parameters() if one.get_friendly_name() == name)
    with _told(f"{path} does not take images {shape}"):
        taken.reshape({place: load_openvino().PartialShape(shape)})
    return taken


def _features(model: Any, image: str, name: str | None, path: Path) -> Any:
    """The part of `model` that leads from the images to the features."""
    if name is None:
        places = [result.input_value(0) for result in model.get_results()]
        ranked = [place for rank in (2, 4, 3) for place in places if _rank(place) == rank]
        candidates = [place for place in ranked if _type(place) in FEATURE_TYPES]
    else:
        candidates = [out for one in model.get_ordered_ops() for out in one.outputs() if name in out.get_names()][:1]
    for candidate in candidates:
        cut = _cut(model, image, candidate)
        if cut is not None:
            return cut
    outputs = "; ".join(_shown(result.input_value(0)) for result in model.get_results()[:8])
    wanted = "floats of rank 2, 3 or 4, of the images alone" if name is None else f"the name of one, not {name!r}"
    raise WeightsError(f"{path} has the outputs {outputs}; expected {wanted}: --output NAME")


def _cut(model: Any, image: str, place: Any) -> Any | None:
    """A model of the images and `place` alone; None if other inputs lead there too, or the images do not."""
    openvino = load_openvino()
    images = next(one for one in model.get_parameters() if one.get_friendly_name() == image)
    try:
        return openvino.Model([openvino.opset13.result(place)], [images], "features")
    except RuntimeError:
        return None


def _check_sizes(model: Any, path: Path, nbytes: int) -> None:
    """Raise WeightsError for a network whose tensors would take all memory or time, or may."""
    numbers = constants = 0
    constant: set[str] = set()  # names of what does not depend on the images, and is made once, when it is compiled
    for one in model.get_ordered_ops():
        sources = [one.input_value(place).get_node().get_friendly_name() for place in range(one.get_input_size())]
        if one.get_type_name() == "Constant" or (sources and constant.issuperset(sources)):
            constant.add(one.get_friendly_name())
        for place in one.outputs():
            if place.get_partial_shape().is_dynamic:
                raise WeightsError(f"{path} makes {_shown(place)}; expected sizes that follow from those of the images")
            count = math.prod(place.get_shape())
            if count > LARGEST_TENSOR:
                raise WeightsError(
                    f"{path} makes a tensor {_shown(place)}; expected at most {LARGEST_TENSOR:,} numbers"
                )
            numbers += count
            if one.get_friendly_name() in constant:
                constants += -(-count * place.get_element_type().bitwidth // 8)
    if numbers > MOST_NUMBERS:
        raise WeightsError(f"{path} makes tensors of {numbers:,} numbers; expected at most {MOST_NUMBERS:,}")
    if constants > LARGEST_CONSTANTS + CONSTANTS_A_BYTE * nbytes:
        raise WeightsError(
            f"{path} makes {constants:,} bytes of its own {nbytes:,}, without images; expected far fewer"
        )


def _pooled(model: Any, batch: int, layout: str, path: Path) -> Any:
    """`model` with one row an image: a map's mean over its places, or the class token of a row of tokens."""
    openvino = load_openvino()
    ops, place = openvino.opset13, model.get_results()[0].input_value(0)
    shape = list(place.get_shape()) if place.get_partial_shape().is_static else []
    if len(shape) not in (2, 3, 4) or shape[0] != batch or _type(place) not in FEATURE_TYPES:
        raise WeightsError(
            f"{path} gives {_shown(place)} of {batch} images; expected floats [{batch}, d], [{batch}, tokens, d] or "
            f"[{batch}, d, h, w]: --output NAME takes another"
        )
    node = ops.convert(place, "f32")
    if len(shape) == 4:
        node = ops.reduce_mean(node, _places(shape, layout))
    elif len(shape) == 3 and math.isqrt(shape[1]) ** 2 == shape[1]:
        node = ops.reduce_mean(node, [1])  # tokens of a square and no more: there is none for the whole image
    elif len(shape) == 3:
        node = ops.gather(node, 0, 1)
    dim = node.output(0).get_shape()[1]
    if not 1 <= dim <= MOST_DIMS:
        raise WeightsError(f"{path} gives {dim:,} features; expected from 1 to {MOST_DIMS:,}")
    return openvino.Model([ops.result(node)], model.get_parameters(), "features")


def _places(shape: list[int], layout: str) -> list[int]:
    """The axes of a map's places: square ones of a square image, else where those of the image are."""
    _, first, second, last = shape
    if first == second != last:
        return [1, 2]
    if second == last != first:
        return [2, 3]
    return [1, 2] if layout == "NHWC" else [2, 3]


def _rank(place: Any) -> int | None:
    shape = place.get_partial_shape()
    return int(shape.rank.get_length()) if shape.rank.is_static else None


def _type(place: Any) -> str:
    return str(place.get_element_type().get_type_name())


def _shown(place: Any) -> str:
    names = sorted(place.get_names())
    return f"{names[0][:60] if names else '(unnamed)'} {_type(place)} {place.get_partial_shape().to_string()[:60]}"
