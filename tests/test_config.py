"""What can be asked, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config import ClusterConfig, ClusterCounts
from shoal.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10", (10,)),
        ("5-8", (5, 6, 7, 8)),
        ("2-4,20-40:10,200-400:100,2000,3000", (2, 3, 4, 20, 30, 40, 200, 300, 400, 2000, 3000)),
        ("3,3,2-3", (2, 3)),
        (" 2 - 3 ".replace(" - ", "-"), (2, 3)),
    ],
)
def test_counts_are_read(text: str, values: tuple[int, ...]) -> None:
    assert ClusterCounts.parse(text).values == values


def test_auto_has_no_values() -> None:
    counts = ClusterCounts.parse("auto")
    assert counts.is_auto
    assert not counts.is_fixed


@pytest.mark.parametrize(
    "text", ["", "1", "0", "-3", "5-", "8-5", "2-9:0", "ten", "2..9", "2;3", "2-1000000000000", "1-5"]
)
def test_wrong_counts_are_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="--clusters has value"):
        ClusterCounts.parse(text)


@given(st.sets(st.integers(2, 10_000), min_size=1, max_size=30))
def test_any_list_of_counts_comes_back_sorted(values: set[int]) -> None:
    assert ClusterCounts.parse(",".join(map(str, values))).values == tuple(sorted(values))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"features": "pooled"}, "--features has value 'pooled'; expected one of default, map"),
        ({"metric": "l1"}, "--metric"),
        ({"method": "dbscan"}, "--method"),
        ({"device": "tpu"}, "--device"),
        ({"resize": "pad"}, "--resize"),
        ({"seed": -1}, "--seed has value -1"),
        ({"limit": 0}, "--limit has value 0"),
        ({"clusters": "one"}, "--clusters"),
        ({"source": ()}, "SOURCE is empty"),
    ],
)
def test_wrong_options_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ClusterConfig(**{"source": ("photos",), **changes})  # type: ignore[arg-type]


def test_a_config_survives_its_json() -> None:
    config = ClusterConfig(("a", "b"), clusters="5-9", seed=3, limit=10)
    assert ClusterConfig.from_json(config.to_json()) == config


def test_a_key_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        ClusterConfig.from_json({"source": ["a"], "colour": "red"})
