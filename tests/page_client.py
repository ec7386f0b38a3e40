"""A client of the page's server, as the page itself is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from shoal.browse.app import create_app
from shoal.browse.security import Access

HOST = "127.0.0.1:8000"


def open_page(root: Path, page: Path | None = None) -> TestClient:
    access = Access("127.0.0.1", 8000)
    app = create_app(root, access) if page is None else create_app(root, access, page)
    return TestClient(app, base_url=f"http://{HOST}", headers={"x-shoal-token": access.token})


def edit(client: TestClient, op: str, on: dict[str, Any] | None = None, **values: Any) -> httpx.Response:
    """Make an edit on what the page shows, or on an earlier answer."""
    seen = on or client.get("/api/run").json()
    return client.post("/api/edits", json={"op": op, "base": seen["base"], "base_version": seen["version"], **values})


def clusters(client: TestClient, level: str = "chosen") -> dict[int, dict[str, Any]]:
    answer = client.get("/api/clusters", params={"level": level})
    assert answer.status_code == 200, answer.text
    return {card["id"]: card for card in answer.json()["clusters"]}


def members(client: TestClient, cluster: int, **options: Any) -> list[int]:
    answer = client.get(f"/api/clusters/{cluster}/images", params={"limit": 1000, **options})
    assert answer.status_code == 200, answer.text
    return [image["id"] for image in answer.json()["images"]]
