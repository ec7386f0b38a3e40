"""Pretext tasks as phases of the loop: SimCLR, MoCo v2, RotNet."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shoal.train import geometry, losses
from shoal.train.config import PretextConfig
from shoal.train.encoders import Projector, on_device, projection_head
from shoal.train.gather import gather_constant, rank, world_size
from shoal.train.moved import moved
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.views import Views
from shoal.train.watch import Watch, health

GRAIN = 4  # pixels by which growing views grow

Colours = tuple[tuple[float, ...], tuple[float, ...]]
Monitor = Callable[[int, nn.Module], dict[str, float]]


class _Pretext:
    """What the tasks share: images, views that may grow, and a look at the features."""

    name = "pretext"

    def __init__(
        self,
        config: PretextConfig,
        encoder: nn.Module,
        head_dim: int | None,
        pixels: Pixels,
        colours: Colours,
        precision: Precision,
        monitor: Monitor | None = None,
    ) -> None:
        self.config = config
        self.count = len(pixels)
        head = projection_head(int(encoder.dim), config.head, head_dim)  # type: ignore[arg-type]
        projector = Projector(encoder, head)
        # MoCo's BatchNorm stays within a process: that is what shuffling the keys relies on.
        alone = config.task == "moco"
        self.network: nn.Module = projector.to(precision.device) if alone else on_device(projector, precision.device)
        self.kept: nn.Module = self.network
        self._pixels, self._precision, self._monitor = pixels, precision, monitor
        self._views = Views(config.views, pixels.config.size, *colours)
        self._seen: tuple[Tensor, Tensor] | None = None  # features of two views of the last batch

    @property
    def encoder(self) -> nn.Module:
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]
        return encoder

    def begin_epoch(self, epoch: int) -> None:
        self._views.size = size_at(epoch, self.config, self._pixels.config.size)

    def examples(self, positions: Tensor, random: torch.Generator) -> Tensor:
        return self._pixels.take(positions)

    def after_step(self) -> None:
        """Most tasks keep nothing beside the network."""

    def look(self, watch: Watch, epoch: int) -> dict[str, float]:
        if self._seen is None:
            return {}
        found = health(*self._seen)
        watch.features(found.spread, epoch)
        return dataclasses.asdict(found)

    def after_epoch(self, epoch: int, means: dict[str, float]) -> tuple[None, dict[str, Any]]:
        """The last epoch counts: a pretext loss falls with harder views and with smaller ones alike."""
        return None, self._monitor(epoch, self.encoder) if self._monitor is not None else {}

    def _two_views(self, pixels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels = moved(pixels, self._precision.device)
        return self._views(pixels, random), self._views(pixels, random)


class SimCLR(_Pretext):
    """Two views of an image are near each other, and far from those of all other images."""

    def losses(self, network: nn.Module, examples: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        batch = len(examples)
        with self._precision.autocast():
            features, projections = network(torch.cat(self._two_views(examples, random)))  # [2B, d], [2B, p]
        self._seen = features[:batch].detach(), features[batch:].detach()
        first, second, temperature = projections[:batch], projections[batch:], self.config.temperature
        if self.config.loss == "keras":
            return {"loss": losses.keras_contrastive(first, second, temperature)}
        return {"loss": losses.nt_xent(first, second, temperature, decoupled=self.config.loss == "decoupled")}


class MoCo(_Pretext):
    """A view is near what a slowly following network makes of another, and far from a queue of such of other images."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        config = self.config
        dim = config.head.dim
        keys = copy.deepcopy(self.network).requires_grad_(False)
        self.kept = nn.ModuleDict({"network": self.network, "key_network": keys})
        drawn = nn.functional.normalize(torch.randn(config.queue, dim), dim=1)  # as the paper: noise until keys come
        self.kept.register_buffer("queue", drawn.to(self._precision.device))
        self.kept.register_buffer("place", torch.zeros((), dtype=torch.long))
        self._keys = keys

    def losses(self, network: nn.Module, examples: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        first, second = self._two_views(examples, random)
        with self._precision.autocast():
            features, queries = network(first)
        seen, keys = self._shuffled_keys(second, random)
        self._seen = features.detach(), seen
        loss = losses.info_nce(queries, keys, self._buffer("queue").clone(), self.config.temperature)
        self._enqueue(gather_constant(keys))
        return {"loss": loss}

    def after_step(self) -> None:
        live = dict(self.network.named_parameters())
        with torch.no_grad():  # statistics of BatchNorm are the key network's own
            for name, weight in self._keys.named_parameters():
                weight.lerp_(live[name].detach(), 1 - self.config.key_momentum)

    @torch.no_grad()
    def _shuffled_keys(self, images: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features and keys, with BatchNorm over other images than the queries' (He et al., 2020, section 3.3).

        The batch of all processes is shuffled over them; a process alone shuffles it into groups instead.
        """
        everyone = gather_constant(images)
        shuffle = torch.Generator("cpu").manual_seed(self._common(random))
        order = moved(torch.randperm(len(everyone), generator=shuffle), images.device)
        groups = max(1, min(self.config.key_groups // world_size(), len(images) // 8))
        mine = order.chunk(world_size())[rank()]
        outputs = []
        with self._precision.autocast():
            for group in mine.chunk(groups):
                outputs.append(self._keys(everyone[group]))
        features = gather_constant(torch.cat([output[0] for output in outputs]).float())
        keys = gather_constant(torch.cat([output[1] for output in outputs]).float())
        back = order.argsort()[rank() * len(images) : (rank() + 1) * len(images)]
        return features[back], nn.functional.normalize(keys[back], dim=1)

    def _common(self, random: torch.Generator) -> int:
        """A number that all processes agree on: the first one's."""
        if world_size() == 1:
            return random.initial_seed()  # read from a GPU it would have to be waited for
        return int(gather_constant(torch.tensor([random.initial_seed()], device=random.device))[0])

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Put keys where the oldest were."""
        queue, place = self._buffer("queue"), self._buffer("place")
        keys = keys[-len(queue) :]
        queue[(torch.arange(len(keys), device=queue.device) + int(place)) % len(queue)] = keys
        place.copy_((place + len(keys)) % len(queue))

    def _buffer(self, name: str) -> Tensor:
        buffer: Tensor = getattr(self.kept, name)
        return buffer


class RotNet(_Pretext):
    """Every image in its four orientations; which is which?"""

    def losses(self, network: nn.Module, examples: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        views = self._views(moved(examples, self._precision.device), random)
        turns = torch.arange(4, device=views.device).repeat_interleave(len(views))
        with self._precision.autocast():
            features, logits = network(geometry.quarter_turns(views))  # [4B, d], [4B, 4]
        self._seen = features[: len(views)].detach(), features[-len(views) :].detach()
        correct = (logits.detach().argmax(dim=1) == turns).float().mean()
        return {"loss": losses.rotation(logits, turns), "right": correct}


def build(
    config: PretextConfig,
    encoder: nn.Module,
    pixels: Pixels,
    colours: Colours,
    precision: Precision,
    monitor: Monitor | None = None,
) -> SimCLR | MoCo | RotNet:
    """The recipe's task on `encoder`, which is trained in place."""
    if config.task == "rotnet":
        return RotNet(config, encoder, 4, pixels, colours, precision, monitor)
    kind = MoCo if config.task == "moco" else SimCLR
    return kind(config, encoder, None, pixels, colours, precision, monitor)


def size_at(epoch: int, config: PretextConfig, size: int) -> int:
    """Side of the views in an epoch: growing evenly from `start_side`, in steps that convolutions like."""
    part = min(1.0, epoch / max(1e-9, config.grow_until * config.epochs))
    if part == 1:
        return round(config.end_side * size)
    grown = (config.start_side + part * (config.end_side - config.start_side)) * size
    return round(grown) if config.start_side == config.end_side else max(GRAIN, int(grown // GRAIN) * GRAIN)
