"""Take the pictures of the report and the page that the README shows, from a run of the demo's images.

    python bench/readme_pictures.py

Needs Playwright and Debian's Chromium, as the tests of the page do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append
from shoal.rundir import RunDir

TARGET = Path(__file__).parents[1] / "docs" / "images"
SECTIONS = {"evidence": "#why", "knife": "#explorer", "map": "#map"}  # of the report, by picture
VIEWS = {"browse-clusters": "clusters", "browse-unsure": "cluster/9", "browse-map": "map"}  # of the page
NAMES = {0: "coats and jackets", 3: "T-shirts", 4: "bags"}  # that a person may have given
SETTLED = 3000  # milliseconds until pictures have come and the map stands
SHOAL = (sys.executable, "-m", "shoal")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run([*SHOAL, "demo"], cwd=folder, check=True)
        run = Path(folder) / "demo.shoal"
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        report(browser, run)
        name_clusters(run)
        page(browser, run)


def report(browser: Browser, run: Path) -> None:
    """The report's beginning as it opens, and some of its sections."""
    window = browser.new_page(viewport={"width": 1010, "height": 1200})
    window.goto((run / "report" / "index.html").as_uri())
    window.wait_for_timeout(SETTLED)
    for name, section in SECTIONS.items():
        element = window.locator(section)
        element.scroll_into_view_if_needed()
        window.wait_for_timeout(SETTLED)
        element.screenshot(path=TARGET / f"{name}.png")
    window.locator("#clusters").evaluate("it => it.scrollIntoView()")
    window.wait_for_timeout(SETTLED)
    window.screenshot(path=TARGET / "clusters.png")


def name_clusters(run: Path) -> None:
    run_dir = RunDir.open(run)
    for cluster, name in NAMES.items():
        append(run_dir, lambda _, cluster=cluster, name=name: changes.rename(read_corrected(run_dir), cluster, name))


def page(browser: Browser, run: Path) -> None:
    """Views of the page."""
    with subprocess.Popen(
        [*SHOAL, "browse", str(run), "--no-open"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
            window = browser.new_page(viewport={"width": 1280, "height": 800})
            window.goto(address)
            window.wait_for_timeout(SETTLED)
            for name, view in VIEWS.items():
                window.evaluate("view => { location.hash = '#/' + view; }", view)
                window.wait_for_timeout(SETTLED)
                if view.startswith("cluster/"):
                    window.get_by_role("heading", name="Unsure").first.evaluate("it => it.scrollIntoView()")
                    window.wait_for_timeout(SETTLED)
                window.screenshot(path=TARGET / f"{name}.png")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
