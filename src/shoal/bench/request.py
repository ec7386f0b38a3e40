"""What `shoal bench` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shoal.bench.benchmarks import check_name
from shoal.bench.references import REFERENCES
from shoal.config import DEFAULT_BACKBONE, METHODS, ClusterConfig
from shoal.errors import ConfigError

TRUE: Final = "true"  # as many clusters as there are classes
AUTO: Final = "auto"
COUNTS: Final = (TRUE, AUTO)
ALL_METHODS: Final = (*METHODS, *REFERENCES)


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """Fields mirror the options of `shoal bench`; `weights` gives a file by backbone, `data` a folder by data's name.

    Raises:
        ConfigError: a field has a value that it cannot have.
    """

    names: tuple[str, ...]
    out: Path
    data: tuple[str, ...] = ()  # DIR or NAME=DIR
    classes: Path | None = None
    backbones: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()  # BACKBONE=FILE
    features: tuple[str, ...] = ()
    methods: tuple[str, ...] = ALL_METHODS
    clusters: tuple[str, ...] = COUNTS
    seeds: int = 5
    resize: str = "crop"
    limit: int | None = None
    device: str = "auto"
    download: bool = False
    pairs: dict[str, dict[str, str]] = field(init=False)  # of `data` and `weights`

    def __post_init__(self) -> None:
        for name in self.names:
            check_name(name)
        _check("--method", self.methods, ALL_METHODS)
        if self.seeds < 1:
            raise ConfigError(f"--seeds has value {self.seeds}; expected a whole number from 1 up")
        for text in self.weights:
            if "=" not in text:
                raise ConfigError(f"--weights has value {text!r}; expected BACKBONE=FILE")
        for text in self.clusters:
            asked = AUTO if text in COUNTS else text
            ClusterConfig(("any",), asked, resize=self.resize, limit=self.limit, device=self.device)  # raises
        pairs = {"data": _pairs(self.data), "weights": _pairs(self.weights)}
        object.__setattr__(self, "pairs", pairs)  # frozen, and this one is made from the others

    @property
    def general_folder(self) -> Path | None:
        """The DIR of --data that is for all data."""
        return next((Path(text) for text in self.data if "=" not in text), None)

    @property
    def own_folders(self) -> dict[str, Path]:
        return {name: Path(folder) for name, folder in self.pairs["data"].items()}

    @property
    def chosen_backbones(self) -> tuple[str, ...]:
        return self.backbones or (DEFAULT_BACKBONE,)

    @property
    def chosen_features(self) -> tuple[str, ...]:
        return self.features or ("default",)

    def config(self, source: str, backbone: str, features: str, **more: object) -> ClusterConfig:
        """What `shoal cluster` would be asked, to make one result."""
        return ClusterConfig(
            source=(source,),
            backbone=backbone,
            weights=self.pairs["weights"].get(backbone),
            features=features,
            resize=self.resize,
            limit=self.limit,
            device=self.device,
            **more,  # type: ignore[arg-type]
        )


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in texts if "=" in text)


def _check(option: str, values: tuple[str, ...], choices: tuple[str, ...]) -> None:
    for value in values:
        if value not in choices:
            raise ConfigError(f"{option} has value {value!r}; expected one of {', '.join(choices)}")
