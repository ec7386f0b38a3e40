"""The report: one page that needs nothing else, its figures and its summary, from small real runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

import shoal.cluster.stage
import shoal.neighbours.stage
from shoal import records
from shoal.config import ClusterConfig
from shoal.corrections import changes
from shoal.corrections.corrected import read_corrected
from shoal.corrections.log import append
from shoal.evaluate.evaluate import evaluate, write
from shoal.pictures.pictures import Pictures
from shoal.progress import Progress
from shoal.report import build, charts, figures, selection
from shoal.report import map as mapping
from shoal.report.explorer import Explorer
from shoal.report.findings import Findings
from shoal.report.palette import COLOURS as PALETTE
from shoal.report.palette import NOISE, colours_by_number
from shoal.rundir import RunDir, digest_file
from shoal.runfiles import write_run_json
from shoal.summary import cluster_summary
from small_run import write_small_run

SHAPES = ("ellipse", "rectangle", "line")
COLOURS = ("crimson", "navy", "gold")
HOSTILE = (
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "' onmouseover='alert(1).png",
    "</script><b>&amp;\n{{ 7*7 }}.png",
    "$x_2$ ünï 🐟.png",
)


@dataclass
class Page(HTMLParser):
    """What a browser would make of the page: tags with their attributes, and the visible text."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"img", "meta", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        in_script = self.open and self.open[-1] in {"script", "style"}
        (self.scripts if in_script else self.text).append(data)

    def having(self, attribute: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if attribute in attributes]


def read_page(run: RunDir) -> Page:
    page = Page()
    page.feed((run.report / "index.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def draw_image(group: int, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (80, 60), "white")
    left, top = rng.integers(5, 20, size=2).tolist()
    getattr(ImageDraw.Draw(image), SHAPES[group])((left, top, left + 40, top + 30), fill=COLOURS[group])
    return image


def make_run(
    root: Path,
    count: int = 36,
    clusters: str = "2-5",
    names: Sequence[str] = (),
    skipped: int = 0,
    copies: dict[int, int] | None = None,
    mined: bool = True,
    scale: int = 1,
) -> RunDir:
    """A run of drawn images of 80 × 60 times `scale` in three groups, as the stages before the report leave it."""
    copies = copies or {}
    rng = np.random.default_rng(0)
    total = count + skipped + len(copies)
    groups = np.arange(total) % 3
    vectors = 4 * np.eye(3, 12)[groups] + rng.normal(0, 0.5, (total, 12)) + 0.3
    statuses = [records.OK] * count + [records.SKIPPED] * skipped + [records.DUPLICATE] * len(copies)
    originals = dict(zip(range(count + skipped, total), copies.values(), strict=True))
    run = write_small_run(root / "run", vectors, statuses, originals)
    paths = [f"shapes/{number:03d}.png" for number in range(total)]
    paths[: len(names)] = names
    if skipped and names:
        paths[count : count + len(names)] = [f"bad/{name}" for name in names]
    files = root / "images" / "shapes"
    files.mkdir(parents=True)
    for number in range(count):
        image = draw_image(int(groups[number]), rng)
        image.resize((80 * scale, 60 * scale), Image.Resampling.BICUBIC).save(files / f"{number}.png")
    uris = [(files / f"{number}.png").absolute().as_uri() for number in range(total)]
    table = run.read_images()
    digests = [digest_file(files / f"{number}.png") for number in range(count)] + table["sha256"].to_pylist()[count:]
    columns = {"path": paths, "uri": uris, "sha256": digests}
    columns |= {name: [side * scale] * total for name, side in (("width", 80), ("height", 60))}
    for name, column in columns.items():
        table = table.set_column(
            table.schema.get_field_index(name), name, pa.array(column, table.schema.field(name).type)
        )
    records.write_table(run.images, table)
    config = ClusterConfig(source=("shapes",), clusters=clusters)
    state = run.read_state()
    state.update(asked=config.to_json(), seed=0, source={"name": "shapes", "identity": "shapes"})
    stages = {"neighbours": shoal.neighbours.stage.run} if mined else {}
    for name, stage in {**stages, "cluster": shoal.cluster.stage.run, "map": mapping.run}.items():
        result = stage(config, run, Progress())
        state["stages"][name] = {
            "state": "done",
            "key": "",
            "digest": result.digest,
            "facts": result.facts,
            "seconds": 1,
        }
        write_run_json(run.root, state)
    return run


def report(run: RunDir) -> None:
    config = ClusterConfig.from_json(run.read_state()["asked"])
    build.run(config, run, Progress())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """36 images with hostile names, 6 skipped, 2 exact duplicates; reported with labels."""
    made = make_run(tmp_path_factory.mktemp("report"), names=HOSTILE, skipped=6, copies={0: 0, 1: 0})
    names = [f"<i>{SHAPES[number % 3]}</i>" for number in range(36)]
    records.write_table(made.labels, pa.table({"id": range(36), "label": names}, schema=records.LABELS))
    write(made, evaluate(made))
    report(made)
    return made


@pytest.fixture(scope="module")
def page(run: RunDir) -> Page:
    return read_page(run)


def test_nothing_outside_the_page_is_asked_for(run: RunDir, page: Page) -> None:
    for attributes in page.having("src"):
        assert re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", attributes["src"] or ""), attributes
    for attributes in page.having("href"):
        assert re.match(r"#[a-z0-9-]+$", attributes["href"] or ""), attributes
    html = (run.report / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"https?:|@import|url\(", html) == []
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in page.tags)


def test_links_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for attributes in page.having("id")]
    assert len(ids) == len(set(ids))
    assert {(attributes["href"] or "")[1:] for attributes in page.having("href")} <= set(ids)


def test_only_our_script_may_run(page: Page) -> None:
    policy = next(tag["content"] or "" for name, tag in page.tags if name == "meta" and "http-equiv" in tag)
    script = page.scripts[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert [tag for tag, _ in page.tags].count("script") == 2  # the data and the script
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]


def test_hostile_names_are_text(page: Page) -> None:
    alternatives = {attributes["alt"] for attributes in page.having("alt")}
    assert set(HOSTILE[:5]) & alternatives  # those among the images shown stand there as they are
    shown = "".join(page.text)
    for name in HOSTILE:
        assert f"bad/{name}" in shown
    assert "<i>ellipse</i>" in shown
    data = json.loads(page.scripts[-2])
    assert set(HOSTILE) <= set(data["map"]["names"])


def test_every_cluster_is_shown_with_its_images(run: RunDir, page: Page) -> None:
    summary = json.loads((run.report / "summary.json").read_text(encoding="utf-8"))
    cards = [attributes for tag, attributes in page.tags if tag == "article"]
    assert [attributes["id"] for attributes in cards] == [f"cluster-{row['cluster']}" for row in summary["clusters"]]
    assert len(cards) == summary["k"] == len(set(run.read_clusters()["cluster"].to_pylist()))
    text = " ".join("".join(page.text).split())
    assert f"36 images in {summary['k']} clusters" in text
    assert "6 files were skipped" in text
    assert "2 exact duplicates were set beside their originals" in text
    assert summary["sentence"] in text


def test_noise_is_no_cluster_and_what_a_person_moved_is_no_cover(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=30, clusters="3")
    sizes = np.bincount(read_corrected(run).cluster)
    moved = read_corrected(run).members(1)[:4].tolist()
    append(run, lambda _: changes.move(read_corrected(run), moved, 0))
    append(run, lambda _: changes.mark_noise(read_corrected(run), read_corrected(run).members(2)[:2].tolist()))
    report(run)
    page = read_page(run)
    summary = json.loads((run.report / "summary.json").read_text(encoding="utf-8"))
    text = " ".join("".join(page.text).split())
    assert summary["k"] == 3
    assert "30 images in 3 clusters" in text
    assert "Why 3 clusters" in text
    rows = {row["cluster"]: row for row in summary["clusters"]}
    assert rows[0]["size"] == sizes[0] + 4
    assert rows[0]["prototypes"][0] not in {f"shapes/{number:03d}.png" for number in moved}
    colours = json.loads(page.scripts[-2])["colours"]
    assert colours == [*PALETTE[:3], NOISE]


def test_the_page_of_browse_has_the_same_colours() -> None:
    source = (Path(__file__).parents[1] / "web" / "src" / "colours.ts").read_text(encoding="utf-8")
    assert re.findall(r'"(#[0-9a-f]{6})"', source.split("as const")[0]) == list(PALETTE)
    assert re.findall(r'NOISE_COLOUR = "(#[0-9a-f]{6})"', source) == [NOISE]
    assert "COLOURS[cluster % COLOURS.length]" in source
    assert colours_by_number(23) == [*PALETTE, *PALETTE[:3]]


@pytest.mark.parametrize("why", ["", "learned clusters tell more of an image's neighbours"])
def test_the_report_says_why_this_method_and_what_each_silhouette_is_of(tmp_path: Path, why: str) -> None:
    run = make_run(tmp_path, count=24, clusters="2-4")
    state = run.read_state()
    state["stages"]["cluster"]["facts"] |= {"method": "learned", "why_method": why}
    write_run_json(run.root, state)
    table = records.read_table(run.choose_k)
    values = [
        0.987 if chosen else value
        for chosen, value in zip(table["chosen"].to_pylist(), table["silhouette"].to_pylist(), strict=True)
    ]
    place = table.column_names.index("silhouette")
    report(run)
    same = " ".join("".join(read_page(run).text).split())
    records.write_table(run.choose_k, table.set_column(place, "silhouette", pa.array(values)))
    report(run)
    text = " ".join("".join(read_page(run).text).split())
    assert ("Method learned" in text) == bool(why)
    assert why in text
    assert "compared by the silhouettes of k-means" not in same
    assert "compared by the silhouettes of k-means, 0.987 for the chosen one" in text


def test_summary_agrees_with_the_tables(run: RunDir) -> None:
    summary = json.loads((run.report / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"] == sum(row["size"] for row in summary["clusters"]) == 36
    assert summary["by_status"] == {"duplicate": 2, "ok": 36, "skipped": 6}
    assert summary["evaluation"]["acc"] == pytest.approx(evaluate(run).acc)
    cluster_of = dict(zip(*run.read_clusters(["path", "cluster"]).to_pydict().values(), strict=True))
    for row in summary["clusters"]:
        shown = row["prototypes"] + row["least_sure"]
        assert len(shown) == len(set(shown)) >= min(row["size"], 8)
        assert {cluster_of[path] for path in shown} == {row["cluster"]}
    assert sum(row["copies"] for row in summary["clusters"]) == 2


def test_figures_are_pictures(run: RunDir) -> None:
    for name in ("choose-k", "silhouette", "map", "sizes", "confusion", "neighbours", "prototypes"):
        with Image.open(run.report / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[0] > 150, name
        assert pixels.shape[1] > 300, name
        assert 0.002 < np.mean(pixels < 200) < 0.9, name  # neither blank nor full


@pytest.mark.parametrize("most", [10, 100, 300])
@pytest.mark.parametrize("place", [0.2, 0.9])
@pytest.mark.parametrize("slope", [-0.04, 0.04])
def test_the_curve_does_not_run_through_its_label(place: float, slope: float, most: int) -> None:
    ks = np.unique(np.linspace(2, most, 40).astype(int)).tolist()
    chosen = ks[int(len(ks) * place)]
    rows = [{"k": k, "silhouette": 0.3 + slope * np.log(k), "stability": None} for k in ks]
    with figures.style():
        pixels = drawn(figures.evidence(rows, chosen))
    inside = pixels[72:].astype(int)  # below the headings
    line = int((np.abs(inside - (217, 163, 151)).max(axis=2) < 12).sum(axis=0).argmax())
    accent = np.abs(inside - (180, 71, 47)).max(axis=2) < 40
    accent[:, line - 10 : line + 11] = False  # the dot
    rows_of, columns = np.flatnonzero(accent.any(axis=1)), np.flatnonzero(accent.any(axis=0))
    assert len(columns) > 30
    words = inside[rows_of.min() : rows_of.max() + 1, columns.min() : columns.max() + 1]
    assert not (words.max(axis=2) < 60).any()


def drawn(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("count", [2, 10, 21, 60, 120])
def test_numbers_in_a_scatter_do_not_cover_each_other(count: int) -> None:
    rng = np.random.default_rng(count)
    places = rng.normal(100, 12, (count, 2))
    halves = np.where(np.arange(count)[:, None] < 10, (5.0, 6.0), (8.0, 6.0))
    there = places + figures.apart(places, halves)
    gaps = np.abs(there[:, None] - there[None]) - (halves[:, None] + halves[None])
    covered = (gaps < -1e-9).all(axis=2) & ~np.eye(count, dtype=bool)
    assert not covered.any()
    assert (there[0] == places[0]).all()
    far = np.arange(count)[:, None] * np.array([[100.0, 0.0]])
    assert not figures.apart(far, halves).any()


@pytest.mark.parametrize("count", [2, 10, 21])
def test_a_confusion_matrix_has_its_counts_and_a_scale(count: int) -> None:
    counts = np.eye(count, dtype=np.int64) * 40 + 10
    names = [f"kind {number}" for number in range(count)]
    with figures.style():
        few, many = (drawn(figures.confusion(counts * times, range(count), names)) for times in (1, 5))
    assert few.shape == many.shape
    assert (few != many).any()
    scale = few[:, few.shape[1] - int(0.78 * figures.DPI)]  # a line through the middle of it
    blues = scale[(scale[:, 2].astype(int) - scale[:, 0]) > 40]
    assert len(np.unique(blues, axis=0)) > 20


def test_the_page_can_draw_every_number_looked_at(run: RunDir, page: Page) -> None:
    explorer = json.loads(page.scripts[-2])["explorer"]
    evidence = {row["k"]: row for row in records.read_table(run.choose_k).to_pylist()}
    assert [look["k"] for look in explorer["looks"]] == sorted(evidence)
    for look in explorer["looks"]:
        labels = np.frombuffer(base64.b64decode(look["labels"]), np.uint8)
        silhouettes = np.frombuffer(base64.b64decode(look["silhouettes"]), np.int8) / 127
        assert len(labels) == explorer["n"] == 36
        assert labels.max() < look["k"]
        assert look["mean"] == pytest.approx(evidence[look["k"]]["silhouette"], abs=5e-3)
        assert silhouettes.mean() == pytest.approx(look["mean"], abs=5e-3)


def test_pictures_of_the_map_lie_on_their_sheet(page: Page) -> None:
    data = json.loads(page.scripts[-2])["map"]
    with Image.open(io.BytesIO(base64.b64decode(data["sheet"].split(",")[1]))) as sheet:
        assert sheet.width == data["columns"] * data["tile"]
        assert sheet.height >= -(-data["pictured"] // data["columns"]) * data["tile"]
    assert data["pictured"] == len(data["names"]) == 36


def test_same_run_same_bytes(run: RunDir) -> None:
    before = {path.name: path.read_bytes() for path in (run.root / "report").iterdir()} | {"map": run.map.read_bytes()}
    mapping.run(ClusterConfig.from_json(run.read_state()["asked"]), run, Progress())
    report(run)
    assert before == {path.name: path.read_bytes() for path in (run.root / "report").iterdir()} | {
        "map": run.map.read_bytes()
    }


def test_duplicates_have_their_originals_place(run: RunDir) -> None:
    places = {row["id"]: (row["x"], row["y"]) for row in records.read_table(run.map).to_pylist()}
    assert len(places) == 38
    assert places[42] == places[43] == places[0]


def test_pictures_for_chosen_numbers(run: RunDir) -> None:
    written = build.figures_for_k(run, [3, 5, 99])
    assert [path.name for path in written] == ["silhouette-k00003.png", "silhouette-k00005.png"]
    for path in written:
        with Image.open(path) as image:
            assert image.width > 900
        path.unlink()


def test_three_images_in_two_clusters_without_neighbours(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=3, clusters="2", mined=False)
    report(run)
    text = " ".join("".join(read_page(run).text).split())
    assert "3 images in 2 clusters" in text
    assert not (run.report / "neighbours.png").exists()
    assert not (run.report / "choose-k.png").exists()


def test_clusters_beyond_those_shown_with_images_have_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_PICTURED", 2)
    for name in ("MOST_BLADES", "MOST_BARS", "MOST_NUMBERS"):
        monkeypatch.setattr(figures, name, 2)
    run = make_run(tmp_path, count=24, clusters="5")
    report(run)
    page = read_page(run)
    test_links_lead_somewhere(page)
    summary = json.loads((run.report / "summary.json").read_text(encoding="utf-8"))
    numbers = [f"cluster-{row['cluster']}" for row in summary["clusters"]]
    assert [attributes["id"] for tag, attributes in page.tags if tag == "article"] == numbers[:2]
    assert [attributes["id"] for tag, attributes in page.tags if tag == "tr" and "id" in attributes] == numbers[2:]
    assert "These are the 2 largest of 5 clusters" in " ".join("".join(page.text).split())


@pytest.mark.parametrize(("recall", "is_told"), [(0.983, True), (1.0, False)])
def test_the_recall_of_approximate_neighbours_is_told(tmp_path: Path, recall: float, is_told: bool) -> None:
    run = make_run(tmp_path, count=12, clusters="3")
    state = run.read_state()
    state["stages"]["neighbours"]["facts"] |= {"method": "approximate", "recall": recall}
    state["stages"]["embed"] = {"facts": {"images": 12}}
    write_run_json(run.root, state)
    report(run)
    assert ("98\N{NO-BREAK SPACE}% of the true ones" in "".join(read_page(run).text)) == is_told
    assert json.loads((run.report / "summary.json").read_text(encoding="utf-8"))["neighbour_recall"] == recall
    assert ("98.3 % of the true ones" in cluster_summary(run)) == is_told


@pytest.mark.parametrize("left_out", [{}, {"@eaDir": 1200, "hidden": 1}, None])
def test_folders_that_were_not_looked_into_are_told(tmp_path: Path, left_out: dict[str, int] | None) -> None:
    run = make_run(tmp_path, count=12, clusters="3")
    state = run.read_state()
    state["stages"]["embed"] = {"facts": {"images": 12}}
    if left_out is not None:  # runs of before do not tell
        state["stages"]["index"]["facts"]["left_out"] = left_out
    write_run_json(run.root, state)
    report(run)
    sentence, is_told = "1,201 folders not looked into: 1,200 @eaDir, 1 hidden", bool(left_out)
    assert (sentence in cluster_summary(run).splitlines()) == is_told
    assert (f"{sentence}." in "".join(read_page(run).text)) == is_told
    assert ("not looked into" in cluster_summary(run)) == is_told
    assert json.loads((run.report / "summary.json").read_text(encoding="utf-8"))["left_out"] == (left_out or {})


def test_reasons_that_say_what_to_install_come_first(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=12, clusters="3", skipped=22)
    state = run.read_state()
    state["stages"]["embed"] = {"facts": {"images": 12}}
    write_run_json(run.root, state)
    needs, table = "needs the package s3fs (pip install s3fs)", run.read_images()
    reasons = [None] * 12 + [f"corrupt JPEG ({number % 7})" for number in range(21)] + [needs]
    place = table.schema.get_field_index("reason")
    records.write_table(run.images, table.set_column(place, "reason", pa.array(reasons, pa.string())))
    (line,) = [line for line in cluster_summary(run).splitlines() if "skipped" in line]
    assert line.startswith(f"22 skipped: 1 {needs}; 3 corrupt JPEG (")
    assert line.endswith("; 3 more reasons")


def contents(run: RunDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.root / "report").iterdir()}


def test_a_report_is_the_same_whether_its_pictures_were_kept_or_made(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=24, clusters="3", copies={0: 1}, scale=6)
    report(run)
    made = contents(run)
    report(run)
    assert contents(run) == made
    shutil.rmtree(run.cache)
    findings, pictures = Findings.read(run), Pictures(run)
    for number in range(24):  # the page asked for other sizes before
        pictures.quick(findings.image(number), (384, 96)[number % 2])
    report(run)
    assert contents(run) == made
    shutil.rmtree(run.cache)
    run.cache.write_text("no folder can be made here")
    report(run)
    assert contents(run) == made


def test_a_report_made_once_can_be_made_without_the_source_and_so_can_the_page_s_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=24, clusters="3", scale=6)
    report(run)
    made = contents(run)
    shutil.rmtree(tmp_path / "images")
    report(run)
    assert contents(run) == made
    findings = Findings.read(run)
    for number in range(24):
        assert Pictures(run).quick(findings.image(number), 192).is_sharp


def test_pictures_that_cannot_be_had_are_told_in_their_place_and_at_the_top(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=12, clusters="3", copies={0: 1})
    source = tmp_path / "images"
    source.rename(tmp_path / "moved")
    report(run)
    page = read_page(run)
    text = " ".join("".join(page.text).split())
    assert (
        f"12 of 12 pictures could not be had: the source {source} is not there (shoal relink run SOURCE says where it "
        "is now)."
    ) in text
    assert text.count("picture not available") >= 12
    told = [label for tag in page.having("aria-label") if (label := tag["aria-label"] or "").endswith("available)")]
    paths = set(Findings.read(run).images["path"].to_pylist())
    assert {label.removesuffix(" (picture not available)") for label in told} <= paths
    data = json.loads(page.scripts[-2])["map"]
    assert (data["pictured"], data["named"], len(data["names"])) == (0, 12, 12)
    for name in ("prototypes", "neighbours"):
        with Image.open(run.report / f"{name}.png") as sheet:
            cell = sheet.convert("RGB").crop((150, 28, 246, 124))  # the first one
        assert len(cell.getcolors() or ()) > 8, name  # something is drawn in it


def test_a_few_pictures_that_cannot_be_had_are_told_by_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path, count=12, clusters="3")
    (tmp_path / "images" / "shapes" / "3.png").unlink()
    (tmp_path / "images" / "shapes" / "4.png").unlink()
    draw_image(1, np.random.default_rng(9)).save(tmp_path / "images" / "shapes" / "5.png")
    report(run)
    page = read_page(run)
    assert "3 of 12 pictures could not be had: gone from the source (2); changed since clustering (1)." in " ".join(
        "".join(page.text).split()
    )
    data = json.loads(page.scripts[-2])["map"]
    assert (data["pictured"], data["named"]) == (9, 12)
    assert data["names"][9:] == ["shapes/003.png", "shapes/004.png", "shapes/005.png"]


def test_an_evaluation_of_other_clusters_is_not_shown(run: RunDir, tmp_path: Path) -> None:
    stale = make_run(tmp_path, count=12, clusters="3")
    (stale.root / "report").mkdir()
    stale.evaluation.write_bytes(run.evaluation.read_bytes())
    assert Findings.read(stale).evaluation is None
    assert Findings.read(run).evaluation is not None


def test_euclidean_runs_have_euclidean_silhouettes(tmp_path: Path) -> None:
    from sklearn.metrics import silhouette_score

    run = make_run(tmp_path, count=24, clusters="2-4")
    config = ClusterConfig(source=("shapes",), clusters="2-4", metric="euclidean")
    state = run.read_state()
    state["asked"] = config.to_json()
    state["stages"]["cluster"]["facts"] = shoal.cluster.stage.run(config, run, Progress()).facts
    write_run_json(run.root, state)
    findings = Findings.read(run)
    assert findings.metric == "euclidean"
    for look in Explorer.of(findings).looks():
        expected = silhouette_score(findings.points.astype(np.float64), look.labels)
        assert look.mean == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [-0.02, 0.0, 0.4], [0.123, 0.1231, 0.1229]])
def test_the_curve_stays_within_its_panel(values: list[float]) -> None:
    rows = [{"k": k, "silhouette": value, "stability": None} for k, value in enumerate(values, start=2)]
    heights = [float(y) for y in re.findall(r'cy="([-\d.]+)"', charts.evidence(rows, chosen=3))]
    assert len(heights) == 3
    assert all(charts.TOP <= y <= charts.TOP + charts.CURVE_HEIGHT for y in heights)
    assert sorted(heights, reverse=True) == [heights[place] for place in np.argsort(values, kind="stable")]
