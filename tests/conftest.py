"""What all tests share: a cache of encoders and a key of their own; storage elsewhere; no clock for properties."""

from __future__ import annotations

import os
from collections.abc import Iterator

import fsspec
import pytest
from hypothesis import HealthCheck, settings

# A machine with other things to do is slow at some examples and not at others: that is no fault of theirs.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Under xdist every worker's base folder has the same parent: one cache serves them all.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SHOAL_CACHE", str(shared / "shoal-cache"))
        environment.setenv("SHOAL_STATE", str(base / "shoal-state"))
        yield


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """Storage elsewhere, empty: memory://."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
