"""Self-labelling as a phase of the loop: what a weak view makes it sure of, the encoder learns under a strong one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shoal.train import ema, losses
from shoal.train.config import PLAIN, SelfLabelConfig
from shoal.train.encoders import Clusterer, on_device
from shoal.train.evidence import HeldOut
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.pretext import Colours
from shoal.train.scan import logits_of
from shoal.train.views import Views
from shoal.train.watch import Watch, effective_clusters


class SelfLabel:
    """Trains a Clusterer of one head in place.

    `kept` holds the live network and, if the recipe has a decay, the average of its weights; `result` is the one of
    them that counts in the end.

    Args:
        chosen: positions of the images to learn from, int64 [n].
    """

    name = "selflabel"

    def __init__(
        self,
        config: SelfLabelConfig,
        network: Clusterer,
        pixels: Pixels,
        chosen: Tensor,
        held_out: HeldOut,
        colours: Colours,
        precision: Precision,
    ) -> None:
        self.config = config
        self.count = len(chosen)
        self.network = on_device(network, precision.device)
        self.kept: nn.Module = nn.ModuleDict({"network": self.network})
        if config.ema is not None:
            self.kept["average"] = ema.shadow(self.network)
        size = pixels.config.size
        self._pixels, self._chosen = pixels, chosen
        self._held_out, self._precision = held_out, precision
        self._weak, self._strong = Views(config.weak, size, *colours), Views(config.strong, size, *colours)
        self._plain = Views(PLAIN, size, *colours)
        self._entropy, self._clusters = torch.zeros(()), network.heads.weight.shape[2]

    @property
    def result(self) -> nn.Module:
        """The network to keep: the average if there is one."""
        name = "average" if self.config.ema is not None else "network"
        kept: nn.Module = self.kept[name]  # type: ignore[index]
        return kept

    def begin_epoch(self, epoch: int) -> None:
        """Every epoch is alike."""

    def examples(self, positions: Tensor, random: torch.Generator) -> Tensor:
        return self._pixels.take(self._chosen[positions])

    def losses(self, network: nn.Module, examples: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        pixels = examples.to(self._precision.device, non_blocking=True)
        with torch.no_grad(), self._precision.autocast():
            weak = self.network(self._weak(pixels, random))[0]  # [b, K]
        with self._precision.autocast():
            strong = network(self._strong(pixels, random))[0]
        found = losses.self_label(
            weak,
            strong,
            threshold=self.config.threshold,
            quota=self.config.quota,
            weigh_classes=self.config.weigh_classes,
        )
        mean = weak.float().softmax(dim=1).mean(dim=0)
        self._entropy = -torch.special.xlogy(mean, mean).sum()
        return {"loss": found.total, "confident": found.confident.float().mean()}

    def after_step(self) -> None:
        if self.config.ema is not None:
            ema.update(self.result, self.network, self.config.ema)

    def look(self, watch: Watch, epoch: int) -> dict[str, float]:
        entropy = float(self._entropy)
        watch.clusters(entropy, self._clusters, epoch)
        return {"clusters_used": effective_clusters(entropy)}

    def after_epoch(self, epoch: int, means: dict[str, float]) -> tuple[float, dict[str, Any]]:
        """Minus the agreement of neighbours among the images put aside."""
        agreement = self.agreement()
        return -agreement, {"agreement": agreement}

    def agreement(self) -> float:
        logits = logits_of(self.result, self._pixels, self._held_out.positions, self._plain, self._precision)
        return self._held_out.agreement(logits[0])
