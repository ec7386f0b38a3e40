"""Self-labelling as a phase of the loop: of what is sure, the encoder learns to say the same under strong views."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.cluster.confidence import fit_concentration
from shoal.train import losses
from shoal.train.config import PLAIN, SelfLabelConfig
from shoal.train.ema import Average
from shoal.train.encoders import Clusterer, ClusterHeads, Head, on_device
from shoal.train.evidence import HeldOut
from shoal.train.features import moments
from shoal.train.gather import share_first, world_size
from shoal.train.moved import moved
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision
from shoal.train.pretext import Colours
from shoal.train.scan import logits_of
from shoal.train.teacher import Teacher
from shoal.train.views import Views
from shoal.train.watch import Watch, effective_clusters

PROBE_IMAGES, PROBE_STEPS = 50_000, 100
PROBE_DECAY = 0.05  # much: a head that fits every image would leave no loss to learn from


class _Sharpened:
    """What both ways share: a Clusterer of one head that is trained in place, and the average of its weights.

    Clusters are judged by the neighbours of `judge`. `kept` holds the live network and, if the recipe has a decay, the
    average; `result` is the one of them that counts in the end.
    """

    name = "selflabel"

    def __init__(
        self,
        config: SelfLabelConfig,
        network: Clusterer,
        pixels: Pixels,
        judge: HeldOut,
        colours: Colours,
        precision: Precision,
    ) -> None:
        self.config = config
        self.network = on_device(network, precision.device)
        self.kept: nn.Module = nn.ModuleDict({"network": self.network})
        if config.ema is not None:
            self.kept["average"] = Average(self.network, config.ema)
        size = pixels.config.size
        self._pixels, self._judge, self._precision = pixels, judge, precision
        self._strong = Views(config.strong, size, *colours)
        self._plain = Views(PLAIN, size, *colours)
        self._entropy, self._clusters = torch.zeros(()), network.heads.weight.shape[2]
        self._expected, self._advice = float(self._clusters), "raise scan.entropy_weight"

    @property
    def result(self) -> nn.Module:
        """The network to keep: the average if there is one."""
        if self.config.ema is None:
            return self.network
        network: nn.Module = self.kept["average"].network  # type: ignore[index]
        return network

    def begin_epoch(self, epoch: int) -> None:
        """Every epoch is alike."""

    def after_step(self) -> None:
        if self.config.ema is not None:
            self.kept["average"].update(self.network)  # type: ignore[index]

    def look(self, watch: Watch, epoch: int) -> dict[str, float]:
        entropy = float(self._entropy)
        watch.clusters(entropy, self._expected, epoch, self._advice)
        return {"clusters_used": effective_clusters(entropy)}

    def after_epoch(self, epoch: int, means: dict[str, float]) -> tuple[float | None, dict[str, Any]]:
        """Minus the agreement of neighbours."""
        self._share_average()
        agreement = self._judge.agreement(self.logits(self._judge.positions))
        return -agreement, {"agreement": agreement}

    def logits(self, positions: Tensor) -> Tensor:
        """What the result says of images as they are, [n, K]."""
        return logits_of(self.result, self._pixels, positions, self._plain, self._precision)[0]

    def head(self) -> Head:
        """The result's."""
        heads: ClusterHeads = self.result.heads  # type: ignore[assignment]
        return heads.head(0)

    def _share_average(self) -> None:
        """All processes take the first's: statistics of BatchNorm, averaged apart, may differ."""
        if self.config.ema is not None:
            share_first(self.result)

    def _note(self, logits: Tensor) -> None:
        mean = logits.detach().float().softmax(dim=1).mean(dim=0)
        self._entropy = -torch.special.xlogy(mean, mean).sum()


class SelfLabel(_Sharpened):
    """The network teaches itself: labels are what it says of weak views at every step (SCAN, section 2.3).

    Args:
        chosen: positions of the images to learn from, int64 [n].
    """

    def __init__(
        self,
        config: SelfLabelConfig,
        network: Clusterer,
        pixels: Pixels,
        chosen: Tensor,
        judge: HeldOut,
        colours: Colours,
        precision: Precision,
    ) -> None:
        super().__init__(config, network, pixels, judge, colours, precision)
        self._weak = Views(config.weak, pixels.config.size, *colours)
        self._chosen, self.count = chosen, len(chosen)

    def examples(self, positions: Tensor, random: torch.Generator) -> Tensor:
        return self._pixels.take(self._chosen[positions])

    def losses(self, network: nn.Module, examples: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        pixels = moved(examples, self._precision.device)
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
        self._note(weak)
        return {"loss": found.total, "confident": found.confident.float().mean()}


class Taught(_Sharpened):
    """Clusters that there are teach the network: at first theirs are the labels, after each epoch those it now gives.

    Of each cluster the surest `quota` is learned from. The last epoch counts: agreement with neighbours that were there
    before falls with all that is learned beyond them.
    """

    def __init__(
        self,
        config: SelfLabelConfig,
        network: Clusterer,
        pixels: Pixels,
        teacher: Teacher,
        judge: HeldOut,
        colours: Colours,
        precision: Precision,
    ) -> None:
        super().__init__(config, network, pixels, judge, colours, precision)
        self.kept.register_buffer("labels", teacher.labels.clone())
        self.kept.register_buffer("confidence", teacher.confidence.clone())
        least = max(self._clusters, 2 * world_size())
        count = len(teacher.labels)
        self._chosen, self.count = teacher.positions, min(count, max(round(config.quota * count), least))
        self._advice = "raise selflabel.quota"
        self._surest, self._weights = torch.empty(0), torch.empty(0)

    def begin_epoch(self, epoch: int) -> None:
        """The images to learn from, and the weight of each class, by the labels as they stand."""
        labels: Tensor = self.kept.labels  # type: ignore[assignment]
        self._surest = surest(labels, self.kept.confidence, self._clusters)[: self.count]  # type: ignore[arg-type]
        counts = torch.bincount(labels[self._surest], minlength=self._clusters).float()
        shares = counts / counts.sum()
        self._expected = effective_clusters(float(-torch.special.xlogy(shares, shares).sum()))
        even = counts.sum() / (self._clusters * counts.clamp_min(1))
        weights = even if self.config.weigh_classes else torch.ones_like(counts)
        self._weights = weights.to(self._precision.device)

    def examples(self, positions: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = self._surest[positions]
        return self._pixels.take(self._chosen[rows]), self.kept.labels[rows]  # type: ignore[index]

    def losses(self, network: nn.Module, examples: tuple[Tensor, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        pixels, labels = (moved(part, self._precision.device) for part in examples)
        with self._precision.autocast():
            strong = network(self._strong(pixels, random))[0]
        self._note(strong)
        loss = F.cross_entropy(strong.float(), labels, reduction="none") * self._weights[labels]
        return {"loss": loss.mean()}

    def after_epoch(self, epoch: int, means: dict[str, float]) -> tuple[float | None, dict[str, Any]]:
        """The labels are renewed here, where the checkpoint written next will hold them. The last epoch counts."""
        self._share_average()
        logits = self.logits(self._chosen)
        confidence, labels = logits.softmax(dim=1).max(dim=1)
        renewed = float(labels.ne(self.kept.labels).float().mean())  # type: ignore[arg-type]
        self.kept.labels.copy_(labels)  # type: ignore[operator]
        self.kept.confidence.copy_(confidence)  # type: ignore[operator]
        agreement = self._judge.agreement(logits[torch.isin(self._chosen, self._judge.positions)])
        return None, {"agreement": agreement, "renewed": renewed}


def probe(features: Tensor, labels: Tensor, clusters: int) -> Head:
    """A linear head by which features as they are tell `labels`: softmax regression on standardised features.

    Fine-tuning that starts from a head that knows nothing bends the features first (Kumar et al., 2022), and with few
    images it has no time to recover.

    Args:
        features: float32 [n, d].
        labels: int64 [n], each below `clusters`.
    """
    mean, scale = moments(features)
    points = (features - mean) / scale
    weight, bias = torch.zeros(points.shape[1], clusters), torch.zeros(clusters)
    found = [weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(found, max_iter=PROBE_STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(points @ weight + bias, labels) + PROBE_DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return Head(weight.detach(), bias.detach()).of_raw(mean, scale)


def calibrated(head: Head, logits: Tensor, earlier: Tensor) -> Head:
    """The head with its logits multiplied by one number, so that confidence tells how often earlier clusters agree.

    As it was trained, a network is sure of nearly all images, since it was asked to be.

    Args:
        logits: what it says of some images [n, K].
        earlier: the clusters that these images had before, by the same numbers, int64 [n]; after scan its own.
    """
    agreed = logits.argmax(dim=1).eq(earlier).double()
    # A vote more each way: agreement of all images is not certainty.
    doubted = (len(agreed) * agreed + 1) / (len(agreed) + 2)
    factor = fit_concentration(logits.numpy(), doubted.numpy())
    return Head(head.weight * factor, head.bias * factor)


def surest(labels: Tensor, confidence: Tensor, clusters: int) -> Tensor:
    """Positions of all images [n], such that the first part of them has the same part of each cluster, its surest.

    The surest image of every cluster comes before the second of any.
    """
    by_label_then_surest = confidence.argsort(descending=True, stable=True)
    by_label_then_surest = by_label_then_surest[labels[by_label_then_surest].argsort(stable=True)]
    counts = torch.bincount(labels, minlength=clusters)
    starts = counts.cumsum(0) - counts
    ordered = labels[by_label_then_surest]
    place = torch.arange(len(labels)) - starts[ordered]
    return by_label_then_surest[(place / counts[ordered]).argsort(stable=True)]
