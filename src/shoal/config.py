"""What a person can ask of `shoal cluster`: typed, frozen, checked; the one place for defaults."""

from __future__ import annotations

import dataclasses
import operator
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shoal.errors import ConfigError
from shoal.typed import Reader, UnfitError, shown

DEFAULT_BACKBONE = "efficientnet_lite0"
FEATURES = ("default", "map", "logits", "probabilities", "best")
ONNX_SUFFIX = ".onnx"
CLIP = "clip:"  # how the names of open_clip's models begin
GRAPH, DENSITY = "graph", "density"
METHODS = ("auto", "kmeans", "learned", GRAPH, DENSITY)
METRICS = ("cosine", "euclidean")
DEVICES = ("auto", "cpu", "cuda", "mps")
RESIZES = ("crop", "squash")
MOST_CLUSTERS = 1_000_000
MOST_NUMBERS = 1 << 22  # clusters' numbers are below it, however often people merge and split


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """The numbers of clusters to look at: `auto` (found from the data) or the listed `values`, ascending."""

    values: tuple[int, ...] = ()

    @property
    def is_auto(self) -> bool:
        return not self.values

    @property
    def is_fixed(self) -> bool:
        return len(self.values) == 1

    @classmethod
    def parse(cls, text: str | int) -> ClusterCounts:
        """Read `auto`, `10`, `5-40` or `2-10,20-100:10,2000`.

        Raises:
            ConfigError: anything else, a count below 2, or a range that runs backwards.
        """
        spec = str(text).strip()
        if spec == "auto":
            return cls()
        values: set[int] = set()
        for piece in spec.split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::(\d+))?)?\s*", piece)
            if match is None:
                raise _clusters_error(spec)
            first = int(match[1])
            last = int(match[2] or first)
            step = int(match[3] or 1)
            if first < 2 or last < first or step < 1 or last > MOST_CLUSTERS:
                raise _clusters_error(spec)
            values.update(range(first, last + 1, step))
        return cls(tuple(sorted(values)))


def is_onnx(backbone: str) -> bool:
    """Does `--backbone` name an ONNX file?"""
    return backbone.lower().endswith(ONNX_SUFFIX)


def is_clip(backbone: str) -> bool:
    """Does `--backbone` name a model with an image and a text tower?"""
    return backbone.startswith(CLIP)


def check_onnx_device(device: str, name: str) -> None:
    """Raises ConfigError if the ONNX file `name` cannot run on `device`."""
    if device not in ("auto", "cpu"):
        raise ConfigError(f"--device has value {device!r}; {name} is an ONNX file, which runs on the cpu")


def three_numbers(value: str | Iterable[Any], name: str) -> tuple[float, float, float]:
    """One for each channel, of `0.485,0.456,0.406`, with or without brackets, or of three numbers.

    Their range is looked at where they are used.

    Args:
        name: what an error calls them.

    Raises:
        ConfigError: they are no numbers, or not three.
    """
    try:
        red, green, blue = map(float, value.strip(" []()").split(",") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{name} has value {shown(value)}; expected three numbers such as 0.485,0.456,0.406"
        ) from error
    return red, green, blue


def whole_number(value: Any, name: str, least: int) -> int:
    """A whole number of any type, numpy's too. Raises ConfigError if it is none, or below `least`."""
    found = _plain(value)
    if type(found) is not int or found < least:
        raise ConfigError(f"{name} has value {shown(value)}; expected a whole number from {least} up")
    return found


def _clusters_error(spec: str) -> ConfigError:
    return ConfigError(
        f"--clusters has value {spec!r}; expected 'auto', a number from 2 to {MOST_CLUSTERS:,}, "
        "or ranges like 5-40 or 2-10,20-100:10"
    )


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Everything `shoal cluster` was asked for. Fields mirror the command's options."""

    source: tuple[str, ...] = field(metadata={"help": "folder, files, glob, manifest, table, tar or URI"})
    clusters: str = "auto"
    backbone: str = DEFAULT_BACKBONE
    weights: str | None = None
    features: str = "default"
    method: str = "auto"
    metric: str = "cosine"
    device: str = "auto"
    seed: int = 0
    resize: str = "crop"
    limit: int | None = None
    embeddings: str | None = None  # where they come from, in words; they take the place of a backbone
    input_size: int | None = None  # these four: of an ONNX file, where it does not say so itself
    input_mean: tuple[float, float, float] | None = None
    input_std: tuple[float, float, float] | None = None
    output: str | None = None
    vocabulary: str | None = None  # these two: of a backbone with a text tower
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        self._check_text()
        _check_choice("--features", self.features, FEATURES)
        _check_choice("--method", self.method, METHODS)
        _check_choice("--metric", self.metric, METRICS)
        _check_choice("--device", self.device, DEVICES)
        _check_choice("--resize", self.resize, RESIZES)
        if not self.source:
            raise ConfigError("SOURCE is empty; expected a folder, files, a glob, a manifest, a table, a tar or a URI")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"--seed has value {self.seed}; expected a whole number from 0 to 2^32 - 1")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit has value {self.limit}; expected a whole number from 1 up")
        ClusterCounts.parse(self.clusters)
        if self.embeddings is not None:
            self._check_no_backbone()
        self._check_onnx()
        self._check_clip()

    def _check_text(self) -> None:
        """What stands in the cache and in models too, for people to read, has to be text."""
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not _is_text(value):
                raise ConfigError(
                    f"--{name} has value {value!r}; expected a name in UTF-8: rename it, or what it lies in"
                )

    def _check_no_backbone(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("backbone", "weights", "features", "resize", *self.onnx_options, *_OF_CLIP):
            value = getattr(self, name)
            if value != defaults[name]:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"{option} has value {value!r}, and --embeddings is given, with which no backbone runs; expected "
                    "one of them"
                )

    def _check_onnx(self) -> None:
        """What goes with `--backbone FILE.onnx` alone, and what does not go with it."""
        if not is_onnx(self.backbone):
            for name, value in self.onnx_options.items():
                if value is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise ConfigError(
                        f"{option} goes with --backbone FILE.onnx; {self.backbone} says itself how it is used"
                    )
            return
        if self.weights is not None:
            raise ConfigError(f"--weights has value {self.weights!r}, but the ONNX file {self.backbone} has its own")
        if self.features != "default":
            raise ConfigError(
                f"--features has value {self.features!r}, but an ONNX file has only default; --output NAME takes "
                "features from another of its outputs"
            )
        check_onnx_device(self.device, self.backbone)

    def _check_clip(self) -> None:
        """What goes with a text tower alone."""
        for name in () if is_clip(self.backbone) else _OF_CLIP:
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"--{name} has value {getattr(self, name)!r}, which goes with --backbone {CLIP}NAME/TAG; "
                    f"{self.backbone} has no text tower"
                )

    @property
    def onnx_options(self) -> dict[str, Any]:
        """What is said of an ONNX file, by name; None: nothing."""
        return {name: getattr(self, name) for name in ("input_size", *_THREE_NUMBERS, "output")}

    @property
    def counts(self) -> ClusterCounts:
        return ClusterCounts.parse(self.clusters)

    def to_json(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def of(cls, source: Iterable[str], **options: Any) -> ClusterConfig:
        """Of options as a Python program has them: paths as `Path`, whole numbers of numpy, three numbers in an array.

        Raises:
            ConfigError: as the class does, or a value is of another type than its option.
        """
        values = {name: _plain(value) for name, value in options.items()}
        for name in _THREE_NUMBERS:
            if values.get(name) is not None:
                values[name] = three_numbers(values[name], name)
        if type(values.get("clusters")) is int:
            values["clusters"] = str(values["clusters"])
        return cls.from_json({**values, "source": tuple(source)})

    @classmethod
    def from_json(cls, values: Any) -> ClusterConfig:
        """Rebuild from `to_json`. Raises ConfigError on a key or a value that this version does not know."""
        try:
            return Reader(whole="config").read(cls, values)
        except UnfitError as error:
            raise ConfigError(str(error)) from error


_THREE_NUMBERS = ("input_mean", "input_std")
_OF_CLIP = ("vocabulary", "tokenizer")
_TEXTS = ("clusters", "backbone", "weights", "output", *_OF_CLIP)


def _plain(value: Any) -> Any:
    """A path as text, and a whole number of any type as Python's own; what else there is as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def options_besides_defaults(asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked besides the source, as `to_json` has it, by option; what is as if nobody had asked is left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(ClusterConfig) if field.name != "source"}
    return {name: asked[name] for name, default in defaults.items() if asked.get(name, default) != default}


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} has value {value!r}; expected one of {', '.join(choices)}")
