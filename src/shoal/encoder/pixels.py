"""The step before a network: from the pixels of images to what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoal.encoder.bindings import load_openvino


def taking_pixels(
    model: Any, mean: Sequence[float], std: Sequence[float], layout: str = "NCHW", dtype: str = "f32"
) -> Any:
    """`model`, an `openvino.Model` of images, as one of uint8 [n, h, w, 3].

    Args:
        mean: of each channel, for pixels scaled to 0..1.
        std: as above.
        layout: of the model's images: NCHW, [n, 3, h, w], or NHWC.
        dtype: of their numbers: f32, f16 or u8, which takes pixels as they are, whatever mean and std say.
    """
    openvino = load_openvino()
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout(layout))
    if dtype != "u8":
        scaled = steps.input().preprocess().convert_element_type(openvino.Type.f32)
        scaled.mean([255 * value for value in mean]).scale([255 * value for value in std])
        scaled.convert_element_type(getattr(openvino.Type, dtype))
    return steps.build()
