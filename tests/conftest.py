"""What all tests share: a cache of prepared encoders of their own, kept for the session; no clock for properties."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine with other things to do is slow at some examples and not at others: that is no fault of theirs.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Under xdist every worker's base folder has the same parent: one cache serves them all.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shoal-cache"
    earlier = os.environ.get("SHOAL_CACHE")
    os.environ["SHOAL_CACHE"] = str(Path(folder))
    yield
    if earlier is None:
        del os.environ["SHOAL_CACHE"]
    else:
        os.environ["SHOAL_CACHE"] = earlier
