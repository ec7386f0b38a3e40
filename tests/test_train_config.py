"""Recipes: all of them load, hold the reference settings, and refuse what they do not know."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from shoal.errors import ConfigError
from shoal.train import pretext, recipe, schedule
from shoal.train.config import PretextConfig, ScheduleConfig, TrainConfig
from shoal.typed import Between

RECIPES = [
    "cpu-small",
    "keras-example",
    "moco-imagenet",
    "scan-cifar10",
    "scan-cifar20",
    "scan-imagenet",
    "scan-imagenet100",
    "scan-imagenet200",
    "scan-imagenet50",
    "scan-stl10",
    "tune-embedded",
]


def test_these_recipes_come_with_shoal() -> None:
    assert recipe.names() == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_and_survives_being_written_out(name: str, tmp_path: Path) -> None:
    config = recipe.load(name)
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(_plain(config.to_json())), encoding="utf-8")
    assert recipe.load(str(file)) == config


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("name", "clusters", "scan_epochs", "batch", "selflabel_epochs", "cutout", "encoder"),
    [
        ("scan-cifar10", 10, 50, 128, 200, 16, "resnet18-cifar"),
        ("scan-cifar20", 20, 100, 512, 200, 16, "resnet18-cifar"),
        ("scan-stl10", 10, 100, 128, 100, 32, "resnet18-stl"),
    ],
)
def test_scan_s_small_recipes_are_the_paper_s(
    name: str, clusters: int, scan_epochs: int, batch: int, selflabel_epochs: int, cutout: int, encoder: str
) -> None:
    config = recipe.load(name)
    assert (config.encoder.name, config.scan.clusters, config.scan.epochs) == (encoder, clusters, scan_epochs)
    assert (config.scan.loop.batch, config.scan.heads, config.scan.entropy_weight) == (batch, 1, 5)
    assert config.scan.tune_encoder
    assert (config.neighbours.k, config.neighbours.features) == (20, "projection")
    first = config.pretext
    assert (first.epochs, first.temperature, first.head.dim, first.loop.batch) == (500, 0.1, 128, 512)
    assert dataclasses.astuple(first.optimiser)[:4] == ("sgd", 0.4, 1e-4, 0.9)
    assert schedule.rate_at(500 * 97, 97, 500, first.schedule) == pytest.approx(0.1**3)
    assert first.views.area == (0.2, 1.0)
    assert (first.views.jitter, first.views.jitter_chance, first.views.grey_chance) == ((0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
    assert dataclasses.astuple(config.scan.optimiser)[:3] == ("adam", 1e-4, 1e-4)
    last = config.selflabel
    assert (last.epochs, last.threshold, last.loop.batch, last.weigh_classes) == (selflabel_epochs, 0.99, 1000, True)
    for views in (config.scan.views, last.strong):
        assert (views.kind, views.operations, views.cutout) == ("strong", 4, cutout)
    assert last.weak.kind == "centre"


@pytest.mark.parametrize(("name", "clusters", "batch"), [("scan-imagenet50", 50, 512), ("scan-imagenet200", 200, 1024)])
def test_scan_s_imagenet_recipes_are_the_paper_s(name: str, clusters: int, batch: int) -> None:
    config = recipe.load(name)
    assert (config.scan.clusters, config.scan.heads, config.scan.epochs) == (clusters, 10, 100)
    assert not config.scan.tune_encoder
    assert (config.neighbours.k, config.neighbours.features, config.scan.loop.batch) == (50, "encoder", batch)
    assert dataclasses.astuple(config.scan.optimiser)[:4] == ("sgd", 5.0, 0.0, 0.9)
    last = config.selflabel
    assert (last.epochs, last.loop.batch, last.ema, last.weigh_classes) == (25, 512, 0.999, False)
    assert dataclasses.astuple(last.optimiser)[:4] == ("sgd", 0.03, 0.0, 0.9)


def test_the_keras_recipe_is_the_example_s() -> None:
    config = recipe.load("keras-example")
    assert (config.encoder.name, config.neighbours.k, config.scan.clusters) == ("resnet50v2", 5, 20)
    assert dataclasses.astuple(config.pretext.optimiser)[:3] == ("adamw", 1e-3, 1e-4)
    assert dataclasses.astuple(config.scan.optimiser)[:3] == ("adamw", 5e-4, 1e-4)
    assert (config.scan.neighbours_each, config.scan.entropy_weight, config.scan.tune_encoder) == (5, 5, False)
    views = config.pretext.views
    assert (views.kind, views.shift, views.turn, views.zoom) == ("keras", 0.2, 0.15, (-0.3, 0.1))
    assert (config.pretext.loss, config.scan.loss) == ("standard", "standard")
    assert [schedule.rate_at(step, 117, 50, config.pretext.schedule) for step in (0, 250, 500, 5000)] == pytest.approx(
        [1, 0.55, 0.1, 0.1]
    )


def test_changes_reach_the_key_they_name() -> None:
    config = recipe.load("cpu-small", ["pretext.epochs=3", "scan.views.area=[0.5, 1]", "pretext.optimiser.rate=1e-2"])
    assert config.pretext.epochs == 3
    assert config.scan.views.area == (0.5, 1.0)
    assert config.pretext.optimiser.rate == 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("pretext.epoch=3", "pretext has unknown key 'epoch'; expected only task, loss, epochs"),
        ("pretext.epochs=many", "pretext.epochs has value 'many'; expected a whole number"),
        ("pretext.epochs=-1", "pretext.epochs has value -1; expected a whole number from 0 up"),
        ("scan.tune_encoder=1", "scan.tune_encoder has value 1; expected true or false"),
        ("pretext.task=jigsaw", "pretext.task has value 'jigsaw'; expected one of simclr, moco, rotnet"),
        ("data.mean=[1, 2]", "data.mean has value [1, 2]; expected a list of 3"),
        ("pretext", "--set has value 'pretext'; expected key.sub=value"),
        ("encoder.name.x=1", "but name holds no keys"),
        ("data.mean=[0.5, 0.5, 0.5]", "data.mean and data.std go together"),
    ],
)
def test_what_a_recipe_cannot_have_is_refused_by_name(change: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe.load("cpu-small", [change])
    assert words in str(caught.value)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"expected one of cpu-small, keras-example"):
        recipe.load("scan-cifar")


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    assert recipe.load(str(tmp_path / "empty.yaml")) == TrainConfig()


def test_rates_warm_up_evenly_then_fall_to_the_floor() -> None:
    config = ScheduleConfig(kind="cosine", warmup_epochs=2, floor=0.1)
    rates = [schedule.rate_at(step, 10, 12, config) for step in range(121)]
    assert rates[:3] == pytest.approx([1 / 20, 2 / 20, 3 / 20])
    assert rates[19] == rates[20] == 1
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    steps = ScheduleConfig(kind="steps", milestones=(2, 3))
    assert [schedule.rate_at(step, 5, 4, steps) for step in (9, 10, 15)] == pytest.approx([1, 0.1, 0.01])


def test_views_grow_to_their_full_size() -> None:
    config = PretextConfig(epochs=10, start_side=0.75, grow_until=0.5)
    sizes = [pretext.size_at(epoch, config, 32) for epoch in range(10)]
    assert sizes[0] == 24
    assert sizes == sorted(sizes)
    assert set(sizes[5:]) == {32}
    smaller = PretextConfig(epochs=10, start_side=0.5, end_side=0.875, grow_until=0.9)
    assert [pretext.size_at(epoch, smaller, 32) for epoch in (0, 4, 8, 9)] == [16, 20, 24, 28]
    assert pretext.size_at(9, smaller, 64) == 56
    assert {pretext.size_at(epoch, PretextConfig(epochs=10), 15) for epoch in range(10)} == {15}
    with pytest.raises(ConfigError, match="start_side"):
        PretextConfig(start_side=0.9, end_side=0.5)


def test_what_cannot_work_together_is_refused() -> None:
    for change, words in (
        ("selflabel.quota=0 selflabel.epochs=2", "scan.epochs is 0"),
        ("scan.images=train/", "scan.epochs is 0"),
        ("scan.optimiser.name=muon", "only pretext has"),
        ("selflabel.optimiser.name=muon", "only pretext has"),
    ):
        with pytest.raises(ConfigError, match=words):
            recipe.load("cpu-small", change.split())


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a recipe: where it is, in a list where in it, and what it may be."""

    path: str
    place: int | None
    default: Any
    limit: Between

    def change(self, text: str) -> str:
        """What --set is given to put `text` there."""
        if self.place is None:
            return f"{self.path}={text}"
        values = list(map(str, self.default or (0.5, 0.5, 0.5)))
        values[self.place] = text
        return f"{self.path}=[{', '.join(values)}]"


def numbers(kind: Any = TrainConfig, path: str = "") -> Iterator[Number]:
    """Every number that a recipe may hold."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, f"{path}{name}.")
            continue
        default = getattr(kind(), name)
        inner = next(
            (one for one in get_args(hint) if get_origin(one) is not None and type(None) in get_args(hint)), hint
        )
        parts = get_args(inner) if get_origin(inner) is tuple else (inner,)
        for place, part in enumerate(parts):
            limits = [one for one in get_args(part) if isinstance(one, Between)]
            if limits or part in (int, float):
                yield Number(f"{path}{name}", None if inner is part else place, default, *limits)


NUMBERS = list(numbers())


def test_every_number_of_a_recipe_has_its_range() -> None:
    plain = [f"{number.path}" for number in NUMBERS if number.limit == Between()]
    assert plain == []
    assert len(NUMBERS) > 100


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number.path}-{number.place}")
def test_no_number_of_a_recipe_is_nan_or_infinite_or_out_of_its_range(number: Number) -> None:
    below = number.limit.least - 1 if math.isfinite(number.limit.least) else -(10**400)
    for text in (".nan", ".inf", "-.inf", "nan", "1e999", f"{below:.0f}", "true", "'x'", str(10**400)):
        with pytest.raises(ConfigError) as caught:
            recipe.load("scan-imagenet", [number.change(text)])
        assert number.path in str(caught.value), text
        assert "\n" not in str(caught.value)


@given(st.sampled_from(NUMBERS), st.one_of(st.floats(), st.integers(), st.sampled_from([0, -1, 0.0, -0.0, 1])))
@example(next(number for number in NUMBERS if number.path == "pretext.temperature"), 0)
@example(next(number for number in NUMBERS if number.path == "pretext.loop.batch"), -5)
def test_what_a_recipe_takes_is_in_its_range(number: Number, value: float) -> None:
    try:
        config = recipe.load("cpu-small", [number.change(repr(value))])
    except ConfigError:
        return
    found: Any = config
    for name in number.path.split("."):
        found = getattr(found, name)
    found = found if number.place is None else found[number.place]
    assert math.isfinite(found)
    assert number.limit.takes(found)
    assert found == value


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "references (*name) and tags (!name) are not read"),
        ("!!python/object/apply:os.system [ls]", "references (*name) and tags (!name) are not read"),
        ("pretext: {epochs: 2001-99-99}", "cannot be read: month must be in 1..12"),
        ("- " * 10_000, "nested too deeply"),
        ("# " + "x" * 100_000, "over 32,768 bytes"),
        ("[1, 2]", "holds list; expected keys with values"),
        ("pretext: [1]", "pretext has value [1]; expected keys with values"),
        ("pretext: {epochs: 1, views: {kind: simclr, shfit: 1}}", "pretext.views has unknown key 'shfit'"),
    ],
)
def test_recipes_that_are_none_are_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        recipe.load(str(tmp_path / "r.yaml"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
