"""What all tests share: a cache of prepared encoders and a key of their own, kept for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Under xdist every worker's base folder has the same parent: one cache serves them all.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SHOAL_CACHE", str(shared / "shoal-cache"))
        environment.setenv("SHOAL_STATE", str(base / "shoal-state"))
        yield
