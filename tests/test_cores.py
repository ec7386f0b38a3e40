"""Cores are counted as the affinity and the container leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal.cores import container_share, core_count


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_of_nested_groups_counts(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    put(own, "0::/machine/job\n")
    assert container_share(root, own) is None
    put(root / "machine" / "cpu.max", "300000 100000\n")
    put(root / "machine" / "job" / "cpu.max", "max 100000\n")
    assert container_share(root, own) == 3
    put(root / "machine" / "job" / "cpu.max", "150000 100000\n")
    assert container_share(root, own) == 1.5
    put(root / "cpu.max", "50000 100000\n")  # in a container its own group is the root
    assert container_share(root, tmp_path / "nothing") == 0.5


def test_the_older_groups_count_too(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    put(own, "12:cpu,cpuacct:/docker/x\n11:memory:/docker/x\n")
    put(root / "cpu" / "docker" / "x" / "cpu.cfs_quota_us", "200000\n")
    put(root / "cpu" / "docker" / "x" / "cpu.cfs_period_us", "100000\n")
    assert container_share(root, own) == 2
    put(root / "cpu" / "docker" / "x" / "cpu.cfs_quota_us", "-1\n")
    assert container_share(root, own) is None


@pytest.mark.parametrize("text", ["", "max", "a b", "0 100000", "100000 0"])
def test_what_is_no_limit_is_none(text: str, tmp_path: Path) -> None:
    put(tmp_path / "cpu.max", text)
    assert container_share(tmp_path, tmp_path / "nothing") is None


def test_there_is_a_core() -> None:
    assert 1 <= core_count() <= (os.cpu_count() or 1)
