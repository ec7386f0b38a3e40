"""The loop of every phase of training, to be read from top to bottom."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shoal.progress import Progress
from shoal.train import checkpoint, dead_taps, draws, schedule
from shoal.train.checkpoint import BEST, LAST, Position
from shoal.train.config import LoopConfig, OptimiserConfig, ScheduleConfig
from shoal.train.gather import gather_constant, rank, world_size
from shoal.train.log import Log
from shoal.train.precision import Precision
from shoal.train.stopwatch import Stopwatch
from shoal.train.watch import Watch

LOOK_EVERY = 20  # steps between looks at the health of the training
AHEAD = 2  # batches loaded before they are needed


class Phase(Protocol):
    """One way to learn: what a batch is and what its loss is. The loop does the rest."""

    name: str
    count: int  # examples in an epoch
    network: nn.Module  # what is trained, called through DistributedDataParallel
    kept: nn.Module  # everything a checkpoint holds, `network` among it

    def begin_epoch(self, epoch: int) -> None: ...

    def examples(self, positions: Tensor, random: torch.Generator) -> Any:
        """Load the examples at `positions` int64 [b]; on another thread, ahead of time."""

    def losses(self, network: nn.Module, examples: Any, random: torch.Generator) -> dict[str, Tensor]:
        """`loss`, and whatever else is worth logging, each a number. `random` is on the device."""

    def after_step(self) -> None: ...

    def look(self, watch: Watch, epoch: int) -> dict[str, float]:
        """Values that tell how healthy the last batch was; raises CollapseError through `watch`."""

    def after_epoch(self, epoch: int, means: dict[str, float]) -> tuple[float | None, dict[str, Any]]:
        """A label-free measure (smaller is better) by which the best epoch is told, and values for the log.

        The measure is None where the last epoch counts, whatever it is like.
        """


@dataclass(frozen=True, slots=True)
class Settings:
    """How a phase is trained. `key` tells what was asked: a checkpoint of another key is not gone on with."""

    epochs: int
    loop: LoopConfig
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    seed: int
    precision: Precision
    key: str


def train(phase: Phase, settings: Settings, folder: Path, progress: Progress) -> Position:
    """Train `phase` to the end, from its last checkpoint if there is one, and return where it ended.

    `folder` is the run's train/; checkpoints lie in a folder of the phase's name, the log beside it. Stopped and
    resumed, a training on a CPU ends with the same bits as one that was never stopped.

    Raises:
        CollapseError: the training collapsed; the message says what to change.
    """
    device, seed, name = settings.precision.device, settings.seed, phase.name
    batch, parts = _batch(phase.count, settings.loop)
    steps = max(1, phase.count // batch)
    optimiser = schedule.optimiser([phase.network], settings.optimiser)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision.needs_scaling)
    checkpoints = _Checkpoints(folder / name, phase, settings, optimiser, scaler)
    position = checkpoints.restore()
    if device.type == "cpu":
        dead_taps.guard(phase.network)
    stepper = _Stepper(phase, settings, _distributed(phase.network, device), optimiser, scaler, parts)
    watch = Watch(name)

    with (
        progress.task(f"Training {name}", settings.epochs * steps * batch) as task,
        closing(Log(folder, name, position.epoch, silent=rank() > 0)) as log,
    ):
        task.advance((position.epoch * steps + position.step) * batch)
        for epoch in range(position.epoch, settings.epochs):
            phase.begin_epoch(epoch)
            phase.network.train()
            stopwatch, first = Stopwatch(position.seconds, position.processor), position.step
            shuffled = torch.randperm(phase.count, generator=draws.generator("cpu", seed, name, "order", epoch))
            mine = shuffled[: steps * batch].view(steps, parts, world_size(), -1)[:, :, rank()]  # [steps, parts, b]
            batches = _ahead(phase, mine, first, seed, epoch)
            unread: list[dict[str, Tensor]] = []
            for step in range(first, steps):
                rate = settings.optimiser.rate * schedule.rate_at(
                    epoch * steps + step, steps, settings.epochs, settings.schedule
                )
                unread += stepper.step(batches, rate, epoch, step)
                phase.after_step()
                task.advance(batch)

                if step % LOOK_EVERY == LOOK_EVERY - 1 or step == steps - 1:
                    _read(unread, position, watch, epoch, step)
                    position.facts["health"] = phase.look(watch, epoch)
                if checkpoints.are_due() and step < steps - 1:
                    _read(unread, position, watch, epoch, step)
                    position.epoch, position.step = epoch, step + 1
                    position.seconds, position.processor = stopwatch.spent()
                    checkpoints.write_last(position)

            means = {key: total / steps for key, total in position.sums.items()}
            measure, values = phase.after_epoch(epoch, means)
            health, speed = position.facts.pop("health", {}), _speed(stopwatch, steps * batch)
            log.write(epoch, **means, **health, **values, rate=rate, **speed)
            position.epoch, position.step, position.sums = epoch + 1, 0, {}
            position.seconds = position.processor = 0.0
            if measure is None:
                position.best = position.best_epoch = None  # an earlier Shoal called the last epoch the best
            elif position.best is None or measure < position.best:
                position.best, position.best_epoch = measure, epoch
                checkpoints.write_best(position)
            checkpoints.write_last(position)
    gather_constant(torch.zeros(1, device=device))  # nobody reads a checkpoint before it is written
    return position


def take_best(phase: Phase, settings: Settings, folder: Path, position: Position) -> None:
    """Put the best epoch's weights in place of the last's, if the phase chooses one. `folder` is that of `train`."""
    if position.best_epoch is not None:
        checkpoint.restore(folder / phase.name, BEST, settings.key, phase.kept, None)


@dataclass(frozen=True, slots=True)
class _Stepper:
    """Moves the weights of a phase.

    Attributes:
        network: the phase's own, which may be within DistributedDataParallel.
        parts: of a batch, whose gradients are added up for a step.
    """

    phase: Phase
    settings: Settings
    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    parts: int

    def step(self, batches: Iterator[Any], rate: float, epoch: int, step: int) -> list[dict[str, Tensor]]:
        """A step by the next batches. Returns the losses of each part, divided so that they add up to the step's."""
        found = self._gradients(batches, epoch, step)
        if self.settings.loop.clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.phase.network.parameters(), self.settings.loop.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return found

    def _gradients(self, batches: Iterator[Any], epoch: int, step: int) -> list[dict[str, Tensor]]:
        device, seed, name = self.settings.precision.device, self.settings.seed, self.phase.name
        found = []
        with draws.seeded(device, seed, name, "layers", epoch, step, rank()):
            for part in range(self.parts):
                random = draws.generator(device, seed, name, "views", epoch, step, part, rank())
                with _synchronised(self.network, part == self.parts - 1):
                    losses = self.phase.losses(self.network, next(batches), random)
                    self.scaler.scale(losses["loss"] / self.parts).backward()  # type: ignore[no-untyped-call]
                found.append({key: value.detach() / self.parts for key, value in losses.items()})
        return found


class _Checkpoints:
    """A phase's, in a folder of its own; the first process writes them."""

    def __init__(
        self,
        folder: Path,
        phase: Phase,
        settings: Settings,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self._folder, self._kept, self._key = folder, phase.kept, settings.key
        self._optimiser, self._scaler = optimiser, scaler
        self._every, self._written = 60 * settings.loop.checkpoint_minutes, time.monotonic()

    def restore(self) -> Position:
        """Go on with the last one; where there is none, from the beginning."""
        position = checkpoint.restore(self._folder, LAST, self._key, self._kept, self._optimiser) or Position()
        self._scaler.load_state_dict(position.facts.get("scaler", {}) or self._scaler.state_dict())
        return position

    def are_due(self) -> bool:
        return time.monotonic() - self._written > self._every

    def write_best(self, position: Position) -> None:
        self._write(BEST, position, None)

    def write_last(self, position: Position) -> None:
        self._write(LAST, position, self._optimiser)
        self._written = time.monotonic()

    def _write(self, name: str, position: Position, optimiser: torch.optim.Optimizer | None) -> None:
        position.facts["scaler"] = self._scaler.state_dict()
        if rank() == 0:
            checkpoint.save(self._folder, name, self._key, position, self._kept, optimiser)


def _batch(count: int, config: LoopConfig) -> tuple[int, int]:
    """Images of an optimiser step, and parts each process takes them in; fewer where there are not enough images."""
    together = world_size() * config.accumulate
    batch = min(config.batch, count) // together * together
    if batch < 2 * together:
        return max(2 * world_size(), min(config.batch, count) // world_size() * world_size()), 1
    return batch, config.accumulate


def _ahead(phase: Phase, positions: Tensor, first: int, seed: int, epoch: int) -> Iterator[Any]:
    """The examples of every part of every step from `first` on, a few of them loaded before they are needed."""

    def load(step: int, part: int) -> Any:
        random = draws.generator("cpu", seed, phase.name, "examples", epoch, step, part, rank())
        return phase.examples(positions[step, part], random)

    places = [(step, part) for step in range(first, len(positions)) for part in range(positions.shape[1])]
    with ThreadPoolExecutor(1, thread_name_prefix="examples") as pool:
        waiting = [pool.submit(load, *place) for place in places[:AHEAD]]
        try:
            for place in [*places[AHEAD:], *[None] * len(waiting)]:
                examples = waiting.pop(0).result()
                if place is not None:
                    waiting.append(pool.submit(load, *place))
                yield examples
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(unread: list[dict[str, Tensor]], position: Position, watch: Watch, epoch: int, step: int) -> None:
    """Add the losses since the last look to the epoch's sums: reading them makes a GPU wait, so not each step."""
    for losses in unread:
        for key, value in losses.items():
            number = float(value)
            if key == "loss":
                watch.finite(number, epoch, step)
            position.sums[key] = position.sums.get(key, 0.0) + number
    unread.clear()


def _speed(stopwatch: Stopwatch, images: int) -> dict[str, float]:
    seconds, processor = stopwatch.spent()
    return {
        "seconds": round(seconds, 3),
        "processor_seconds": round(processor, 3),
        "images_per_second": round(images / seconds, 1),
    }


def _distributed(network: nn.Module, device: torch.device) -> nn.Module:
    if world_size() == 1 or not any(weight.requires_grad for weight in network.parameters()):
        return network
    # It says so of a single head's dimension of size 1, whose stride means nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def _synchronised(network: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Gradients are averaged over the processes only with the last part of a step."""
    if now or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    waiting: Callable[[], AbstractContextManager[None]] = network.no_sync
    return waiting()
