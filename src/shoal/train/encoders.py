"""Encoders with what stands on them: projection heads of pretext tasks, cluster heads; and weights to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from shoal.encoder import architectures, lite
from shoal.encoder import weights as weight_files
from shoal.encoder.torch_weights import read_state_dict
from shoal.errors import ConfigError, WeightsError
from shoal.train import few_pixels
from shoal.train.config import EncoderConfig, HeadConfig
from shoal.train.gather import world_size

EMBEDDED = "embedded"


def encoder(config: EncoderConfig) -> nn.Module:
    """The encoder of a recipe in channels-last form, fresh or from its weights file.

    Raises:
        ConfigError: there is no such encoder, or no such part of it to freeze.
        WeightsError: the weights cannot be read or do not fit.
    """
    model = architectures.build(config.name)
    if config.weights is not None:
        load(model, weights_file(config.weights))
    for part in config.frozen:
        _freeze(model.inner if isinstance(model, architectures.Whitened) else model, part)
    return few_pixels.convert(model.to(memory_format=torch.channels_last))


def _freeze(model: nn.Module, part: str) -> None:
    parts = dict(model.named_modules())
    if not part or part not in parts or not any(True for _ in parts[part].parameters()):
        known = ", ".join(name for name, child in model.named_children() if any(True for _ in child.parameters()))
        raise ConfigError(f"encoder.frozen has {part!r}; expected parts of the encoder that have weights: {known}")
    parts[part].requires_grad_(False)


def weights_file(weights: str) -> Path:
    """The file that a recipe's `encoder.weights` names. Raises WeightsError if it is not there."""
    return weight_files.embedded_file() if weights == EMBEDDED else weight_files.checked_file(weights)


def load(model: nn.Module, file: Path) -> None:
    """Read an encoder's tensors from its own file, or from a MoCo, SimCLR or SCAN checkpoint.

    Heads there are left, and a whitening, which belongs to the images that it was found on.

    Raises:
        WeightsError: tensors are missing or have other shapes.
    """
    if file.name == weight_files.EMBEDDED.file:
        own = lite.named(weight_files.read_tensors(file), weight_files.EMBEDDED.architecture, "default")
        state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in own.items()}
    else:
        state = weight_files.encoder_tensors(read_state_dict(file))
    if any(name.startswith("inner.") for name in state):  # whitened for other images
        state = {name.removeprefix("inner."): tensor for name, tensor in state.items() if name.startswith("inner.")}
    if isinstance(model, architectures.Whitened):
        model = model.inner
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(f"the weights in {file} do not fit: {len(missing)} tensors missing (first {missing[0]!r})")
    try:
        model.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"the weights in {file} do not fit: {str(error).splitlines()[-1].strip()[:200]}") from error


class Projector(nn.Module):
    """An encoder and a projection head: images [n, 3, s, s] -> features [n, d] and projections [n, p]."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        return features, self.head(features)


def projection_head(features: int, config: HeadConfig, dim: int | None = None) -> nn.Module:
    """The head of a recipe on `features` dimensions; `dim` in place of the recipe's."""
    dim = dim or config.dim
    if config.kind == "linear":
        return nn.Linear(features, dim)
    if config.kind == "keras":
        return nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(features, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU()
        )
    hidden = config.hidden or features
    layers: list[nn.Module] = [nn.Linear(features, hidden, bias=not config.norm)]
    if config.norm:
        layers.append(nn.BatchNorm1d(hidden))
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(hidden, dim))


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device; on several GPUs BatchNorm sees the batch of all of them (it cannot on CPUs)."""
    network = network.to(device)
    return in_step(network) if device.type == "cuda" and world_size() > 1 else network


def in_step(network: nn.Module) -> nn.Module:
    """The network with BatchNorms that see the batch of all processes. timm's, which hold an activation too, keep it:
    torch's own conversion leaves it out."""
    converted: nn.Module = convert_sync_batchnorm(network)
    return converted


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear cluster head: logits = features @ weight + bias. weight float32 [d, K], bias float32 [K]."""

    weight: Tensor
    bias: Tensor

    def of_raw(self, mean: Tensor, scale: Tensor) -> Head:
        """This head of (features − mean) / scale as one of the features themselves; mean and scale [d]."""
        weight = self.weight / scale[:, None]
        return Head(weight, self.bias - mean @ weight)


class ClusterHeads(nn.Module):
    """Several linear heads as one matrix product: features [n, d] -> logits [H, n, K]."""

    def __init__(self, features: int, clusters: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, features, clusters))
        self.bias = nn.Parameter(torch.zeros(heads, 1, clusters))
        bound = features**-0.5  # as nn.Linear
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weight + self.bias  # [n, d] @ [H, d, K] -> [H, n, K]

    def head(self, number: int) -> Head:
        """One of them, on the CPU and apart from the training."""
        return Head(self.weight[number].detach().cpu(), self.bias[number, 0].detach().cpu())


class Clusterer(nn.Module):
    """An encoder and cluster heads: images [n, 3, s, s] -> logits [H, n, K]."""

    def __init__(self, encoder: nn.Module, heads: ClusterHeads) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.encoder(images))
        return logits
