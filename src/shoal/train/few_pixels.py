"""Convolutions of images of few pixels as matrix products, on a CPU.

The last layers of a network see 2×2 pixels or one. There oneDNN convolves image by image, so that all weights are read
again for each, and multiplies padding. One product of a whole batch is the same sum, several times as fast.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_PIXELS = 4  # of an image; with more, most pairs of pixels are too far apart for a kernel to join them
LEAST_IMAGES = 32  # below, arranging the weights takes longer than it saves


class Convolution(nn.Conv2d):
    """nn.Conv2d, with the same parameters under the same names."""

    def forward(self, input: Tensor) -> Tensor:
        count, _, height, width = input.shape
        if input.device.type != "cpu" or height * width > MOST_PIXELS or count < LEAST_IMAGES:
            return super().forward(input)
        tall, taps_tall = _meetings(height, self.kernel_size[0], self.stride[0], int(self.padding[0]))
        wide, taps_wide = _meetings(width, self.kernel_size[1], self.stride[1], int(self.padding[1]))
        rows = input.permute(0, 2, 3, 1).reshape(count * height * width, -1)  # [n · h · w, c]
        if self.kernel_size == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0):
            found = F.linear(rows, self.weight.flatten(1), self.bias)
            return found.view(count, height, width, -1).permute(0, 3, 1, 2)
        # The kernel's weights for each pair of an output pixel and an input pixel; none where no tap joins them.
        which = taps_tall[:, None, :, None] * self.kernel_size[1] + taps_wide[None, :, None, :]  # [h', w', h, w]
        joined = (taps_tall[:, None, :, None] >= 0) & (taps_wide[None, :, None, :] >= 0)
        which = torch.where(joined, which, self.kernel_size[0] * self.kernel_size[1]).view(tall * wide, height * width)
        taps = F.pad(self.weight.flatten(2).permute(2, 0, 1), (0, 0, 0, 0, 0, 1))  # [k · k + 1, c', c], the last is 0
        matrix = taps[which].permute(0, 2, 1, 3).reshape(tall * wide * self.out_channels, -1)  # [h' w' c', h w c]
        bias = None if self.bias is None else self.bias.repeat(tall * wide)
        found = F.linear(rows.view(count, -1), matrix, bias)
        return found.view(count, tall, wide, -1).permute(0, 3, 1, 2)


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
def _meetings(size: int, kernel: int, stride: int, padding: int) -> tuple[int, Tensor]:
    """Along one side: how many outputs, and for each of them and each input the tap that joins them, or −1."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    taps = torch.arange(size)[None, :] - torch.arange(outputs)[:, None] * stride + padding  # [outputs, size]
    return outputs, torch.where((taps >= 0) & (taps < kernel), taps, -1)
