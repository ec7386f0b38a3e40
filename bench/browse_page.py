"""Is the page quick on 100,000 images, or a million? First clusters seen, frames a second while scrolling, its size.

    python bench/browse_page.py [--images 100000] [--clusters 40] [--runs 5]

Headless Chromium paints in software, on the same cores as the server that makes the thumbnails. Frames are counted by
`requestAnimationFrame`, which Chromium calls at most 60 times a second.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from browse import CLUSTERS, Served, large_run
from machine import describe, machine_line, write_result

PAGE = Path(__file__).parents[1] / "src" / "shoal" / "browse" / "page"
GOALS = {"first_clusters_s": 1.5, "frames_per_second": 50, "page_kb": 300}
PACES = {"reading": 15, "wheel": 60, "flinging": 400}  # pixels a frame
FRAMES = 240
SCROLL = """async ([pace, frames]) => {
    const box = document.querySelector('.page'), gaps = [];
    box.scrollTop = 0;
    await new Promise(resolve => setTimeout(resolve, 500));
    await new Promise(resolve => {
        let last = performance.now();
        const step = now => {
            gaps.push(now - last);
            last = now;
            box.scrollTop += pace;
            gaps.length > frames ? resolve() : requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
    });
    return gaps.slice(1);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description="The page on many images.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=CLUSTERS)
    parser.add_argument("--runs", type=int, default=5, help="times that the page is opened")
    options = parser.parse_args()
    run = large_run(options.images, options.clusters)
    shutil.rmtree(run / "cache", ignore_errors=True)
    (run / "edits.jsonl").unlink(missing_ok=True)
    found: dict[str, Any] = {
        "images": options.images,
        "clusters": options.clusters,
        "goals": GOALS,
        "load": os.getloadavg()[0],
    }
    found["page_kb"] = round(sum(len(gzip.compress(file.read_bytes())) for file in PAGE.rglob("*.*")) / 1000, 1)
    with Served(run) as served, sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = [first_clusters(browser, served.address) for _ in range(options.runs)]
        found["first_clusters_s"] = {"first": opened[0], "median": statistics.median(opened), "all": opened}
        found["scrolling"] = scrolling(browser, served.address)
        browser.close()
    write_result("browse_page", found)
    print(json.dumps(found, indent=2))
    print(machine_line(describe()))


def first_clusters(browser: Browser, address: str) -> float:
    """Seconds from opening the address to the first card with its picture painted."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    began = time.perf_counter()
    page.goto(address)
    page.locator("article img").first.evaluate("image => image.decode()")
    seconds = time.perf_counter() - began
    page.context.close()
    return round(seconds, 3)


def scrolling(browser: Browser, address: str) -> dict[str, dict[str, float]]:
    """The largest cluster scrolled at several paces: frames a second, the slowest gaps, and what a frame costs."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(address)
    page.locator("article a").first.click()
    page.locator("[role=option] img").first.wait_for()
    session = page.context.new_cdp_session(page)
    session.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    session.send("Performance.enable")
    return {name: _scrolled(page, session, pace) for name, pace in PACES.items()}


def _scrolled(page: Page, session: CDPSession, pace: int) -> dict[str, float]:
    before = _busy(session)
    gaps = sorted(page.evaluate(SCROLL, [pace, FRAMES]))
    return {
        "pixels_a_frame": pace,
        "frames_per_second": round(1000 * len(gaps) / sum(gaps), 1),
        "gap_p95_ms": round(gaps[int(0.95 * len(gaps))], 1),
        "main_thread_ms_a_frame": round(1000 * (_busy(session) - before) / FRAMES, 2),
    }


def _busy(session: CDPSession) -> float:
    """Seconds of processor time that the page's main thread has used."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


if __name__ == "__main__":
    main()
