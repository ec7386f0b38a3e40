"""SCAN as phases of the loop: clusters that agree with neighbours, with the encoder frozen or tuned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shoal.progress import Progress
from shoal.train import draws, losses
from shoal.train.config import PLAIN, ScanConfig
from shoal.train.encoders import Clusterer, ClusterHeads, Head, on_device
from shoal.train.evidence import HeldOut
from shoal.train.features import encode, moments
from shoal.train.moved import moved
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.pretext import Colours
from shoal.train.views import Views
from shoal.train.watch import Watch, effective_clusters


class _Scan:
    """What both ways share: pairs, the loss, and the choice of head and epoch by images put aside."""

    name = "scan"
    network: nn.Module
    kept: nn.Module

    def __init__(
        self, config: ScanConfig, clusters: int, anchors: Tensor, neighbours: Tensor, held_out: HeldOut
    ) -> None:
        self.config, self.clusters = config, clusters
        self.count = len(anchors)
        self._anchors, self._neighbours, self._held_out = anchors, neighbours, held_out
        self._entropy = torch.zeros(())

    def begin_epoch(self, epoch: int) -> None:
        """Every epoch is alike."""

    def after_step(self) -> None:
        """Nothing is kept beside the network."""

    def look(self, watch: Watch, epoch: int) -> dict[str, float]:
        entropy = float(self._entropy)
        advice = "set scan.loss=standard" if self.config.loss == "keras" else "raise scan.entropy_weight"
        watch.clusters(entropy, self.clusters, epoch, advice)
        return {"clusters_used": effective_clusters(entropy)}

    def after_epoch(self, epoch: int, means: dict[str, float]) -> tuple[float, dict[str, Any]]:
        """The best head's loss on the images put aside."""
        logits = self.held_out_logits()
        totals = self._held_out.loss(logits, self.config.entropy_weight).total
        best = int(totals.argmin())
        agreement = self._held_out.agreement(logits[best])
        return float(totals[best]), {"held_out": float(totals[best]), "agreement": agreement, "head": best}

    def held_out_logits(self) -> Tensor:
        """[H, m, K]."""
        raise NotImplementedError

    def head(self, number: int) -> Head:
        """One of the heads, as it works on the encoder's own features."""
        raise NotImplementedError

    def best_head(self) -> int:
        """The head with the least loss on the images put aside."""
        return int(self._held_out.loss(self.held_out_logits(), self.config.entropy_weight).total.argmin())

    def _pairs(self, positions: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Anchors [b] and, for each, some of its neighbours, no one twice [b, each], as positions among all images."""
        k = self._neighbours.shape[1]
        each = min(self.config.neighbours_each, k)
        drawn = torch.rand(len(positions), k, generator=random).argsort(dim=1)[:, :each]
        return self._anchors[positions], self._neighbours[positions].gather(1, drawn)

    def _loss(self, anchors: Tensor, neighbours: Tensor) -> dict[str, Tensor]:
        """Of logits [H, b, K] and [H, b · each, K]. Heads do not share weights: their losses add up."""
        each = neighbours.shape[1] // anchors.shape[1]
        anchors = anchors.repeat_interleave(each, dim=1)
        if self.config.loss == "keras":
            found = losses.keras_clustering(anchors, neighbours)
        else:
            found = losses.scan(anchors, neighbours, self.config.entropy_weight)
        self._entropy = found.entropy.detach().max()
        return {
            "loss": found.total.sum(),
            "consistency": found.consistency.mean(),
            "entropy": found.entropy.mean(),
        }


class FrozenScan(_Scan):
    """Heads on features of a few views of each image, computed once: no pass of the encoder in an epoch.

    Args:
        views: float [V, n, d], features of V views of all n images.
        plain: float32 [m, d], features of the images put aside as they are.
    """

    def __init__(
        self,
        config: ScanConfig,
        clusters: int,
        anchors: Tensor,
        neighbours: Tensor,
        held_out: HeldOut,
        views: Tensor,
        plain: Tensor,
        device: torch.device,
    ) -> None:
        super().__init__(config, clusters, anchors, neighbours, held_out)
        self._mean, self._scale = moments(views[0].float()) if config.standardise else _nothing(views)
        self._views, self._device = views, device
        self._plain = self._standard(plain).to(device)
        self.network = ClusterHeads(views.shape[2], clusters, config.heads).to(device)
        self.kept = self.network

    def examples(self, positions: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features of a random view of each anchor [b, d] and of its neighbours [b · each, d]."""
        anchors, neighbours = self._pairs(positions, random)
        return self._some_view(anchors, random), self._some_view(neighbours.flatten(), random)

    def losses(self, network: nn.Module, examples: tuple[Tensor, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        anchors, neighbours = (moved(self._standard(features.float()), self._device) for features in examples)
        logits = network(torch.cat([anchors, neighbours]))
        return self._loss(logits[:, : len(anchors)], logits[:, len(anchors) :])

    @torch.no_grad()
    def held_out_logits(self) -> Tensor:
        logits: Tensor = self.network(self._plain)
        return logits.cpu()

    def head(self, number: int) -> Head:
        """The head with the standardising put into its weights."""
        heads: ClusterHeads = self.network  # type: ignore[assignment]
        return heads.head(number).of_raw(self._mean, self._scale)

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self._mean) / self._scale

    def _some_view(self, positions: Tensor, random: torch.Generator) -> Tensor:
        which = torch.randint(len(self._views), positions.shape, generator=random)
        return self._views[which, positions]


class TunedScan(_Scan):
    """Encoder and heads together, on views of anchors and neighbours."""

    def __init__(
        self,
        config: ScanConfig,
        clusters: int,
        anchors: Tensor,
        neighbours: Tensor,
        held_out: HeldOut,
        encoder: nn.Module,
        pixels: Pixels,
        colours: Colours,
        precision: Precision,
    ) -> None:
        super().__init__(config, clusters, anchors, neighbours, held_out)
        heads = ClusterHeads(int(encoder.dim), clusters, config.heads)  # type: ignore[arg-type]
        self.network = on_device(Clusterer(encoder, heads), precision.device)
        self.kept = self.network
        self._pixels, self._precision = pixels, precision
        self._views = Views(config.views, pixels.config.size, *colours)
        self._plain = Views(PLAIN, pixels.config.size, *colours)

    def examples(self, positions: Tensor, random: torch.Generator) -> tuple[int, Tensor]:
        anchors, neighbours = self._pairs(positions, random)
        return len(anchors), self._pixels.take(torch.cat([anchors, neighbours.flatten()]))

    def losses(self, network: nn.Module, examples: tuple[int, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        count, pixels = examples
        images = self._views(moved(pixels, self._precision.device), random)
        with self._precision.autocast():
            logits = network(images)
        return self._loss(logits[:, :count], logits[:, count:])

    @property
    def encoder(self) -> nn.Module:
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]
        return encoder

    def head(self, number: int) -> Head:
        heads: ClusterHeads = self.network.heads  # type: ignore[assignment]
        return heads.head(number)

    def held_out_logits(self) -> Tensor:
        return logits_of(self.network, self._pixels, self._held_out.positions, self._plain, self._precision)


def _nothing(views: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(views.shape[2]), torch.ones(views.shape[2])


def logits_of(network: nn.Module, pixels: Pixels, positions: Tensor, plain: Views, precision: Precision) -> Tensor:
    """Logits [H, m, K] of a Clusterer for images as they are."""
    unused = torch.Generator(precision.device)  # the plain view draws nothing
    rows = encode(_RowsFirst(network), pixels, positions, lambda images: plain(images, unused), precision)
    return rows.transpose(0, 1)


def view_features(
    encoder: nn.Module,
    config: ScanConfig,
    pixels: Pixels,
    colours: Colours,
    precision: Precision,
    seed: int,
    progress: Progress,
) -> Tensor:
    """Features of `cached_views` views of every image, float16 [V, n, d]."""
    views = Views(config.views, pixels.config.size, *colours)
    everything = torch.arange(len(pixels))
    found = []
    for number in range(config.cached_views):
        random = draws.generator(precision.device, seed, "cached views", number)
        features = encode(encoder, pixels, everything, lambda images: views(images, random), precision, progress)  # noqa: B023
        found.append(features.half())
    return torch.stack(found)


class _RowsFirst(nn.Module):
    """A Clusterer whose logits come as [n, H, K], so that processes can join their rows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits.transpose(0, 1)
