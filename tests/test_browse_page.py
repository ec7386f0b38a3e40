"""The page of `shoal browse`, in Debian's Chromium on a real run: views, edits, the keyboard, two windows, axe-core."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from drafted import run_stage
from named_run import EACH, KINDS, config, named_run
from patience import PATIENCE, PATIENCE_MS
from pictures import paint
from shoal import records
from shoal.report.map import run as map_images
from shoal.rundir import RunDir

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "src" / "shoal" / "browse" / "page"
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("clusters", "cluster/0", "map", "image/5", "search", "evidence")
SOME = 30  # images that a large map shows at once
WIDE, PHONE = (1280, 800), (390, 780)
Open = Callable[..., Page]
# A notice goes after some seconds, which a busy machine may need to look at it: here that time is never over.
NOTICES_STAY = """const real = window.setTimeout;
    window.setTimeout = (call, pause, ...rest) => (pause > 5000 ? 0 : real(call, pause, ...rest));"""
SETTLED = """() => !document.querySelector("[aria-busy=true], .wait") && document.getAnimations().length === 0
    && [...document.images].every((image) => image.complete || image.getBoundingClientRect().top > innerHeight)"""
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
SIZES = """() => Object.fromEntries([...document.querySelectorAll("article")].map((card) =>
    [card.querySelector("b").textContent, Number(card.querySelector(".size").textContent.replace(/\\D/g, ""))]))"""
SIZES_ARE = f"those => String(Object.entries(({SIZES})()).sort()) === String(Object.entries(those).sort())"
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run: three kinds of pictures in four clusters, three of them unsure, a copy, and a broken file."""
    folder = tmp_path_factory.mktemp("page")
    source = paint(folder / "pictures", each=20)
    shutil.copy(source / "kind0" / "3.png", source / "kind0" / "copy.png")
    (source / "broken.png").write_bytes(b"not a picture")
    command = [sys.executable, "-m", "shoal", "cluster", str(source), "--out", str(folder / "run"), "--clusters", "4"]
    subprocess.run(command, check=True, capture_output=True)
    _doubt(RunDir.open(folder / "run"))
    return folder / "run"


def _doubt(run: RunDir) -> None:
    """Kinds that anyone would tell apart leave no doubt: call the first images of three clusters unsure."""
    table = run.read_clusters()
    firsts = {table["cluster"].to_pylist().index(cluster) for cluster in (0, 1, 2)}
    place = table.column_names.index("unsure")
    unsure = pa.array([row in firsts for row in range(len(table))])
    records.write_table(run.clusters, table.set_column(place, table.schema.field("unsure"), unsure))


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """A server of that run: what it says is to be opened."""
    with served(run) as address:
        yield address


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-u", "-m", "shoal", "browse", str(folder), "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    said = server.stdout.readline()
    found = re.search(r"http://\S+", said)
    assert found, f"shoal browse said {said!r}{server.stdout.read()}"
    try:
        yield found[0]
    finally:
        server.terminate()
        server.wait(PATIENCE)
        server.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is missing; expected Debian's on the PATH (apt-get install chromium)"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        yield playwright.chromium.launch(executable_path=chromium, args=arguments, timeout=PATIENCE_MS)


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Open]:
    """Opens windows; afterwards no script has failed, nothing was refused by the CSP, nothing came from elsewhere."""
    contexts, complaints = [], []

    def open_window(
        view: str = "clusters",
        size: tuple[int, int] = WIDE,
        script: str = "",
        expects_errors: bool = False,
        at: str = address,
        **options: object,
    ) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(NOTICES_STAY)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if not expects_errors:  # Chromium tells every answer that is not 2xx
            page.on(
                "console",
                lambda line: complaints.append(f"{line.text} {line.location}") if line.type == "error" else None,
            )
        own = at.split("#", maxsplit=1)[0]
        page.on("request", lambda asked: None if asked.url.startswith((own, "blob:")) else complaints.append(asked.url))
        if script:
            page.add_init_script(script)
        page.goto(at)
        expect(page.locator("article, .drop").first).to_be_visible()
        go(page, view)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def unchanged(run: Path) -> Iterator[None]:
    """Whatever a test corrects is forgotten."""
    yield
    (run / "edits.jsonl").unlink(missing_ok=True)


def go(page: Page, view: str) -> None:
    page.evaluate("view => { location.hash = '#/' + view }", view)
    expect(page.locator("main")).to_have_attribute("data-view", view)
    expect(page.locator("[aria-busy=true], .wait")).to_have_count(0)


def settle(page: Page) -> None:
    """Wait until nothing is coming or moving any more, and what there is has been painted."""
    page.wait_for_function(SETTLED)
    page.evaluate(PAINTED)


def card(page: Page, name: str) -> Locator:
    return page.locator("article", has=page.get_by_text(name, exact=True))


def sizes(page: Page) -> dict[str, int]:
    """Images in each cluster, as the cards tell."""
    expect(page.locator("article").first).to_be_visible()
    found: dict[str, int] = page.evaluate(SIZES)
    return found


def options(page: Page) -> Locator:
    return page.locator("[role=option]")


def said(page: Page, text: str) -> None:
    expect(page.get_by_role("status").filter(has_text=text).first).to_be_visible()


def lines(run: Path) -> list[dict[str, object]]:
    file = run / "edits.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# -- looking ---------------------------------------------------------------------------------------------------------


def test_the_page_is_small() -> None:
    files = [file for file in BUILT.rglob("*") if file.is_file()]
    assert files, "the page is not built; expected pip install to have built it"
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) < 300_000


def test_the_token_leaves_the_address_and_without_it_nothing_is_shown(
    opened: Open, browser: Browser, address: str
) -> None:
    assert "token" not in opened().url
    stranger = browser.new_page()
    stranger.set_default_timeout(PATIENCE_MS)
    stranger.goto(address.split("#", maxsplit=1)[0] + "#token=wrong")
    expect(stranger.get_by_role("heading", name="This page was opened without its key")).to_be_visible()
    assert stranger.locator("img").count() == 0
    stranger.context.close()


def test_clusters_are_sorted_and_filtered(opened: Open) -> None:
    page = opened()
    before = sizes(page)
    assert len(before) == 4
    assert sum(before.values()) == 61
    assert list(before.values()) == sorted(before.values(), reverse=True)
    page.get_by_label("Order").select_option("small")
    assert list(sizes(page).values()) == sorted(before.values())
    page.get_by_label("Filter clusters by name").fill("cluster 2")
    assert list(sizes(page)) == ["Cluster 2"]
    page.get_by_label("Filter clusters by name").fill("nothing of the kind")
    expect(page.get_by_role("heading", name="No such cluster")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    assert len(sizes(page)) == 4


def test_granularity_goes_from_coarse_to_fine(opened: Open) -> None:
    page = opened()
    slider, heading = page.get_by_label("Granularity"), page.locator("h1")
    found = []
    for level in range(int(slider.get_attribute("max") or 0) + 1):
        before = heading.inner_text()
        slider.fill(str(level))
        expect(heading).not_to_have_text(before)
        counted = sizes(page)
        assert sum(counted.values()) == 61
        found.append(len(counted))
    assert found == sorted(set(found))
    card(page, "Cluster 0, part 1").get_by_role("link").click()
    # What is finer than the chosen clusters is for looking only.
    expect(page.get_by_role("heading", name="From surest to least sure")).to_be_visible()
    assert page.get_by_role("button", name="Rename").count() == 0
    page.get_by_text("Part of").get_by_role("link", name="Cluster 0").click()
    expect(page.get_by_role("button", name="Rename")).to_be_visible()


def test_a_cluster_goes_from_surest_to_least_sure_with_unsure_ones_apart(opened: Open) -> None:
    page = opened("clusters", (1280, 1600))
    unsure = 0
    for number in range(4):
        go(page, f"cluster/{number}")
        expect(options(page).first).to_have_attribute("aria-label", re.compile("Image"))
        total = int(page.locator("h1 + p").inner_text().split()[0])
        expect(options(page)).to_have_count(total)
        shares = [int(found) for found in re.findall(r"confidence (\d+) %(?!, perhaps)", labels(page))]
        assert shares == sorted(shares, reverse=True)
        apart = page.get_by_role("listbox", name=re.compile("Unsure")).locator("[role=option]")
        for option in apart.all():
            assert re.search("perhaps Cluster", option.get_attribute("aria-label") or "")
            unsure += 1
    assert unsure == 3
    assert go_and_read(page, "clusters").startswith("3 unsure")


def test_the_grid_holds_only_what_is_seen(opened: Open) -> None:
    page = opened("cluster/0", (500, 420))
    expect(options(page).first).to_be_visible()
    total = int(options(page).first.get_attribute("aria-setsize") or 0)
    assert 0 < options(page).count() < total
    page.get_by_role("listbox").first.focus()
    page.keyboard.press("End")
    expect(page.locator(f"[aria-posinset='{total}']").first).to_be_in_viewport()
    expect(page.locator(f"[aria-posinset='{total}'] img").first).to_have_js_property("complete", True)


def test_an_image_has_its_file_probabilities_neighbours_and_those_beside_it(opened: Open) -> None:
    page = opened("cluster/0")
    options(page).nth(1).click()
    expect(page.get_by_role("heading", name=re.compile(r"\d+\.png|copy\.png"))).to_be_visible()
    expect(page.get_by_text("96 × 96 pixels")).to_be_visible()
    assert page.get_by_role("table").get_by_role("row").count() == 5  # four clusters and a heading
    expect(page.get_by_role("heading", name="Nearest images")).to_be_visible()
    assert page.get_by_role("link", name=re.compile("similarity")).count() >= 10
    expect(page.get_by_text("2 of")).to_be_visible()
    first = page.url
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("3 of")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(first)
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Cluster 0")).to_be_visible()


def test_copies_are_told(opened: Open) -> None:
    page = opened("evidence")
    page.get_by_role("region", name="Duplicates").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="The same picture")).to_be_visible()


@pytest.mark.parametrize("kind", ["webgl", "canvas"])
def test_the_map_shows_hovers_and_selects(opened: Open, kind: str) -> None:
    without = """const real = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, options) {
            return kind.startsWith("webgl") ? null : real.call(this, kind, options); };"""
    page = opened("map", script=without if kind == "canvas" else "")
    canvas = page.locator("canvas")
    expect(canvas).to_have_attribute("data-painter", kind)
    expect(page.get_by_role("img", name="Map of 61 images")).to_be_visible()
    settle(page)
    coloured = Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB").getcolors(1 << 20)
    assert coloured
    assert len(coloured) > 20  # four colours with their edges, on paper
    page.locator("aside").get_by_role("button", name="Select all of Cluster 0").click()
    expect(page.get_by_text(re.compile(r"\d+ images selected"))).to_be_visible()
    page.keyboard.press("Escape")

    page.keyboard.press("l")
    box = canvas.bounding_box()
    assert box
    corners = [(0.02, 0.02), (0.02, 0.98), (0.8, 0.98), (0.8, 0.02)]
    for index, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if index == 0:
            page.mouse.down()
    page.mouse.up()
    expect(page.get_by_text("61 images selected")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("l")

    tip = page.locator(".tip img")
    for x, y in [(x / 40, y / 24) for y in range(24) for x in range(6, 30)]:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if tip.count():
            break
    expect(tip).to_be_visible()
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile("#/image/"))


@pytest.mark.usefixtures("unchanged")
def test_of_a_large_map_more_is_seen_on_coming_nearer(opened: Open) -> None:
    page = opened("clusters")
    asked: list[str] = []

    def some(route: Route) -> None:
        """At most SOME images of each window, as the server answers where there are very many."""
        asked.append(route.request.url)
        answer = route.fetch()
        data = np.frombuffer(answer.body(), "<u4")
        count = int(data[0])
        kept = min(count, SOME)
        columns = data[7:].reshape(4, count)[:, :kept]
        head = np.r_[np.uint32(kept), data[1:7]].astype("<u4")
        route.fulfill(response=answer, body=head.tobytes() + columns.astype("<u4").tobytes())

    page.route("**/api/map?*", some)
    go(page, "map")
    expect(page.get_by_role("img", name="Map of 61 images")).to_be_visible()
    told = page.get_by_text(f"{SOME} of 61 images shown")
    expect(told).to_be_visible()
    assert len(asked) == 1
    size = int(page.locator("aside li", has_text="Cluster 0").locator(".small").inner_text())
    page.locator("aside").get_by_role("button", name="Select all of Cluster 0").click()
    expect(page.get_by_text(f"{size} images selected")).to_be_visible()
    with page.expect_response("**/api/map/changes?*"):
        page.get_by_role("button", name="Noise", exact=True).click()
    expect(page.locator("aside li", has_text="Noise")).to_contain_text(str(size))
    assert len(asked) == 1  # the places are known
    with page.expect_request(lambda sent: "/api/map?" in sent.url and "cluster=" in sent.url):
        page.locator("aside").get_by_role("button", name="Noise").first.click()
    expect(page.get_by_text("of 61 images shown")).to_have_count(0)
    page.locator("aside").get_by_role("button", name="Noise").first.click()
    with page.expect_request(lambda sent: "west=" in sent.url and "cluster=" not in sent.url):
        for _ in range(6):
            page.get_by_role("button", name="Nearer").click()
    expect(page.get_by_text("Come nearer")).to_have_count(0)
    page.get_by_role("button", name="All of it").click()
    expect(told).to_be_visible()


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_an_image_of_ones_own_finds_its_cluster(opened: Open, run: Path, way: str, tmp_path: Path) -> None:
    page = opened("search")
    mine = tmp_path / "mine.png"
    Image.open(run.parent / "pictures" / "kind1" / "5.png").rotate(1).save(mine)
    if way == "choose":
        page.get_by_label("Choose an image").set_input_files(mine)
    else:
        page.evaluate(
            """([way, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
                dispatchEvent(way === "drop" ? new DragEvent("drop", { dataTransfer: data })
                    : new ClipboardEvent("paste", { clipboardData: data }));
            }""",
            [way, list(mine.read_bytes())],
        )
    expect(page.locator(".verdict")).to_have_text(re.compile(r"Cluster \d"))
    assert page.get_by_role("link", name=re.compile("similarity")).count() >= 10
    expect(page.get_by_role("img", name=re.compile("Your image"))).to_be_visible()


def test_what_is_no_image_is_told(opened: Open, tmp_path: Path) -> None:
    page = opened("search", expects_errors=True)
    (tmp_path / "fake.png").write_bytes(b"no picture at all")
    page.get_by_label("Choose an image").set_input_files(tmp_path / "fake.png")
    expect(page.get_by_role("alert")).to_be_visible()


def test_evidence_tells_why_and_what_was_left_out(opened: Open) -> None:
    page = opened("evidence")
    expect(page.get_by_role("heading", name="Why these clusters")).to_be_visible()
    expect(page.get_by_text(re.compile("4 clusters, as asked"))).to_be_visible()
    expect(page.get_by_role("region", name="Skipped files").get_by_text("broken.png").first).to_be_visible()
    go(page, "clusters")
    page.get_by_role("link", name="1 skipped").click()
    expect(page.get_by_role("heading", name="Skipped files")).to_be_in_viewport()
    expect(page.get_by_role("region", name="Duplicates").get_by_role("link").first).to_be_visible()
    expect(page.get_by_role("region", name="How good they are").get_by_role("listitem")).to_have_count(4)


def test_evidence_says_why_this_method_when_and_of_what_each_silhouette_is(
    opened: Open, run: Path, tmp_path: Path
) -> None:
    copy = RunDir.open(Path(shutil.copytree(run, tmp_path / "run")))
    (copy.root / "edits.jsonl").unlink(missing_ok=True)
    state = json.loads(copy.run_json.read_text(encoding="utf-8"))
    state["stages"]["cluster"]["facts"]["why_method"] = "other ways tell less"
    copy.run_json.write_text(json.dumps(state), encoding="utf-8")
    table = records.read_table(copy.choose_k)
    place = table.schema.get_field_index("silhouette")
    records.write_table(copy.choose_k, table.set_column(place, "silhouette", pa.array([0.123] * len(table))))
    with served(copy.root) as address:
        page = opened("evidence", at=address)
        expect(page.locator(".how")).to_contain_text("other ways tell less.")
        expect(page.locator(".how")).to_contain_text("by the silhouettes of k-means, 0.123 for the chosen one")
        expect(page.get_by_text("mean over the clusters shown")).to_be_visible()
        expect(page.get_by_role("region", name="How it was made")).to_contain_text(
            re.compile(r"\d [A-Z]\w+ 20\d\d, \d")
        )
        go(page, "image/5")
        page.get_by_role("button", name="Noise").click()
        said(page, "Marked")
        go(page, "evidence")
        expect(
            page.get_by_text(re.compile(r"mean over \d+ images in clusters that you did not change, of 61"))
        ).to_be_visible()
        expect(page.locator(".how")).not_to_contain_text("k-means, 0.123")
        page.context.close()


# -- correcting ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged")
def test_rename_survives_a_reload_and_is_undone_and_done_again(opened: Open, run: Path) -> None:
    page, before = opened("cluster/1"), len(lines(run))
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("Stripes")
    page.keyboard.press("Enter")
    said(page, "Renamed to “Stripes”.")
    assert [line["op"] for line in lines(run)[before:]] == ["rename"]
    page.reload()
    expect(page.get_by_role("heading", name="Stripes")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="Cluster 1")).to_be_visible()
    page.get_by_role("button", name="Redo").click()
    expect(page.get_by_role("heading", name="Stripes")).to_be_visible()


@pytest.mark.usefixtures("unchanged")
def test_merge_puts_two_clusters_together(opened: Open) -> None:
    page = opened()
    before = sizes(page)
    for name in ("Cluster 1", "Cluster 3"):
        card(page, name).get_by_role("checkbox").check()
    page.get_by_role("button", name="Merge", exact=True).click()
    said(page, "Merged")
    expect(page.locator("article")).to_have_count(3)
    assert sorted(sizes(page).values()) == sorted(
        [before["Cluster 0"], before["Cluster 2"], before["Cluster 1"] + before["Cluster 3"]]
    )
    page.get_by_role("status").get_by_role("button", name="Undo").click()
    expect(page.locator("article")).to_have_count(4)
    assert sizes(page) == before


@pytest.mark.usefixtures("unchanged")
def test_a_cluster_is_merged_into_the_one_that_is_chosen(opened: Open) -> None:
    page = opened("clusters")
    before = sizes(page)
    go(page, "cluster/1")
    page.get_by_role("button", name="Merge", exact=True).click()
    dialog = page.get_by_role("dialog", name="Merge Cluster 1 into…")
    expect(dialog).to_contain_text("The cluster that you choose stays")
    dialog.get_by_label("Find a cluster").fill("cluster 3")
    page.keyboard.press("Enter")
    said(page, "Merged Cluster 1 into Cluster 3.")
    expect(page.locator("main")).to_have_attribute("data-view", "cluster/3")
    go(page, "clusters")
    both = before.pop("Cluster 1") + before.pop("Cluster 3")
    wait_for_sizes(page, before | {"Cluster 3": both})


@pytest.mark.usefixtures("unchanged")
def test_split_makes_what_its_preview_showed(opened: Open) -> None:
    page = opened("cluster/0")
    total = int(page.locator("h1 + p").inner_text().split()[0])
    page.get_by_role("button", name="Split").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("slider").fill("3")
    expect(dialog.get_by_role("listitem")).to_have_count(3)
    expect(dialog.locator("[aria-busy=true]")).to_have_count(0)
    parts = [int(found) for found in re.findall(r"(\d+) images?", dialog.locator("ol").inner_text())]
    assert sum(parts) == total
    dialog.get_by_role("button", name="Split into 3").click()
    said(page, "into 3")
    go(page, "clusters")
    expect(page.locator("article")).to_have_count(6)
    found = sorted(sizes(page).values())
    for part in parts:
        found.remove(part)
    assert len(found) == 3


@pytest.mark.usefixtures("unchanged")
def test_selected_images_move_to_a_cluster_a_new_one_or_noise(opened: Open) -> None:
    page = opened()
    before = sizes(page)

    def first_image_is_gone(label: str | None) -> None:
        assert label is not None
        expect(options(page).first).not_to_have_attribute("aria-label", label)

    go(page, "cluster/0")
    first = options(page).first.get_attribute("aria-label")
    for number in (0, 2):
        options(page).nth(number).hover()
        options(page).nth(number).locator(".tick").click()
    expect(page.get_by_text("2 images selected")).to_be_visible()
    page.get_by_role("button", name="Move to…").click()
    page.get_by_label("Find a cluster").fill("cluster 2")
    page.keyboard.press("Enter")
    said(page, "Moved 2 images to Cluster 2.")
    first_image_is_gone(first)
    first = options(page).first.get_attribute("aria-label")
    options(page).first.hover()
    options(page).first.locator(".tick").click()
    page.get_by_role("button", name="New cluster").click()
    said(page, "Moved 1 image to a new cluster.")
    first_image_is_gone(first)
    options(page).first.locator(".tick").click(force=True)
    options(page).nth(2).click(modifiers=["Shift"])
    expect(page.get_by_text("3 images selected")).to_be_visible()
    page.get_by_role("button", name="Noise").click()
    said(page, "Marked 3 images as noise.")
    go(page, "clusters")
    after = sizes(page)
    assert after["Cluster 0"] == before["Cluster 0"] - 6
    assert after["Cluster 2"] == before["Cluster 2"] + 2
    assert sorted(size for name, size in after.items() if name not in before) == [1, 3]
    assert list(after)[-1] == "Noise"
    for level, called in ((1, "is for looking"), (2, "Fine is for looking")):
        page.get_by_label("Granularity").fill(str(level))
        expect(page.get_by_text(called)).to_have_count(level - 1)
        named = [name for name in sizes(page) if not name.startswith("Noise")]
        expect(page.locator("h1")).to_have_text(f"61 images in {len(named)} clusters")


@pytest.mark.usefixtures("unchanged")
def test_an_unsure_image_is_kept_where_it_is(opened: Open) -> None:
    page = opened("clusters", (1280, 1600))
    page.get_by_label("Which clusters").select_option("unsure")
    expect(page.locator("article")).to_have_count(3)
    page.locator("article a").first.click()
    unsure = page.get_by_role("listbox", name=re.compile("Unsure")).locator("[role=option]")
    expect(unsure.first).to_have_attribute("aria-label", re.compile("perhaps"))
    image, before = unsure.first.get_attribute("data-id"), unsure.count()
    unsure.first.hover()
    unsure.first.locator(".tick").click()
    page.keyboard.press("k")
    said(page, "Kept 1 image in")
    expect(unsure).to_have_count(before - 1)
    kept = page.get_by_role("listbox", name=re.compile("surest first")).locator(f"[data-id='{image}']")
    expect(kept).to_have_attribute("aria-label", re.compile("confidence 100 %.*placed here by you"))


def test_unsure_images_move_to_their_runners_up_and_back_as_one_change(opened: Open, run: Path, tmp_path: Path) -> None:
    copy = RunDir.open(Path(shutil.copytree(run, tmp_path / "run")))
    table = copy.read_clusters()
    (copy.root / "edits.jsonl").unlink(missing_ok=True)
    rows = [row for row, cluster in enumerate(table["cluster"].to_pylist()) if cluster == 0][:3]
    unsure = [row in rows for row in range(len(table))]
    runner_up = [2 if row == rows[1] else 1 for row in range(len(table))]
    for name, values in (("unsure", unsure), ("runner_up", runner_up)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    records.write_table(copy.clusters, table)
    with served(copy.root) as address:
        page = opened("clusters", (1280, 1600), at=address)
        before = sizes(page)
        go(page, "cluster/0")
        apart = page.get_by_role("listbox", name=re.compile("Unsure")).locator("[role=option]")
        expect(apart).to_have_count(3)
        for option in apart.all():
            option.hover()
            option.locator(".tick").click()
        expect(page.get_by_text("3 images selected")).to_be_visible()
        page.keyboard.press("u")
        said(page, "Moved 3 images to their runners-up.")
        expect(apart).to_have_count(0)
        go(page, "clusters")
        moved = {**before, "Cluster 0": before["Cluster 0"] - 3}
        moved |= {"Cluster 1": before["Cluster 1"] + 2, "Cluster 2": before["Cluster 2"] + 1}
        wait_for_sizes(page, moved)
        page.get_by_role("status").get_by_role("button", name="Undo").click()
        said(page, "Undone.")
        wait_for_sizes(page, before)
        page.keyboard.press("Control+Shift+z")
        said(page, "Done again.")
        wait_for_sizes(page, moved)
        page.keyboard.press("Control+z")
        said(page, "Undone.")
        wait_for_sizes(page, before)
        expect(page.get_by_role("button", name="Undo", exact=True).first).to_be_disabled()
        page.context.close()


@pytest.mark.usefixtures("unchanged")
def test_everything_is_undone_and_done_again_without_limit(opened: Open) -> None:
    page = opened()
    states = [sizes(page)]
    for number in range(4):
        go(page, f"image/{number + 5}")
        page.get_by_role("button", name="Noise").click()
        go(page, "clusters")
        states.append(sizes_other_than(page, states[-1]))
    page.reload()
    expect(page.locator("article").first).to_be_visible()
    for expected in reversed(states[:-1]):
        page.keyboard.press("Control+z")
        wait_for_sizes(page, expected)
    for expected in states[1:]:
        page.keyboard.press("Control+Shift+z")
        wait_for_sizes(page, expected)


@pytest.mark.usefixtures("unchanged")
def test_two_windows_see_and_keep_each_others_edits(opened: Open, run: Path) -> None:
    one, other = opened(), opened()
    before = len(lines(run))
    for page, number, name in ((one, 0, "Left"), (other, 1, "Right")):
        go(page, f"cluster/{number}")
        page.get_by_role("button", name="Rename").click()
        page.get_by_role("textbox", name="Name").fill(name)
    one.keyboard.press("Enter")
    other.keyboard.press("Enter")
    for page in (one, other):
        go(page, "clusters")
        expect(card(page, "Left")).to_be_visible()
        expect(card(page, "Right")).to_be_visible()
    assert [line["op"] for line in lines(run)[before:]] == ["rename", "rename"]


@pytest.mark.usefixtures("unchanged")
def test_a_window_that_knows_less_is_told_and_shown(opened: Open) -> None:
    one, other = (
        opened(),
        opened(
            script="window.fetch = ((real) => (path, options) => String(path).includes('events')"
            " ? new Promise(() => {}) : real(path, options))(fetch);",
            expects_errors=True,
        ),
    )
    for name in ("Cluster 0", "Cluster 1"):
        card(one, name).get_by_role("checkbox").check()
        card(other, name).get_by_role("checkbox").check()
    one.get_by_role("button", name="Merge", exact=True).click()
    said(one, "Merged")
    other.get_by_role("button", name="Merge", exact=True).click()
    expect(other.locator(".notice.error")).to_be_visible()
    expect(other.locator("article")).to_have_count(3)


@pytest.mark.usefixtures("unchanged")
def test_the_keyboard_alone_will_do(opened: Open) -> None:
    page = opened()
    press = page.keyboard.press
    press("ArrowRight")
    press("ArrowRight")
    expect(page.locator("article a").nth(1)).to_be_focused()
    press("r")
    page.keyboard.type("Named by keys")
    press("Enter")
    said(page, "Renamed")
    expect(card(page, "Named by keys").locator("a")).to_be_focused()
    press("Enter")
    expect(page.locator("h1")).to_be_focused()
    expect(options(page).first).to_be_visible()
    while page.evaluate("document.activeElement.getAttribute('role')") != "listbox":
        press("Tab")
    press("Space")
    press("Shift+ArrowRight")
    expect(page.get_by_text("2 images selected")).to_be_visible()
    press("m")
    page.keyboard.type("cluster 0")
    press("Enter")
    said(page, "Moved 2 images to Cluster 0.")
    press("Escape")
    press("h")
    expect(page.get_by_role("dialog").get_by_role("listitem").first).to_contain_text("Moved 2 images")
    press("Escape")
    press("Control+z")
    said(page, "Undone.")
    press("?")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    press("Escape")
    for key, heading in (("2", "Map"), ("3", "Search"), ("4", "Why these clusters"), ("1", "61 images")):
        press(key)
        expect(page.get_by_role("heading", name=re.compile(heading), level=1)).to_be_attached()


@pytest.mark.usefixtures("unchanged")
def test_what_was_corrected_is_exported(opened: Open, tmp_path: Path) -> None:
    page = opened("cluster/1")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("To take away")
    page.keyboard.press("Enter")
    said(page, "Renamed")
    for kind, check in (("Table (CSV)", _is_csv), ("Table (Parquet)", _is_parquet), ("Folders", _is_zip)):
        page.keyboard.press("e")
        page.get_by_role("radio", name=re.compile(f"^{re.escape(kind)}")).check()
        with page.expect_download() as download:
            page.get_by_role("dialog").get_by_role("button", name="Export").click()
        download.value.save_as(tmp_path / "taken")
        check(tmp_path / "taken")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_corrections_are_learned_from(opened: Open, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with served(tmp_path / "run") as address:
        page = opened("cluster/0", at=address)
        ids = []
        for _ in range(3):
            ids.append(options(page).first.get_attribute("data-id"))
            options(page).first.hover()
            options(page).first.locator(".tick").click()
            page.keyboard.press("m")
            page.get_by_label("Find a cluster").fill("cluster 1")
            page.keyboard.press("Enter")
            expect(page.locator(f"[data-id='{ids[-1]}']")).to_have_count(0)
        page.keyboard.press("h")
        page.get_by_role("button", name="Apply my corrections").click()
        expect(page.get_by_role("dialog").get_by_role("listitem").first).to_contain_text("Applied the corrections")
        expect(page.get_by_role("dialog")).to_contain_text("3 corrections in force")
        page.keyboard.press("Escape")
        go(page, f"image/{ids[0]}")
        where = page.locator(".where a").inner_text()
        for other in ids[1:]:
            go(page, f"image/{other}")
            expect(page.locator(".where a")).to_have_text(where)
        page.context.close()  # before the server goes, whose end it would complain of


def test_an_open_page_follows_a_new_clustering_with_its_corrections(opened: Open, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with served(tmp_path / "run") as address:
        page = opened("cluster/1", at=address)
        page.keyboard.press("r")
        page.get_by_role("textbox", name="Name").fill("Stripes")
        page.keyboard.press("Enter")
        said(page, "Renamed")
        go(page, "cluster/0")
        moved = [options(page).nth(number).get_attribute("data-id") for number in range(3)]
        options(page).first.hover()
        options(page).first.locator(".tick").click()
        options(page).nth(2).click(modifiers=["Shift"])
        page.keyboard.press("m")
        page.get_by_label("Find a cluster").fill("stripes")
        page.keyboard.press("Enter")
        said(page, "Moved 3 images to Stripes.")
        go(page, "clusters")
        command = [
            sys.executable,
            "-m",
            "shoal",
            "cluster",
            str(run.parent / "pictures"),
            "--out",
            str(tmp_path / "run"),
        ]
        subprocess.run([*command, "--clusters", "5", "--seed", "1", "--no-report"], check=True, capture_output=True)
        expect(page.locator("article")).to_have_count(5)
        expect(card(page, "Stripes")).to_be_visible()
        for image in moved:
            go(page, f"image/{image}")
            expect(page.locator(".where a")).to_have_text("Stripes")
        page.keyboard.press("h")
        listed = page.get_by_role("dialog").get_by_role("listitem")
        expect(listed).to_have_count(2)
        expect(listed.first).to_contain_text("of an earlier clustering")
        expect(page.locator(".conflict")).to_have_count(0)
        page.context.close()


def test_a_model_is_tried_with_an_image_of_ones_own(opened: Open, run: Path) -> None:
    with served(run / "model") as address:
        page = opened("search", at=address)
        assert page.get_by_role("navigation").get_by_role("link").all_inner_texts() == ["Search"]
        page.get_by_label("Choose an image").set_input_files(run.parent / "pictures" / "kind1" / "5.png")
        expect(page.locator(".verdict")).to_have_text(re.compile(r"Cluster \d"))


@contextmanager
def without_source(run: Path, copy: Path) -> Iterator[str]:
    """A server of a copy of the run, within which nothing lies where its pictures did."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("*lock", "edits.jsonl"))
    source = run.parent / "pictures"
    source.rename(run.parent / "aside")
    try:
        with served(copy) as address:
            yield address
    finally:
        (run.parent / "aside").rename(source)


def test_what_was_kept_is_shown_without_the_source_and_the_large_view_says_so(
    opened: Open, run: Path, tmp_path: Path
) -> None:
    with without_source(run, tmp_path / "moved.shoal") as address:
        page = opened("cluster/0", at=address, expects_errors=True)
        expect(options(page).first.locator("img")).to_have_js_property("complete", True)
        expect(page.get_by_text("picture not available")).to_have_count(0)
        options(page).first.click()
        told = page.locator("figcaption")
        expect(told).to_contain_text(f"Not the original. The source {run.parent / 'pictures'} is not there")
        expect(told).to_contain_text("shoal relink moved.shoal SOURCE")
        expect(told).to_contain_text("96 × 96 pixels")
        assert not serious(page)
        page.context.close()


def test_pictures_that_cannot_be_had_are_told_in_their_place_and_asked_for_once(
    opened: Open, run: Path, tmp_path: Path
) -> None:
    with without_source(run, tmp_path / "moved.shoal") as address:
        shutil.rmtree(tmp_path / "moved.shoal" / "cache")
        page = opened("clusters", at=address, expects_errors=True)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/thumb" in request.url else None)
        expect(page.locator("article").first.get_by_text("picture not available").first).to_be_visible()
        assert not serious(page)
        for _ in range(3):  # going to and fro asks for nothing twice
            go(page, "cluster/0")
            expect(options(page).first.get_by_text("picture not available")).to_be_visible()
            go(page, "clusters")
            expect(page.locator("article").first.get_by_text("picture not available").first).to_be_visible()
        images = [re.search(r"images/(\d+)/", url) for url in asked]
        assert len({found[1] for found in images if found}) == len(asked)
        go(page, "image/5")
        figure = page.locator("figure")
        expect(figure.get_by_role("heading", name="Picture not available")).to_be_visible()
        expect(figure).to_contain_text(f"The source {run.parent / 'pictures'} is not there")
        assert not serious(page)
        go(page, "map")
        page.keyboard.press("p")
        expect(page.locator(".tile .none").first).to_be_visible()
        expect(page.locator(".tile img")).to_have_count(0)
        page.context.close()


# -- names and words --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run whose clusters show known kinds, whatever its pictures do, and the address of its server."""
    root = named_run(tmp_path_factory.mktemp("named") / "named.shoal").root
    run_stage(root, "map", map_images, config())
    _picture(RunDir.open(root), paint(root.parent / "pictures", kinds=1, each=1) / "kind0" / "0.png")
    with served(root) as address:
        yield root, address


def _picture(run: RunDir, file: Path) -> None:
    """Have all images of a run look like a file."""
    table = run.read_images()
    for name, value in (("uri", file.as_uri()), ("sha256", hashlib.sha256(file.read_bytes()).hexdigest())):
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.array([value] * len(table)))
    records.write_table(run.images, table)


@pytest.fixture
def open_named(opened: Open, named: tuple[Path, str]) -> Iterator[Open]:
    """As `opened`, of that run. Whatever a test corrects is forgotten."""
    root, address = named
    yield lambda view="clusters", **options: opened(view, at=address, **options)
    (root / "edits.jsonl").unlink(missing_ok=True)


def number_of(page: Page, guess: str) -> int:
    """The number of the cluster that is guessed to show something; the page is at the clusters."""
    return int(page.locator("article", has=page.locator("em", has_text=guess)).get_attribute("data-cluster") or -1)


def test_guesses_are_seen_as_guesses_wherever_clusters_are_named(open_named: Open) -> None:
    page = open_named()
    told = page.locator("article em")
    expect(told).to_have_count(6)
    assert set(told.all_text_contents()) == set(KINDS)
    for guess in told.all():
        expect(guess).to_have_attribute("title", re.compile(r"^A guess .*; strength \d+\.\d\d$"))
        expect(guess).to_have_css("font-style", "italic")
    goldfish = number_of(page, "goldfish")
    page.get_by_label("Filter clusters by name").fill("gold")
    expect(page.locator("article")).to_have_count(1)
    go(page, f"cluster/{goldfish}")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Cluster {goldfish}, a guess: goldfish")
    expect(page.get_by_role("listbox", name=f"Images of Cluster {goldfish} (goldfish)")).to_be_visible()
    page.keyboard.press("m")
    page.get_by_label("Find a cluster").fill("hour")
    expect(page.get_by_role("option", name=re.compile("a guess: hourglass"))).to_be_visible()
    page.keyboard.press("Escape")
    go(page, "map")
    expect(page.locator(".label.guess", has_text="goldfish")).to_be_attached()
    expect(page.get_by_role("button", name=f"Select all of Cluster {goldfish} (goldfish)")).to_be_attached()
    go(page, "evidence")
    expect(page.get_by_role("region", name="How good they are").get_by_role("link", name="goldfish")).to_be_visible()
    go(page, f"image/{KINDS.index('goldfish') * EACH}")
    expect(page.locator(".where em")).to_have_text("goldfish")


def test_levels_are_called_by_what_they_show(open_named: Open) -> None:
    page = open_named()
    slider = page.get_by_label("Granularity")
    for level, lead in ((0, "Group"), (2, "Cluster")):
        slider.fill(str(level))
        expect(page.get_by_text("is for looking")).to_be_visible()
        expect(page.locator("article b", has=page.locator("em")).filter(has_text=lead).first).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("as the name of"))).to_have_count(0)


def test_one_click_accepts_a_guess_and_undo_takes_it_back(open_named: Open, named: tuple[Path, str]) -> None:
    page = open_named()
    banana = number_of(page, "banana")
    tile = page.locator(f"article[data-cluster='{banana}']")
    tile.hover()
    tile.get_by_role("button", name=f"Accept “banana” as the name of cluster {banana}").click()
    said(page, "Renamed to “banana”.")
    expect(card(page, "banana")).to_be_visible()
    expect(tile.locator("em")).to_have_count(0)
    expect(page.locator("article em")).to_have_count(5)
    assert [(line["op"], line["name"]) for line in lines(named[0])] == [("rename", "banana")]
    page.get_by_role("status").get_by_role("button", name="Undo").click()
    expect(tile.locator("em")).to_have_text("banana")


def test_another_guess_is_taken_with_one_click_or_typed_over(open_named: Open) -> None:
    page = open_named()
    pug = number_of(page, "pug")
    go(page, f"cluster/{pug}")
    guesses = page.get_by_role("group", name="Guessed names").get_by_role("button")
    expect(guesses.nth(1)).to_be_visible()
    other = guesses.nth(1).inner_text()
    guesses.nth(1).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(other)
    expect(page.get_by_role("group", name="Guessed names")).to_have_count(0)
    page.keyboard.press("r")
    page.get_by_role("button", name="Use “pug”").click()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("pug")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("pug")


def test_guesses_are_accepted_by_the_keyboard(open_named: Open) -> None:
    page = open_named()
    page.keyboard.press("ArrowRight")
    first = page.locator("article em").first.text_content()
    page.keyboard.press("a")
    said(page, f"Renamed to “{first}”.")
    second = page.locator("article", has=page.locator("em")).first
    number, guess = second.get_attribute("data-cluster"), second.locator("em").text_content() or ""
    go(page, f"cluster/{number}")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", level=1)).to_have_text(guess)


def test_what_is_corrected_is_named_anew_at_once(open_named: Open) -> None:
    page = open_named()
    for kind in ("Chihuahua", "komondor", "pug"):
        tile = page.locator("article", has=page.locator("em", has_text=kind))
        tile.get_by_role("checkbox").check()
    page.get_by_role("button", name="Merge", exact=True).click()
    said(page, "Merged")
    expect(page.locator("article em")).to_have_count(4)
    dog = number_of(page, "dog")
    go(page, f"cluster/{dog}")
    page.keyboard.press("s")
    parts = page.get_by_role("dialog").get_by_role("listitem").locator("em")
    page.get_by_role("dialog").get_by_role("slider").fill("3")
    expect(parts).to_have_count(3)
    assert set(parts.all_inner_texts()) == {"Chihuahua", "komondor", "pug"}


def test_images_are_found_by_words_and_opened_one_after_another(open_named: Open) -> None:
    page = open_named("search")
    page.keyboard.press("/")
    expect(page.get_by_label("Words for what images show")).to_be_focused()
    page.keyboard.type("dog -pug")
    page.keyboard.press("Enter")
    expect(options(page).first).to_have_attribute(
        "aria-label", re.compile(r"^Image \d+, Cluster \d, a guess: \w+, \d+ % fit")
    )
    heading = page.get_by_role("heading", level=2)
    expect(heading).to_contain_text(re.compile(r"^\d+ images"))
    first = [int(option.get_attribute("data-id") or -1) for option in options(page).all()]
    assert {KINDS[image // EACH] for image in first} == {"Chihuahua", "komondor"}
    page.get_by_role("listbox").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_have_attribute("data-view", f"image/{first[0]}")
    page.keyboard.press("ArrowRight")
    expect(page.locator("main")).to_have_attribute("data-view", f"image/{first[1]}")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Words for what images show")).to_have_value("dog -pug")
    expect(options(page).first).to_have_attribute("data-id", str(first[0]))


def test_what_is_found_is_selected_and_moved(open_named: Open) -> None:
    page = open_named("search")
    page.get_by_label("Words for what images show").fill("banana")
    page.keyboard.press("Enter")
    expect(options(page).first).to_be_visible()
    page.get_by_role("listbox").focus()
    page.keyboard.press("Control+a")
    expect(page.get_by_text(re.compile(r"\d+ images selected"))).to_be_visible()
    page.keyboard.press("n")
    said(page, "to a new cluster")
    expect(options(page).first.locator(".caption em")).to_have_text("banana")


def test_words_that_are_not_known_lead_to_those_that_are(open_named: Open) -> None:
    page = open_named("search", expects_errors=True)
    field = page.get_by_label("Words for what images show")
    field.fill("sparrow -penguin")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("“sparrow” is no word that is known here")).to_be_visible()
    assert options(page).count() == 0
    page.get_by_role("button", name="bird").click()
    expect(field).to_have_value("bird -penguin")
    expect(page.get_by_text("is no word")).to_have_count(0)
    field.fill("submarine")
    field.press("Enter")
    expect(page.get_by_text("No image here shows that")).to_be_visible()
    field.fill("crane")
    field.press("Enter")
    expect(page.get_by_text("'crane' means crane (bird), crane (machine): all of them.")).to_be_visible()
    field.fill("-dog")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("expected a word to look for")


def test_what_is_typed_while_words_are_looked_for_stays(open_named: Open) -> None:
    page = open_named("search")
    field = page.get_by_label("Words for what images show")
    field.fill("submarine")
    field.evaluate(
        "typed => { typed.form.requestSubmit(); typed.value = 'crane'; "
        "typed.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    expect(page.get_by_text("No image here shows that")).to_be_visible()
    expect(field).to_have_value("crane")


def test_where_nothing_can_be_named_numbers_stay_and_the_search_says_why(opened: Open, tmp_path: Path) -> None:
    root = named_run(tmp_path / "bare.shoal", has_classifier=False).root
    with served(root) as address:
        page = opened(at=address, expects_errors=True)
        expect(page.locator("article")).to_have_count(6)
        expect(page.locator("article em")).to_have_count(0)
        go(page, "cluster/0")
        expect(page.get_by_role("heading", level=1)).to_have_text("Cluster 0")
        expect(page.get_by_role("group", name="Guessed names")).to_have_count(0)
        go(page, "search")
        expect(page.get_by_text("without a classifier whose words are known")).to_be_visible()
        expect(page.get_by_label("Words for what images show")).to_have_count(0)
        expect(page.get_by_label("Choose an image")).to_be_attached()
        page.context.close()


@pytest.mark.parametrize(("scheme", "rules"), [("light", ()), ("dark", ("color-contrast",))])
def test_axe_finds_nothing_serious_among_guesses(open_named: Open, scheme: str, rules: tuple[str, ...]) -> None:
    page = open_named(color_scheme=scheme, reduced_motion="reduce")
    page.locator("article").first.hover()
    assert not serious(page, *rules)
    for view, shown in (
        ("cluster/0", "[role=option]"),
        ("map", "canvas"),
        ("search", "form"),
        ("evidence", ".quality em"),
    ):
        go(page, view)
        expect(page.locator(shown).first).to_be_visible()
        assert not serious(page, *rules), view
    for words, shown in (("dog", "[role=option] em"), ("sparrow", ".failure button")):
        page.evaluate("words => { location.hash = '#/search/' + words }", words)
        expect(page.locator(shown).first).to_be_visible()
        assert not serious(page, *rules), words
    go(page, "cluster/0")
    for key, name in (("r", "Rename"), ("s", "Split"), ("m", "Merge")):
        page.keyboard.press(key)
        expect(page.get_by_role("dialog", name=re.compile(name))).to_be_visible()
        assert not serious(page, *rules), name
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_guesses_and_words_fit_a_phone(open_named: Open) -> None:
    page = open_named(size=PHONE, is_mobile=True, has_touch=True)
    for view in ("clusters", "cluster/0", "map", "search", "search/dog", "evidence"):
        page.evaluate("view => { location.hash = '#/' + view }", view)
        settle(page)
        assert widest(page) <= PHONE[0], view
    go(page, "clusters")
    page.get_by_role("button", name=re.compile("^Accept")).first.tap()
    said(page, "Renamed")


# -- for everybody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "rules"), [("light", ()), ("dark", ("color-contrast",))])
def test_axe_finds_nothing_serious(opened: Open, scheme: str, rules: tuple[str, ...]) -> None:
    page = opened(color_scheme=scheme, reduced_motion="reduce")
    for view in VIEWS:
        go(page, view)
        assert not serious(page, *rules), view
    go(page, "cluster/0")
    for key, name in (
        ("?", "Shortcuts"),
        ("h", "Your corrections"),
        ("e", "Export"),
        ("r", "Rename"),
        ("s", "Split"),
        ("m", "Merge"),
    ):
        page.keyboard.press(key)
        expect(page.get_by_role("dialog", name=re.compile(name)), page.url).to_be_visible()
        assert not serious(page, *rules), name
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_it_fits_a_phone(opened: Open) -> None:
    page = opened(size=PHONE, is_mobile=True, has_touch=True)
    for view in VIEWS:
        go(page, view)
        settle(page)
        assert widest(page) <= PHONE[0], view
    page.get_by_role("navigation").get_by_role("link", name="Clusters").tap()
    page.get_by_label("Granularity").fill("2")
    expect(page.get_by_text("is for looking")).to_be_visible()
    assert (page.get_by_label("Order").bounding_box() or {"width": 0})["width"] > 120  # beside the note
    page.get_by_label("Granularity").fill("1")
    expect(page.get_by_text("is for looking")).to_have_count(0)
    page.locator("article a").first.tap()
    options(page).first.locator(".tick").tap()
    expect(page.get_by_role("button", name="Move to…")).to_be_in_viewport()
    assert not serious(page)


# -- what the tests look with ----------------------------------------------------------------------------------------


def serious(page: Page, *rules: str) -> list[str]:
    """What axe-core finds that is serious or critical, by all rules if none are named."""
    assert AXE.is_file(), f"{AXE} is missing; expected npm ci in web/ to have installed it"
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE.read_text(encoding="utf-8"))
    settle(page)  # what is half faded in, or still coming, has half its contrast
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['id']}: {one['help']} ({[node['html'][:120] for node in one['nodes'][:3]]})"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def widest(page: Page) -> int:
    """How wide the page would like to be, in pixels."""
    found: int = page.locator("html, .page").evaluate_all("boxes => Math.max(...boxes.map(box => box.scrollWidth))")
    return found


def labels(page: Page) -> str:
    return "\n".join(option.get_attribute("aria-label") or "" for option in options(page).all())


def go_and_read(page: Page, view: str) -> str:
    go(page, view)
    return page.locator("h1 + p").inner_text()


def sizes_other_than(page: Page, before: dict[str, int]) -> dict[str, int]:
    page.wait_for_function(f"those => !({SIZES_ARE})(those)", arg=before)
    return sizes(page)


def wait_for_sizes(page: Page, expected: dict[str, int]) -> None:
    page.wait_for_function(SIZES_ARE, arg=expected)


def _is_csv(file: Path) -> None:
    rows = file.read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("path,cluster,")
    assert len(rows) == 62
    assert any("To take away" in row for row in rows)


def _is_parquet(file: Path) -> None:
    table = records.read_table(file)
    assert table.num_rows == 61
    assert "To take away" in table["name"].to_pylist()


def _is_zip(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    assert sum(name.endswith(".png") for name in names) == 61
    assert any("To take away" in name for name in names)
