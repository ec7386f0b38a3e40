"""The step before a network: from the pixels of images to what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoal.encoder.bindings import load_openvino


def taking_pixels(model: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """`model`, an `openvino.Model` of float32 [n, 3, h, w], as one of uint8 [n, h, w, 3].

    Args:
        mean: of each channel, for pixels scaled to 0..1.
        std: as above.
    """
    openvino = load_openvino()
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    scaled = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    scaled.mean([255 * value for value in mean]).scale([255 * value for value in std])
    return steps.build()
