"""ONNX files written byte by byte, without the package `onnx`: sound ones, and such as no exporter would write.

As a program, `python tests/onnx_files.py FILE.onnx` writes a small sound one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

TYPES = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10, "float64": 11}
DIM = 8  # of the small network's features


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def put(number: int, value: int | str | bytes) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: npt.ArrayLike, more: bytes = b"") -> bytes:
    array = np.asarray(values)
    dims = b"".join(put(1, size) for size in array.shape)
    return dims + put(2, TYPES[str(array.dtype)]) + put(8, name) + put(9, array.tobytes()) + more


def attribute(name: str, value: int | Sequence[int] | bytes) -> bytes:
    """`bytes`: the field that holds it and its type, as they are written."""
    if isinstance(value, bytes):
        return put(1, name) + value
    if isinstance(value, int):
        return put(1, name) + put(3, value) + put(20, 2)
    return put(1, name) + b"".join(put(8, one) for one in value) + put(20, 7)


def node(
    operator: str, inputs: str, outputs: str, domain: str = "", **attributes: int | Sequence[int] | bytes
) -> bytes:
    """Names of inputs and outputs are separated by spaces."""
    names = b"".join(put(1, one) for one in inputs.split()) + b"".join(put(2, one) for one in outputs.split())
    held = b"".join(put(5, attribute(name, value)) for name, value in attributes.items())
    return names + put(4, operator) + held + (put(7, domain) if domain else b"")


def value(name: str, shape: Sequence[int | str], dtype: str = "float32") -> bytes:
    """An input or output; sizes given as texts are open."""
    sizes = b"".join(put(1, put(1, one) if isinstance(one, int) else put(2, one)) for one in shape)
    return put(1, name) + put(2, put(1, put(1, TYPES[dtype]) + put(2, sizes)))


def graph(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], tensors: Sequence[bytes] = ()
) -> bytes:
    parts = [(1, nodes), (2, ["graph"]), (5, tensors), (11, inputs), (12, outputs)]
    return b"".join(put(number, one) for number, some in parts for one in some)


def model(inner: bytes, metadata: Mapping[str, str] | None = None, more: bytes = b"", opset: int = 17) -> bytes:
    entries = b"".join(put(14, put(1, key) + put(2, text)) for key, text in (metadata or {}).items())
    return put(1, 8) + put(8, put(2, opset)) + put(7, inner) + entries + more


def kernel() -> npt.NDArray[np.float32]:
    """The small network's weights, [DIM, 3, 3, 3]."""
    return np.random.default_rng(0).standard_normal((DIM, 3, 3, 3)).astype(np.float32)


CONVOLUTION = node("Conv", "pixels kernel", "wide", strides=[2, 2], kernel_shape=[3, 3])
RELU = node("Relu", "wide", "map")
POOL = node("GlobalAveragePool", "map", "pooled")
FLATTEN = node("Flatten", "pooled", "features")


def small(
    side: int | str = 32,
    batch: int | str = "n",
    metadata: Mapping[str, str] | None = None,
    nodes: Sequence[bytes] = (),
    outputs: Mapping[str, Sequence[int | str]] | None = None,
) -> bytes:
    """A convolution, its positive part, and the mean of it: pixels [batch, 3, side, side] -> features [batch, DIM].

    Args:
        nodes: more of them, behind these.
        outputs: by name, others than the features.
    """
    named = outputs or {"features": [batch, DIM]}
    inner = graph(
        [CONVOLUTION, RELU, POOL, FLATTEN, *nodes],
        [value("pixels", [batch, 3, side, side])],
        [value(name, shape) for name, shape in named.items()],
        [tensor("kernel", kernel())],
    )
    return model(inner, metadata)


def maps(pixels: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> npt.NDArray[np.float64]:
    """What the small network makes of uint8 [n, side, side, 3] before it takes the mean: [n, DIM, h, w]."""
    images = ((pixels / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    found: npt.NDArray[np.float64] = np.maximum(np.einsum("nchwij,dcij->ndhw", windows, kernel().astype(float)), 0)
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(small())
