"""Encoders that are trained from scratch, by the names that `--backbone` and recipes give them (`shoal:cpu-small`).

Each takes float images [n, 3, size, size] and gives features [n, dim]; `dim` is an attribute of the module. Weights
are drawn from torch's global generator, so the caller seeds it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Final

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.encoder.names import PREFIX, TIMM, WHITENED
from shoal.errors import ConfigError

RIDGE: Final = 1e-3  # of the mean variance, added to each: directions that hold nothing stay small
ROWS: Final = 8192  # of features worked on at once, at double precision
TINY: Final = 1e-24  # where all features are equal
KERAS_EPSILON: Final = 1.001e-5
KERAS_MOMENTUM: Final = 0.01  # keras counts what is kept, torch what is taken


def build(name: str) -> nn.Module:
    """The encoder called `name`, with or without the prefix, with fresh weights.

    Raises:
        ConfigError: there is no such encoder.
    """
    plain = name.removeprefix(PREFIX)
    if plain.startswith(WHITENED):
        return Whitened(build(plain.removeprefix(WHITENED)))
    if plain in TRAINABLE:
        return TRAINABLE[plain]()
    architecture = plain.removeprefix(TIMM)
    if timm.is_model(architecture.split(".", 1)[0]):
        return from_timm(architecture)
    near = difflib.get_close_matches(architecture, [*TRAINABLE, *timm.list_models()], n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    known = f"{', '.join(TRAINABLE)}, or a timm model, after {WHITENED} or not"
    raise ConfigError(f"encoder has value {name!r}; expected one of {known}{hint}")


def from_timm(architecture: str) -> nn.Module:
    """A timm model without its classifier."""
    model: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0)
    model.dim = int(model.num_features)  # type: ignore[assignment, arg-type]
    return model


# -- ours, for CPUs ----------------------------------------------------------------------------------------------------


class SmallResidual(nn.Module):
    """A small residual network for images of about 32 pixels, whose work a CPU does well.

    Few wide 3×3 convolutions on few pixels: of the time of a thin network at full resolution, most goes to memory.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 320)) -> None:
        super().__init__()
        stem, *stages = widths
        self.stem = _convolution(3, stem, 1)
        self.stages = nn.Sequential()
        before = stem
        for width in stages:
            self.stages.append(_convolution(before, width, 2))
            self.stages.append(Residual(width))
            before = width
        self.dim = before

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(images)).mean(dim=(2, 3))  # [n, dim, h, w] -> [n, dim]
        return features


class Residual(nn.Module):
    """x + two 3×3 convolutions of x; the second starts as nothing, so that the block starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, 1)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))), inplace=True)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Whitened(nn.Module):
    """An encoder whose features are whitened by half when it has learned: each principal direction, centred, is divided
    by the fourth root of its variance, and turned back.

    A contrastive loss leaves a few directions with most of the variance, so that those alone tell who is near. Until
    `whitening.fit` is called features are as `inner` gives them.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.dim = int(inner.dim)  # type: ignore[arg-type]
        self.whitening = Whitening(self.dim)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.whitening(self.inner(images))
        return features


class Whitening(nn.Module):
    """What `whitening` finds, as a layer: features [n, dim] to features [n, dim]. No gradient changes it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim), requires_grad=False)
        self.turn = nn.Parameter(torch.eye(dim), requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):  # small differences are made large here
            white: Tensor = (features.float() - self.mean) @ self.turn
        return white

    def fit(self, features: Tensor) -> Tensor:
        """Whiten by half from now on, by features float32 [n, dim] of images as they are; return those whitened."""
        white, mean, turn = whitening(features)
        self.mean.copy_(mean)
        self.turn.copy_(turn)
        return white


@torch.no_grad()
def whitening(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features float32 [n, d] whitened by half, and the mean [d] and symmetric matrix [d, d] that do it.

    They are (x − mean) @ turn. A whole whitening makes what sets single images apart as large as what kinds share:
    docs/decisions.md has the comparison.
    """
    mean = features.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=features.device)
    for rows in torch.split(features, ROWS):
        centred = rows.double() - mean
        covariance += centred.T @ centred / len(features)
    variances, directions = torch.linalg.eigh(covariance)
    scales = (variances.clamp_min(0) + RIDGE * variances.mean()).clamp_min(TINY) ** -0.25
    turn = ((directions * scales) @ directions.T).float()
    white = torch.cat([(rows - mean.float()) @ turn for rows in torch.split(features, ROWS)])
    return white, mean.float(), turn


# -- those of the papers ---------------------------------------------------------------------------------------------


def resnet18_cifar() -> nn.Module:
    """ResNet-18 for 32×32: a 3×3 stem of stride 1 and no pooling (Chen et al., 2020, appendix B.9)."""
    model = from_timm("resnet18")
    model.conv1 = _small_stem()
    model.maxpool = nn.Identity()
    return model


def resnet18_stl() -> nn.Module:
    """ResNet-18 for 96×96, as SCAN has it: a 3×3 stem of stride 1 and 2×2 max-pooling."""
    model = from_timm("resnet18")
    model.conv1 = _small_stem()
    model.maxpool = nn.MaxPool2d(2, 2)
    return model


def _small_stem() -> nn.Conv2d:
    stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


class ResNet50V2(nn.Module):
    """ResNet50V2 as keras.applications has it, without top, average-pooled, then a dense layer of 512 features.

    Strides lie in the last block of a stack, the shortcut of a stack's first block starts from the activation, and
    paddings are zeros even before the max-pooling of values that no ReLU has seen.
    """

    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        blocks: list[nn.Module] = []
        before = 64
        for width, count, stride in ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)):
            for number in range(count):
                blocks.append(KerasBlock(before, width, number == 0, stride if number == count - 1 else 1))
                before = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.norm = _keras_norm(before)
        self.dense = nn.Linear(before, dim)
        self.dim = dim
        self.apply(_as_keras_draws)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.pad(self.stem(images), (1, 1, 1, 1)), 3, 2)
        x = F.relu(self.norm(self.blocks(x))).mean(dim=(2, 3))  # [n, 2048, h, w] -> [n, 2048]
        features: Tensor = self.dense(x)
        return features


class KerasBlock(nn.Module):
    """`residual_block_v2` of keras.applications."""

    def __init__(self, before: int, width: int, widen: bool, stride: int) -> None:
        super().__init__()
        self.norm0 = _keras_norm(before)
        self.shortcut = nn.Conv2d(before, 4 * width, 1, stride) if widen else None
        self.stride = stride
        self.first = nn.Conv2d(before, width, 1, bias=False)
        self.norm1 = _keras_norm(width)
        self.second = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = _keras_norm(width)
        self.third = nn.Conv2d(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm0(x), inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(active)
        elif self.stride > 1:  # Keras pools by windows of one pixel
            x = x[:, :, :: self.stride, :: self.stride]
        y = F.relu(self.norm1(self.first(active)), inplace=True)
        y = F.relu(self.norm2(self.second(y)), inplace=True)
        out: Tensor = self.third(y) + x
        return out


def _keras_norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=KERAS_EPSILON, momentum=KERAS_MOMENTUM)


@torch.no_grad()
def _as_keras_draws(module: nn.Module) -> None:
    """Glorot uniform weights and zero biases, Keras's defaults."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


TRAINABLE: Final[dict[str, Callable[[], nn.Module]]] = {
    "cpu-small": SmallResidual,
    "resnet18-cifar": resnet18_cifar,
    "resnet18-stl": resnet18_stl,
    "resnet50v2": ResNet50V2,
}
