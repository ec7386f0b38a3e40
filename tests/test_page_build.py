"""The build hook: the page is built again when its sources have changed, and only then."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "web" / "src").mkdir(parents=True)
    (tmp_path / "web" / "src" / "main.ts").write_text("start();")
    (tmp_path / "web" / "package.json").write_text("{}")
    return tmp_path / "web"


def test_the_digest_follows_names_and_contents_of_sources_only(hook: ModuleType, sources: Path) -> None:
    first = hook.digest_of(sources)
    (sources / "node_modules" / "vite").mkdir(parents=True)
    (sources / "node_modules" / "vite" / "index.js").write_text("// installed, not written")
    assert hook.digest_of(sources) == first
    (sources / "src" / "main.ts").write_text("start(); ")
    changed = hook.digest_of(sources)
    (sources / "src" / "main.ts").rename(sources / "src" / "other.ts")
    assert len({first, changed, hook.digest_of(sources)}) == 3


def test_a_page_is_current_only_with_the_digest_of_its_sources(hook: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page"
    assert not hook.is_current(page, "abc")
    page.mkdir()
    (page / "index.html").write_text("<!doctype html>")
    assert not hook.is_current(page, "abc")
    (page / hook.DIGEST).write_text("abc")
    assert hook.is_current(page, "abc")
    assert not hook.is_current(page, "abd")
    (page / "index.html").unlink()
    assert not hook.is_current(page, "abc")


def test_what_npm_ends_with_is_told(hook: ModuleType, sources: Path) -> None:
    with pytest.raises(RuntimeError, match=r"npm run nothing in .* ended with \d"):
        hook.run_npm(sources, "run", "nothing")
