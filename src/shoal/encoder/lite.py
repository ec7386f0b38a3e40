"""EfficientNet-Lite 0, 1 and 2 by their weights alone, as OpenVINO runs them.

The networks of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, with the names of
tensors, the epsilon and TensorFlow's padding of timm's `tf_efficientnet_lite…`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.encoder.bindings import load_openvino
from shoal.encoder.names import PREFIX, TIMM
from shoal.errors import WeightsError

Tensors = Mapping[str, npt.NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

JOINED: Final = "+"  # between the architectures of networks that are used together
TOP: Final = ("logits", "probabilities")  # features that need the classifier
CLASSES: Final = 1000
EPSILON: Final = 1e-3  # of the batch normalisation
LEAST_NORM: Final = 1e-12
STEM: Final = 32  # channels; the Lite networks scale neither stem nor head
HEAD: Final = 1280
NORM: Final = ("weight", "bias", "running_mean", "running_var")
COUNTER: Final = "num_batches_tracked"  # of training; kept because timm has it


@dataclass(frozen=True, slots=True)
class Scale:
    """What tells one of the networks from the others."""

    width: float
    depth: float
    size: int  # of the square input, pixels


SCALES: Final = {
    "tf_efficientnet_lite0": Scale(1.0, 1.0, 224),
    "tf_efficientnet_lite1": Scale(1.0, 1.1, 240),
    "tf_efficientnet_lite2": Scale(1.1, 1.2, 260),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one resolution, before scaling."""

    repeats: int
    kernel: int
    stride: int  # of the first block
    expansion: int
    channels: int


STAGES: Final = (  # of EfficientNet-B0; the Lite networks leave out squeeze-and-excitation
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution without bias, its batch normalisation and, where `bounded`, ReLU6."""

    weight: str
    norm: str
    channels: tuple[int, int]  # in, out
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    bounded: bool = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        into, out = self.channels
        return (out, 1 if self.depthwise else into, self.kernel, self.kernel)


@dataclass(frozen=True, slots=True)
class Block:
    """Convolutions one after the other; `name` as timm has it, `kind` in words."""

    name: str
    kind: str
    convolutions: tuple[Convolution, ...]
    adds_input: bool = False

    @property
    def parameters(self) -> int:
        """Weights, and of each normalisation two numbers a channel."""
        return sum(math.prod(one.shape) + 2 * one.channels[1] for one in self.convolutions)


def networks(architecture: str) -> list[str]:
    """The networks that an architecture joins by `+`; of one that `shoal train` tuned, the network that it was."""
    return architecture.removeprefix(PREFIX + TIMM).split(JOINED)


def knows(architecture: str) -> bool:
    """Whether `architecture` is one of these networks, or several joined by `+`."""
    return all(name in SCALES for name in networks(architecture))


def parameters(architecture: str) -> int:
    """Numbers that one of the networks has learned, without its classifier."""
    return sum(block.parameters for block in blocks(SCALES[architecture]))


def shapes(architecture: str, features: str, classes: int = CLASSES) -> Shapes:
    """Shapes of all tensors by timm's names, in timm's order; of joined networks after `members.0.`, `members.1.`, ….

    Those of the classifier are among them if the features need it.
    """
    names = networks(architecture)
    if len(names) > 1:
        members = [(f"members.{place}.", shapes(name, "best")) for place, name in enumerate(names)]
        return {prefix + name: shape for prefix, found in members for name, shape in found.items()}
    found: Shapes = {}
    for block in blocks(SCALES[names[0]]):
        for convolution in block.convolutions:
            found[f"{convolution.weight}.weight"] = convolution.shape
            for name in NORM:
                found[f"{convolution.norm}.{name}"] = (convolution.channels[1],)
            found[f"{convolution.norm}.{COUNTER}"] = ()
    if features in TOP:
        found |= {"classifier.weight": (classes, HEAD), "classifier.bias": (classes,)}
    return found


def named(tensors: Tensors, architecture: str, features: str) -> dict[str, npt.NDArray[Any]]:
    """The tensors of one network's file by timm's names, those that `features` need.

    The file has others' names for them, but lists the same tensors in the same order.

    Raises:
        WeightsError: they are not that network's.
    """
    every = shapes(architecture, "logits")
    if len(every) != len(tensors):
        raise WeightsError(f"the weights hold {len(tensors):,} tensors; expected {architecture}'s {len(every):,}")
    state = dict(zip(every, tensors.values(), strict=True))
    _check(state, every, architecture)
    return {name: state[name] for name in shapes(architecture, features)}


def joined(states: Mapping[str, Tensors]) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """Several networks, by their architectures, as one: its architecture and its tensors, as `shapes` names them."""
    state = {
        f"members.{place}.{name}": tensor
        for place, member in enumerate(states.values())
        for name, tensor in member.items()
    }
    return JOINED.join(states), state


def build(state: Tensors, architecture: str, features: str, size: int, batch: int) -> Any:
    """The network as an `openvino.Model` of float32 [batch, 3, size, size], normalised -> float32 [batch, dim].

    Features: `default` the pooled last map, `map` the last map flattened in the order height, width, channel, `logits`
    the classifier's output, `probabilities` its softmax, `best` the mean of the pooled features of the image and of its
    mirror image. Joined networks have `best` alone: each network's, made of unit length, side by side; the image comes
    at the size of the last one's input and is made smaller for the others.

    Args:
        state: tensors by the names that `shapes` gives, and no others.

    Raises:
        WeightsError: the tensors are not the architecture's.
    """
    openvino = load_openvino()
    ops = openvino.opset13
    check(state, architecture, features)
    images = ops.parameter([batch, 3, size, size], openvino.Type.f32, name="images")
    names = networks(architecture)
    if len(names) > 1:
        out = _side_by_side(ops, images, state, [SCALES[name] for name in names])
    elif features == "best":
        out = ops.multiply(_with_mirror(ops, images, state, SCALES[names[0]]), _float(ops, 0.5))
    else:
        out = _features(ops, _last_map(ops, images, state, SCALES[names[0]]), state, features)
    return openvino.Model([out], [images], architecture)


def check(state: Tensors, architecture: str, features: str) -> None:
    """Raise WeightsError unless `state` holds the architecture's tensors, by the names that `shapes` gives."""
    classes = len(state.get("classifier.bias", range(CLASSES)))
    _check(state, shapes(architecture, features, classes), architecture)


def _check(state: Tensors, expected: Shapes, architecture: str) -> None:
    for name in dict.fromkeys((*expected, *state)):
        wanted, found = expected.get(name), state.get(name)
        has = "is not there" if found is None else f"is {found.dtype} {list(found.shape)}"
        counts = name.endswith(COUNTER)
        if wanted is None:
            raise WeightsError(f"the weights do not fit {architecture}: tensor {name[:100]!r} is none of its own")
        if found is None or found.shape != wanted or found.dtype.kind != ("i" if counts else "f"):
            needs = f"{'whole' if counts else 'floating'} numbers {list(wanted)}"
            raise WeightsError(f"the weights do not fit {architecture}: tensor {name!r} {has}; expected {needs}")


def blocks(scale: Scale) -> Iterator[Block]:
    """The network from its stem to its last map, with timm's names."""
    yield Block("conv_stem", "3 × 3 convolution + norm", (Convolution("conv_stem", "bn1", (3, STEM), 3, 2),))
    into = STEM
    for place, stage in enumerate(STAGES):
        at_an_end = place in (0, len(STAGES) - 1)
        channels = _scaled(stage.channels, scale.width)
        for repeat in range(stage.repeats if at_an_end else math.ceil(stage.repeats * scale.depth)):
            stride = stage.stride if repeat == 0 else 1
            layers = _block(f"blocks.{place}.{repeat}", stage, into, channels, stride)
            kind = "inverted residual" if stage.expansion > 1 else "depthwise separable"
            yield Block(f"blocks.{place}.{repeat}", kind, layers, adds_input=stride == 1 and into == channels)
            into = channels
    yield Block("conv_head", "1 × 1 convolution + norm", (Convolution("conv_head", "bn2", (into, HEAD)),))


def _block(name: str, stage: Stage, into: int, out: int, stride: int) -> tuple[Convolution, ...]:
    if stage.expansion == 1:
        return (
            Convolution(f"{name}.conv_dw", f"{name}.bn1", (into, into), stage.kernel, stride, depthwise=True),
            Convolution(f"{name}.conv_pw", f"{name}.bn2", (into, out), bounded=False),
        )
    wide = into * stage.expansion
    return (
        Convolution(f"{name}.conv_pw", f"{name}.bn1", (into, wide)),
        Convolution(f"{name}.conv_dw", f"{name}.bn2", (wide, wide), stage.kernel, stride, depthwise=True),
        Convolution(f"{name}.conv_pwl", f"{name}.bn3", (wide, out), bounded=False),
    )


def _scaled(channels: int, width: float) -> int:
    """The multiple of 8 nearest to the product, but never less than nine tenths of it."""
    wanted = channels * width
    found = max(8, int(wanted + 4) // 8 * 8)
    return found + 8 if found < 0.9 * wanted else found


def _last_map(ops: ModuleType, images: Any, state: Tensors, scale: Scale, prefix: str = "") -> Any:
    """[n, 3, h, w] -> [n, 1280, ceil(h / 32), ceil(w / 32)]."""
    now = images
    for block in blocks(scale):
        before = now
        for convolution in block.convolutions:
            now = _convolved(ops, now, convolution, state, prefix)
        if block.adds_input:
            now = ops.add(now, before)
    return now


def _convolved(ops: ModuleType, now: Any, convolution: Convolution, state: Tensors, prefix: str) -> Any:
    """The batch normalisation is folded into the convolution: in single precision, as OpenVINO itself would fold it.

    So features are those of this network converted from torch, bit by bit.
    """
    weight, gamma, beta, mean, variance = (
        state[prefix + name].astype(np.float32)
        for name in (f"{convolution.weight}.weight", *(f"{convolution.norm}.{part}" for part in NORM))
    )
    gain = gamma / np.sqrt(variance + np.float32(EPSILON))
    kernel = (weight * gain[:, None, None, None]).astype(np.float32)
    stride, none = [convolution.stride] * 2, [0, 0]
    # TensorFlow's padding: what is odd of it comes after the image.
    if convolution.depthwise:
        grouped = _float(ops, kernel[:, None])  # [c, 1, 1, k, k]: as many groups as channels
        now = ops.group_convolution(now, grouped, stride, none, none, [1, 1], "same_upper")
    else:
        now = ops.convolution(now, _float(ops, kernel), stride, none, none, [1, 1], "same_upper")
    now = ops.add(now, _float(ops, (beta - mean * gain)[None, :, None, None]))
    return ops.clamp(now, 0.0, 6.0) if convolution.bounded else now


def _features(ops: ModuleType, last: Any, state: Tensors, features: str) -> Any:
    if features == "map":
        return ops.reshape(ops.transpose(last, [0, 2, 3, 1]), [0, -1], special_zero=True)
    pooled = ops.reduce_mean(last, [2, 3])
    if features == "default":
        return pooled
    classifier = _float(ops, state["classifier.weight"])
    logits = ops.add(ops.matmul(pooled, classifier, False, True), _float(ops, state["classifier.bias"][None]))
    return logits if features == "logits" else ops.softmax(logits, 1)


def _with_mirror(ops: ModuleType, images: Any, state: Tensors, scale: Scale, prefix: str = "") -> Any:
    """Pooled features of the images and of their mirror images, added: [n, 1280]."""
    mirrored = ops.slice(images, [-1], [np.iinfo(np.int64).min], [-1], [3])
    views = [_last_map(ops, view, state, scale, prefix) for view in (images, mirrored)]
    return ops.add(*(ops.reduce_mean(view, [2, 3]) for view in views))


def _side_by_side(ops: ModuleType, images: Any, state: Tensors, scales: list[Scale]) -> Any:
    rows = []
    for place, scale in enumerate(scales):
        view = images
        if scale.size != scales[-1].size:
            view = ops.interpolate(images, [scale.size] * 2, "linear_onnx", "sizes", axes=[2, 3])
        found = _with_mirror(ops, view, state, scale, f"members.{place}.")
        norm = ops.maximum(ops.reduce_l2(found, [1], keep_dims=True), _float(ops, LEAST_NORM))
        rows.append(ops.divide(found, norm))
    return ops.concat(rows, 1)


def _float(ops: ModuleType, values: Any) -> Any:
    return ops.constant(np.ascontiguousarray(values, dtype=np.float32))
