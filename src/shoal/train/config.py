"""What a recipe holds: typed, frozen, checked; the one place for defaults. Recipes are YAML parsed by these types."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from shoal.config import MOST_CLUSTERS, RESIZES, is_onnx
from shoal.encoder.spec import LARGEST_SIDE, Channels, Deviations
from shoal.errors import ConfigError
from shoal.typed import Between, Most, OneOf

VIEW_SETS: Final = ("keras", "simclr", "strong", "flip", "centre")
TASKS: Final = ("simclr", "moco", "rotnet")
OPTIMISERS: Final = ("sgd", "adam", "adamw", "muon")
PRECISIONS: Final = ("auto", "bf16", "fp16", "fp32")
SCHEDULES: Final = ("cosine", "constant", "steps")
HEADS: Final = ("mlp", "linear", "keras")

# What a value may be is written beside it, once; `shoal.typed` refuses the rest, NaN and infinities among it.
Epochs = Annotated[int, Between(0)]
Share = Annotated[float, Between(0, 1)]
Decay = Annotated[float, Between(0, 1, below=True)]
Strength = Annotated[float, Between(0, 10)]
Positive = Annotated[float, Between(0.01, 100)]
Zoom = Annotated[float, Between(-0.9, 10)]
Width = Annotated[int, Between(1, 1 << 16)]
Count = Annotated[int, Between(1, 1000)]
Text = Annotated[str, Most(4096)]


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The network that is trained. `weights`: a file to start from (a borrowed backbone, a MoCo checkpoint), or
    `embedded`, the embedded backbone's, for `tf_efficientnet_lite0`. `frozen`: parts of it, by name (`blocks.0`), whose
    weights stay as they are; their BatchNorms still follow the images."""

    name: Text = "cpu-small"
    weights: Text | None = None
    frozen: Annotated[tuple[Text, ...], Most(1000)] = ()

    def __post_init__(self) -> None:
        for key, value in (("name", self.name), ("weights", self.weights or "")):
            if is_onnx(value):
                raise ConfigError(
                    f"encoder.{key} has value {value!r}, but an ONNX file cannot be trained; expected the name of an "
                    "encoder, with a .safetensors, .pth, .pt or .bin file if it starts from one"
                )


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Images as the views are made from them: squares of `stored` pixels; views have `size`. None: from the data."""

    size: Annotated[int, Between(8, LARGEST_SIDE)] = 32
    stored: Annotated[int, Between(8, 4 * LARGEST_SIDE)] | None = None
    resize: Annotated[str, OneOf(RESIZES)] = "crop"
    mean: Channels | None = None
    std: Deviations | None = None

    def __post_init__(self) -> None:
        if self.stored is not None and self.stored < self.size:
            raise ConfigError(f"data.stored has value {self.stored}; expected at least data.size, {self.size}")
        if (self.mean is None) != (self.std is None):
            raise ConfigError("data.mean and data.std go together; expected both or neither")

    @property
    def stored_size(self) -> int:
        return self.stored or self.size


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """A set of views and how strong it is; each set uses its own fields. See `shoal.train.views`."""

    kind: Annotated[str, OneOf(VIEW_SETS)] = "simclr"
    area: tuple[Share, Share] = (0.2, 1.0)  # simclr: part of the image that a crop shows
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    # brightness, contrast, saturation, hue
    jitter: tuple[Strength, Strength, Strength, Annotated[float, Between(0, 0.5)]] = (0.4, 0.4, 0.4, 0.1)
    jitter_chance: Share = 0.8
    grey_chance: Share = 0.2
    blur: tuple[Positive, Positive] = (0.1, 2.0)  # standard deviation, pixels
    blur_chance: Share = 0.0
    shift: Share = 0.2  # keras: part of the side
    turn: Share = 0.15  # part of a full turn, either way
    zoom: tuple[Zoom, Zoom] = (-0.3, 0.1)
    operations: Annotated[int, Between(0, 14)] = 4  # strong: of 14
    cutout: Annotated[int, Between(0, LARGEST_SIDE)] = 16  # pixels at most

    def __post_init__(self) -> None:
        for name in ("ratio", "blur", "zoom"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"views.{name} has value {[low, high]}; expected two numbers, the smaller one first")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(
                f"views.area has value {list(self.area)}; expected two parts of the image, 0 < a <= b <= 1"
            )


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    name: Annotated[str, OneOf(OPTIMISERS)] = "adamw"
    rate: Annotated[float, Between(0, above=True)] = 1e-3
    weight_decay: Annotated[float, Between(0)] = 1e-4
    momentum: Decay = 0.9  # sgd, muon
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ConfigError("optimiser.momentum has value 0, but optimiser.nesterov is true; expected one above 0")


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The learning rate over time: a linear warm-up, then a cosine down to `floor` of the rate, or steps, or constant.

    `steps`: length of the cosine, if it is not the whole training. `milestones`: epochs at which `kind: steps` takes a
    tenth.
    """

    kind: Annotated[str, OneOf(SCHEDULES)] = "cosine"
    warmup_epochs: Annotated[float, Between(0, 1_000_000)] = 0.0
    floor: Share = 0.0
    steps: Annotated[int, Between(1, 1_000_000_000)] | None = None
    milestones: Annotated[tuple[Epochs, ...], Most(1000)] = ()


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The projection head of a pretext task: `mlp` (linear, ReLU, linear), `linear`, or `keras` (the example's)."""

    kind: Annotated[str, OneOf(HEADS)] = "mlp"
    hidden: Width | None = None  # None: as wide as the features
    dim: Width = 128
    norm: bool = False  # BatchNorm after the hidden layer
    dropout: Decay = 0.1  # keras


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """What all phases share. `batch` is of all processes and accumulated parts together."""

    batch: Annotated[int, Between(2, 1 << 20)] = 512
    accumulate: Annotated[int, Between(1, 1 << 16)] = 1
    clip: Annotated[float, Between(0, above=True)] | None = None  # largest norm of the gradient
    precision: Annotated[str, OneOf(PRECISIONS)] = "auto"  # bf16 where the device computes it natively
    checkpoint_minutes: Annotated[float, Between(0, 1_000_000)] = 2.0


@dataclass(frozen=True, slots=True)
class PretextConfig:
    """Learning what images show by a task that needs no labels. 0 epochs: none."""

    task: Annotated[str, OneOf(TASKS)] = "simclr"
    # simclr: standard, or decoupled, or keras, the Keras example's as printed, faults and all
    loss: Annotated[str, OneOf(("standard", "decoupled", "keras"))] = "standard"
    epochs: Epochs = 500
    temperature: Annotated[float, Between(0.001, 1000)] = 0.1
    queue: Annotated[int, Between(1, 1 << 24)] = 65_536  # moco: keys
    key_momentum: Share = 0.999  # moco
    key_groups: Count = 8  # moco: parts into which one process shuffles a batch for BatchNorm
    start_side: Share = 1.0  # views grow from this part of data.size ...
    end_side: Share = 1.0  # ... to this part of it ...
    grow_until: Share = 0.7  # ... over this part of the epochs
    head: HeadConfig = field(default_factory=HeadConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
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

    k: Annotated[int, Between(1, 10_000)] = 20
    features: Annotated[str, OneOf(("encoder", "projection"))] = "encoder"


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """Learning clusters that agree with neighbours. `clusters` None: as --clusters says, or found from the features."""

    epochs: Epochs = 50
    clusters: Annotated[int, Between(2, MOST_CLUSTERS)] | None = None
    images: Text | None = None  # learn clusters only from images whose path begins so; the others are for pretext
    heads: Count = 1
    neighbours_each: Count = 1  # of an anchor in a step
    entropy_weight: Annotated[float, Between(0, 1000)] = 5.0
    tune_encoder: bool = True
    cached_views: Count = 4  # frozen encoder: views of each image whose features are kept
    standardise: bool = False  # frozen encoder: heads see each feature with mean 0 and deviation 1
    loss: Annotated[str, OneOf(("standard", "keras"))] = "standard"  # keras: the example's as printed, faults and all
    # part of the images by whose neighbours head and epoch are chosen
    held_out: Annotated[float, Between(0, 1, above=True, below=True)] = 0.1
    views: ViewConfig = field(default_factory=lambda: ViewConfig(kind="strong"))
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(name="adam", rate=1e-4))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="constant"))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=128))

    def __post_init__(self) -> None:
        _no_muon("scan", self.optimiser)


@dataclass(frozen=True, slots=True)
class SelfLabelConfig:
    """Learning on from confident clusters: those of scan, or, if that has no epochs, those that the ordinary stages
    make. `quota` above 0 takes that part of each cluster instead of a threshold."""

    epochs: Epochs = 200
    threshold: Share = 0.99
    quota: Share = 0.0
    weigh_classes: bool = True
    ema: Decay | None = None  # decay of the averaged weights that are kept in the end
    weak: ViewConfig = field(default_factory=lambda: ViewConfig(kind="centre"))
    strong: ViewConfig = field(default_factory=lambda: ViewConfig(kind="strong"))
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(name="adam", rate=1e-4))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="constant"))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=1000))

    def __post_init__(self) -> None:
        _no_muon("selflabel", self.optimiser)


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


def _no_muon(section: str, optimiser: OptimiserConfig) -> None:
    if optimiser.name == "muon":  # it would turn heads, which are to stay apart, against each other
        raise ConfigError(f"{section}.optimiser.name has value 'muon', which only pretext has; expected adamw")


PLAIN: Final = ViewConfig(kind="centre")  # the image as it is
