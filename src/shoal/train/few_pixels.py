"""Convolutions of images of few pixels as matrix products, on a CPU.

The last layers of a network see 2×2 pixels or one. There oneDNN convolves image by image, so that all weights are read
again for each, and multiplies padding. One product of a whole batch is the same sum, several times as fast.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_PIXELS = 4  # of an image: up to here a 3×3 kernel joins every pixel with every other
LEAST_IMAGES = 32  # below, arranging the weights takes longer than it may save


class Convolution(nn.Conv2d):
    """nn.Conv2d, with the same parameters under the same names."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or input[0, 0].numel() > MOST_PIXELS or len(input) < LEAST_IMAGES:
            return super().forward(input)
        return product(self, input)


def product(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """The convolution [n, c', h', w'] of images [n, c, h, w] by one matrix product."""
    tall, wide = layer.kernel_size
    if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
        images = images[:, :, :: layer.stride[0], :: layer.stride[1]]
        return F.linear(images.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
    down = _meetings(images.shape[2], tall, layer.stride[0], int(layer.padding[0]))[:, None, :, None]
    across = _meetings(images.shape[3], wide, layer.stride[1], int(layer.padding[1]))[None, :, None, :]
    # The kernel's weights for each pair of an output pixel and an input pixel; none where no tap joins them.
    which = torch.where((down >= 0) & (across >= 0), down * wide + across, tall * wide)  # [h', w', h, w]
    height, width = which.shape[:2]
    taps = F.pad(layer.weight.flatten(2).permute(2, 0, 1), (0, 0, 0, 0, 0, 1))  # [k · k + 1, c', c], the last is 0
    # Not taps[which]: its gradient is summed by all threads at once, in no fixed order.
    chosen = taps.index_select(0, which.flatten()).view(height * width, -1, *taps.shape[1:])  # [h' w', h w, c', c]
    matrix = chosen.permute(0, 2, 1, 3).reshape(height * width * layer.out_channels, -1)
    bias = None if layer.bias is None else layer.bias.repeat(height * width)
    found = F.linear(images.permute(0, 2, 3, 1).flatten(1), matrix, bias)
    return found.view(len(images), height, width, -1).permute(0, 3, 1, 2)


def convert(network: nn.Module) -> nn.Module:
    """Make every plain convolution in `network` a Convolution with the same parameters; the network is returned."""
    for name, child in network.named_children():
        if type(child) is nn.Conv2d and _is_plain(child):
            setattr(network, name, _converted(child))
        else:
            convert(child)
    return network


def _is_plain(layer: nn.Conv2d) -> bool:
    """One group of taps side by side, with zeros around the image, enough of them for an image of one pixel."""
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and all(2 * zeros >= taps - 1 for zeros, taps in zip(layer.padding, layer.kernel_size, strict=True))
    )


def _converted(layer: nn.Conv2d) -> Convolution:
    sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    with torch.device("meta"):  # no weights are drawn
        made = Convolution(*sizes, bias=layer.bias is not None)  # type: ignore[arg-type]
    made.weight, made.bias = layer.weight, layer.bias
    return made.train(layer.training)


@lru_cache(maxsize=256)
def _meetings(size: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Along one side, for each output and each input, the tap of the kernel that joins them, or −1."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    taps = torch.arange(size)[None, :] - torch.arange(outputs)[:, None] * stride + padding
    return torch.where((taps >= 0) & (taps < kernel), taps, -1)
