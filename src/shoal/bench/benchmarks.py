"""The benchmarks by name: which data, how many classes, what counts as a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shoal.bench.superclasses import SUPERCLASS_OF
from shoal.errors import ConfigError
from shoal.evaluate.labels import FOLDERS

TRANSFER: Final = "transfer"  # has a table of its own; see shoal.bench.transfer


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One named benchmark.

    Attributes:
        name: what is typed.
        title: what tables say.
        data: name of the data; benchmarks that share it share its embeddings.
        classes: how many clusters are asked for; None for as many as the data has labels.
        labels: where labels are, as `shoal evaluate --labels` takes it; None for those of the source.
        label_of: another name for each label, where classes are looked at in groups.
        note: what a reader of the table should know of the data.
    """

    name: str
    title: str
    data: str
    classes: int | None
    labels: str | None = None
    label_of: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def _imagenet(classes: int) -> Benchmark:
    name = f"imagenet{classes}"
    note = "classes as listed in the file given by --classes"
    return Benchmark(name, f"ImageNet-{classes}", name, classes, note=note)


BENCHMARKS: Final = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("cifar10", "CIFAR-10", "cifar10", 10),
        Benchmark("cifar100", "CIFAR-100", "cifar100", 100),
        Benchmark("cifar100-20", "CIFAR-100-20", "cifar100", 20, label_of=SUPERCLASS_OF, note="20 superclasses"),
        Benchmark("stl10", "STL-10", "stl10", 10),
        *(_imagenet(classes) for classes in (10, 50, 100, 200)),
        Benchmark("fashion-mnist", "Fashion-MNIST", "fashion-mnist", 10),
        Benchmark("tinyimagenet-20", "Tiny-ImageNet, 20 classes", "tinyimagenet-20", 20),
        Benchmark(
            "cifar10-lt",
            "CIFAR-10-LT",
            "cifar10-lt",
            10,
            note="training images thinned out exponentially, 100 : 1 from the largest class to the smallest "
            "(Cui et al. 2019); the test images are balanced",
        ),
        Benchmark("stamps", "Tux Paint stamps", "stamps", None, labels=FOLDERS, note="labels are the images' folders"),
    )
}

NAMES: Final = (*BENCHMARKS, TRANSFER)


def check_name(name: str) -> None:
    """Raises ConfigError if there is no benchmark of this name."""
    if name not in NAMES:
        raise ConfigError(f"NAME has value {name!r}; expected one or more of {', '.join(NAMES)}")
