"""What a recipe holds: typed, frozen, checked; the one place for defaults. Recipes are YAML parsed by these types."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

from shoal.errors import ConfigError

VIEW_SETS: Final = ("keras", "simclr", "strong", "flip", "centre")
TASKS: Final = ("simclr", "moco", "rotnet")
OPTIMISERS: Final = ("sgd", "adam", "adamw", "muon")
PRECISIONS: Final = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The network that is trained. `weights`: a file to start from (a borrowed backbone, a MoCo checkpoint), or
    `embedded`, the embedded backbone's, for `tf_efficientnet_lite0`. `frozen`: parts of it, by name (`blocks.0`), whose
    weights stay as they are; their BatchNorms still follow the images."""

    name: str = "cpu-small"
    weights: str | None = None
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Images as the views are made from them: squares of `stored` pixels; views have `size`. None: from the data."""

    size: int = 32
    stored: int | None = None
    resize: str = "crop"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        _at_least("data.size", self.size, 8)
        _one_of("data.resize", self.resize, ("crop", "squash"))
        if (self.mean is None) != (self.std is None):
            raise ConfigError("data.mean and data.std go together; expected both or neither")

    @property
    def stored_size(self) -> int:
        return self.stored or self.size


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """A set of views and how strong it is; each set uses its own fields. See `shoal.train.views`."""

    kind: str = "simclr"
    area: tuple[float, float] = (0.2, 1.0)  # simclr: part of the image that a crop shows
    ratio: tuple[float, float] = (0.75, 4 / 3)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue
    jitter_chance: float = 0.8
    grey_chance: float = 0.2
    blur: tuple[float, float] = (0.1, 2.0)  # standard deviation, pixels
    blur_chance: float = 0.0
    shift: float = 0.2  # keras: part of the side
    turn: float = 0.15  # part of a full turn, either way
    zoom: tuple[float, float] = (-0.3, 0.1)
    operations: int = 4  # strong: of 14
    cutout: int = 16  # pixels at most

    def __post_init__(self) -> None:
        _one_of("views.kind", self.kind, VIEW_SETS)
        if not 0 <= self.operations <= 14:
            raise ConfigError(f"views.operations has value {self.operations}; expected a whole number from 0 to 14")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(
                f"views.area has value {list(self.area)}; expected two parts of the image, 0 < a <= b <= 1"
            )


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    name: str = "adamw"
    rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9  # sgd, muon
    nesterov: bool = False

    def __post_init__(self) -> None:
        _one_of("optimiser.name", self.name, OPTIMISERS)
        if self.rate <= 0:
            raise ConfigError(f"optimiser.rate has value {self.rate}; expected a number above 0")


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The learning rate over time: a linear warm-up, then a cosine down to `floor` of the rate, or steps, or constant.

    `steps`: length of the cosine, if it is not the whole training. `milestones`: epochs at which `kind: steps` takes a
    tenth.
    """

    kind: str = "cosine"
    warmup_epochs: float = 0.0
    floor: float = 0.0
    steps: int | None = None
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _one_of("schedule.kind", self.kind, ("cosine", "constant", "steps"))


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The projection head of a pretext task: `mlp` (linear, ReLU, linear), `linear`, or `keras` (the example's)."""

    kind: str = "mlp"
    hidden: int | None = None  # None: as wide as the features
    dim: int = 128
    norm: bool = False  # BatchNorm after the hidden layer
    dropout: float = 0.1  # keras

    def __post_init__(self) -> None:
        _one_of("head.kind", self.kind, ("mlp", "linear", "keras"))


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """What all phases share. `batch` is of all processes and accumulated parts together."""

    batch: int = 512
    accumulate: int = 1
    clip: float | None = None  # largest norm of the gradient
    precision: str = "auto"  # bf16 where the device computes it natively
    checkpoint_minutes: float = 2.0

    def __post_init__(self) -> None:
        _at_least("loop.batch", self.batch, 2)
        _at_least("loop.accumulate", self.accumulate, 1)
        _one_of("loop.precision", self.precision, PRECISIONS)


@dataclass(frozen=True, slots=True)
class PretextConfig:
    """Learning what images show by a task that needs no labels. 0 epochs: none."""

    task: str = "simclr"
    loss: str = "standard"  # simclr: or decoupled; or keras, the Keras example's as printed, faults and all
    epochs: int = 500
    temperature: float = 0.1
    queue: int = 65_536  # moco: keys
    key_momentum: float = 0.999  # moco
    key_groups: int = 8  # moco: parts into which one process shuffles a batch for BatchNorm
    start_side: float = 1.0  # views grow from this part of data.size ...
    end_side: float = 1.0  # ... to this part of it ...
    grow_until: float = 0.7  # ... over this part of the epochs
    head: HeadConfig = field(default_factory=HeadConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _one_of("pretext.task", self.task, TASKS)
        _one_of("pretext.loss", self.loss, ("standard", "decoupled", "keras"))
        _at_least("pretext.epochs", self.epochs, 0)
        if not 0 < self.start_side <= self.end_side <= 1:
            raise ConfigError(
                f"pretext.start_side and end_side have values {self.start_side} and {self.end_side}; expected two "
                "parts of data.size, 0 < start <= end <= 1"
            )
        if self.loss != "standard" and self.task != "simclr":
            raise ConfigError(f"pretext.loss has value {self.loss!r}, which only simclr has, not {self.task}")


@dataclass(frozen=True, slots=True)
class NeighboursConfig:
    """Which features say who is near: the encoder's, or the projection's (as SCAN does after SimCLR)."""

    k: int = 20
    features: str = "encoder"

    def __post_init__(self) -> None:
        _at_least("neighbours.k", self.k, 1)
        _one_of("neighbours.features", self.features, ("encoder", "projection"))


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """Learning clusters that agree with neighbours. `clusters` None: as --clusters says, or found from the features."""

    epochs: int = 50
    clusters: int | None = None
    images: str | None = None  # learn clusters only from images whose path begins so; the others are for pretext
    heads: int = 1
    neighbours_each: int = 1  # of an anchor in a step
    entropy_weight: float = 5.0
    tune_encoder: bool = True
    cached_views: int = 4  # frozen encoder: views of each image whose features are kept
    standardise: bool = False  # frozen encoder: heads see each feature with mean 0 and deviation 1
    loss: str = "standard"  # keras: the Keras example's as printed, faults and all
    held_out: float = 0.1  # part of the images by whose neighbours head and epoch are chosen
    views: ViewConfig = field(default_factory=lambda: ViewConfig(kind="strong"))
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(name="adam", rate=1e-4))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="constant"))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=128))

    def __post_init__(self) -> None:
        _one_of("scan.loss", self.loss, ("standard", "keras"))
        _at_least("scan.epochs", self.epochs, 0)
        _at_least("scan.heads", self.heads, 1)
        _at_least("scan.neighbours_each", self.neighbours_each, 1)
        _at_least("scan.cached_views", self.cached_views, 1)
        if self.clusters is not None:
            _at_least("scan.clusters", self.clusters, 2)
        _no_muon("scan", self.optimiser)
        if not 0 < self.held_out < 1:
            raise ConfigError(f"scan.held_out has value {self.held_out}; expected a part between 0 and 1")


@dataclass(frozen=True, slots=True)
class SelfLabelConfig:
    """Learning on from confident clusters: those of scan, or, if that has no epochs, those that the ordinary stages
    make. `quota` above 0 takes that part of each cluster instead of a threshold."""

    epochs: int = 200
    threshold: float = 0.99
    quota: float = 0.0
    weigh_classes: bool = True
    ema: float | None = None  # decay of the averaged weights that are kept in the end
    weak: ViewConfig = field(default_factory=lambda: ViewConfig(kind="centre"))
    strong: ViewConfig = field(default_factory=lambda: ViewConfig(kind="strong"))
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(name="adam", rate=1e-4))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="constant"))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=1000))

    def __post_init__(self) -> None:
        _at_least("selflabel.epochs", self.epochs, 0)
        _no_muon("selflabel", self.optimiser)
        for name, value in (("threshold", self.threshold), ("quota", self.quota)):
            if not 0 <= value <= 1:
                raise ConfigError(f"selflabel.{name} has value {value}; expected a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A recipe."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    pretext: PretextConfig = field(default_factory=PretextConfig)
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    scan: ScanConfig = field(default_factory=ScanConfig)
    selflabel: SelfLabelConfig = field(default_factory=SelfLabelConfig)

    def __post_init__(self) -> None:
        if self.scan.epochs == 0 and self.selflabel.epochs > 0 and self.selflabel.quota == 0:
            raise ConfigError(
                "selflabel.quota has value 0, but scan.epochs is 0, so that clusters teach the encoder and no head has "
                "a threshold to pass; expected a part of each cluster above 0, such as selflabel.quota=0.5"
            )
        if self.scan.epochs == 0 and self.scan.images is not None:
            raise ConfigError(
                f"scan.images has value {self.scan.images!r}, but scan.epochs is 0; expected scan.epochs above 0, or "
                "null"
            )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} has value {value!r}; expected one of {', '.join(choices)}")


def _no_muon(section: str, optimiser: OptimiserConfig) -> None:
    if optimiser.name == "muon":  # it would turn heads, which are to stay apart, against each other
        raise ConfigError(f"{section}.optimiser.name has value 'muon', which only pretext has; expected adamw")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} has value {value}; expected a whole number from {least} up")


PLAIN: Final = ViewConfig(kind="centre")  # the image as it is
