"""What a person can ask of `shoal cluster`: typed, frozen, checked; the one place for defaults."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from shoal.errors import ConfigError
from shoal.typed import Reader, UnfitError

DEFAULT_BACKBONE = "efficientnet_lite0"
FEATURES = ("default", "map", "logits", "probabilities", "best")
DENSITY = "density"
METHODS = ("auto", "kmeans", "learned", DENSITY)
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

    def __post_init__(self) -> None:
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

    def _check_no_backbone(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("backbone", "weights", "features", "resize"):
            value = getattr(self, name)
            if value != defaults[name]:
                raise ConfigError(
                    f"--{name} has value {value!r}, and --embeddings is given, with which no backbone runs; expected "
                    "one of them"
                )

    @property
    def counts(self) -> ClusterCounts:
        return ClusterCounts.parse(self.clusters)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "source": list(self.source)}

    @classmethod
    def from_json(cls, values: Any) -> ClusterConfig:
        """Rebuild from `to_json`. Raises ConfigError on a key or a value that this version does not know."""
        try:
            return Reader(whole="config").read(cls, values)
        except UnfitError as error:
            raise ConfigError(str(error)) from error


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} has value {value!r}; expected one of {', '.join(choices)}")
