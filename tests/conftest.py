"""What all tests share: a cache of prepared encoders of their own, kept for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


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
