"""Sources: what is listed, in which order, under which names; and what is refused."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messy import OK, encode, make_messy_folder, picture
from patience import PATIENCE
from shoal.errors import DecodeError, SourceError
from shoal.images import location
from shoal.images.item import Item
from shoal.images.listed import Listed
from shoal.images.reading import ImageReader
from shoal.images.sources import Source, open_source

posix_only = pytest.mark.skipif(os.name == "nt", reason="links and FIFOs are not for everyone there")


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(picture(seed), "JPEG"))
    return path


def paths(source: Source) -> list[str]:
    return [item.path for item in source.listed().items()]


def labels(source: Source) -> dict[str, str | None]:
    return {item.path: item.label for item in source.listed().items()}


def open_path(*specs: str | Path) -> Source:
    return open_source(tuple(map(str, specs)))


# -- folders ---------------------------------------------------------------------------------------------------------


def test_a_messy_folder_is_listed_whole(tmp_path: Path) -> None:
    expected = make_messy_folder(tmp_path / "messy")
    source = open_path(tmp_path / "messy")
    items = list(source.listed().items())
    assert [item.path for item in items] == sorted(expected)
    known = ("link", "FIFO", "too large")
    for item in items:
        outcome = expected[item.path]
        if any(word in outcome for word in known):
            assert item.problem is not None
            assert outcome in item.problem
        elif outcome == OK:
            assert item.problem is None
            assert item.size_bytes == len(ImageReader().read(item.uri))


def test_the_order_is_that_of_the_bytes_of_paths(tmp_path: Path) -> None:
    for name in ("b.jpg", "B.jpg", "a/z.jpg", "a-b.jpg", "é.jpg", "猫.jpg", "🐟.jpg", "\uff21.jpg"):
        put(tmp_path / name)
    found = paths(open_path(tmp_path))
    assert found == sorted(found, key=lambda path: path.encode())
    assert len(found) == 8


def test_the_same_folder_has_one_identity_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "photos" / "a.jpg")
    put(tmp_path / "other" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    ways = ["photos", "./photos/", "other/../photos", str(tmp_path / "photos"), (tmp_path / "photos").as_uri()]
    sources = [open_path(way) for way in ways]
    assert len({source.identity for source in sources}) == 1
    assert {source.name for source in sources} == {"photos"}
    assert open_path("other").identity != sources[0].identity
    monkeypatch.chdir(tmp_path / "photos")
    assert (open_path(".").identity, open_path(".").name) == (sources[0].identity, "photos")
    assert open_path("~").identity == open_path(Path.home()).identity


@posix_only
def test_a_folder_is_listed_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    put(tmp_path / "z-real" / "a.jpg")
    for number in range(8):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        for other in range(8):
            (folder / f"to{other}").symlink_to(tmp_path / f"folder{other}", target_is_directory=True)
    (tmp_path / "a-link").symlink_to("z-real", target_is_directory=True)
    items = {item.path: item.problem for item in open_path(tmp_path).listed().items()}
    assert [path for path, problem in items.items() if problem is None] == ["z-real/a.jpg"]
    assert "listed already" in (items["a-link"] or "")
    assert "link loop" in (items["folder3/to3"] or "")
    assert len(items) == 2 + 64


@posix_only
def test_a_link_up_and_out_of_the_source_is_a_loop(tmp_path: Path) -> None:
    put(tmp_path / "beside.jpg")
    put(tmp_path / "source" / "a.jpg")
    (tmp_path / "source" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert paths(open_path(tmp_path / "source")) == ["a.jpg", "up"]


def test_runs_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "x.shoal" / "report" / "figure.jpg")
    (tmp_path / "x.shoal" / "run.json").write_text('{"format_version": 1}')
    put(tmp_path / "no-run" / "b.jpg")
    (tmp_path / "no-run" / "run.json").write_text("[1, 2]")
    put(tmp_path / ".cache" / "c.jpg")
    assert paths(open_path(tmp_path)) == ["a.jpg", "no-run/b.jpg", "no-run/run.json"]
    with pytest.raises(SourceError, match="is a Shoal run"):
        open_path(tmp_path / "x.shoal")


def test_folder_names_are_labels_only_in_a_tree_of_classes(tmp_path: Path) -> None:
    put(tmp_path / "tree" / "cat" / "1.jpg")
    put(tmp_path / "tree" / "dog" / "1.jpg")
    (tmp_path / "tree" / "README.md").write_text("cats and dogs")
    assert labels(open_path(tmp_path / "tree")) == {"README.md": None, "cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    put(tmp_path / "tree" / "dog" / "more" / "2.jpg")
    assert set(labels(open_path(tmp_path / "tree")).values()) == {None}
    put(tmp_path / "one" / "cat" / "1.jpg")
    assert labels(open_path(tmp_path / "one")) == {"cat/1.jpg": None}
    put(tmp_path / "loose" / "cat" / "1.jpg")
    put(tmp_path / "loose" / "dog" / "1.jpg")
    put(tmp_path / "loose" / "0.jpg")
    assert set(labels(open_path(tmp_path / "loose")).values()) == {None}


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are Unicode there")
def test_names_that_are_not_utf8_do_not_collide(tmp_path: Path) -> None:
    for raw in (b"caf\xe9.jpg", b"caf%E9.jpg", b"caf\xff.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).write_bytes(encode(picture(len(raw)), "JPEG") + raw)
    items = list(open_path(tmp_path).listed().items())
    assert [item.path for item in items] == ["caf%E9.jpg", "caf%E9.jpg#2", "caf%FF.jpg"]
    assert len({ImageReader().read(item.uri) for item in items}) == 3


def test_a_listing_with_errors_from_the_system_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "good" / "a.jpg")
    put(tmp_path / "closed" / "b.jpg")
    scandir = os.scandir

    def refusing(folder: str) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)  # as root there is no other way to be refused
    problems = {item.path: item.problem for item in open_path(tmp_path).listed().items()}
    assert problems == {"closed": "cannot be read (folder: Permission denied)", "good/a.jpg": None}
    with pytest.raises(SourceError, match="Permission denied"):
        list(open_path(tmp_path / "closed").listed().items())


# -- files and patterns ----------------------------------------------------------------------------------------------


def test_files_are_named_from_their_common_folder(tmp_path: Path) -> None:
    files = [put(tmp_path / "set" / name) for name in ("b.jpg", "x/a.jpg")]
    source = open_path(*files)
    assert paths(source) == ["b.jpg", "x/a.jpg"]
    assert source.name == "set"
    assert open_path(*reversed(files)).identity == source.identity
    # What a shell makes of photos/*.jpg goes on being the same source when a photo is added.
    assert open_path(*files, put(tmp_path / "set" / "c.jpg")).identity == source.identity
    assert open_path(tmp_path / "set").identity != source.identity
    single = open_path(files[0])
    assert (paths(single), single.name) == (["b.jpg"], "b")
    both = open_path(tmp_path / "set", files[1])
    assert paths(both) == ["set/b.jpg", "set/c.jpg", "set/x/a.jpg"]


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a1.jpg", "a2.jpg", "b.png", "deep/a3.jpg"):
        put(tmp_path / "set" / name)
    assert paths(open_path(tmp_path / "set" / "a*.jpg")) == ["a1.jpg", "a2.jpg"]
    source = open_path(tmp_path / "set" / "**" / "a*.jpg")
    assert (paths(source), source.name) == (["a1.jpg", "a2.jpg", "deep/a3.jpg"], "set")
    monkeypatch.chdir(tmp_path)
    assert open_path("set/**/a*.jpg").identity == source.identity
    assert open_path("set/*.jpg").identity != source.identity
    put(tmp_path / "photos [2024]" / "a.jpg")
    assert paths(open_path("photos [2024]")) == ["a.jpg"]


@posix_only
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("*.tiff", "matches no file"),
        ("paper.pdf", "paper.pdf cannot be a source: not an image"),
        ("pipe", "FIFO"),
        ("dangling", "dangling link"),
        ("broken.parquet", "cannot be read as Parquet"),
        ("columns.csv", "columns.csv has the columns a, b; expected one called path"),
        ("nonsense://x/y", "the protocol 'nonsense' is not read; expected one of file, s3"),
        ("", "SOURCE is empty"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    (tmp_path / "dangling").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r".") as caught:
        list(open_path(spec).listed().items())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# -- manifests -------------------------------------------------------------------------------------------------------


def test_a_text_manifest_is_relative_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "lists" / "images" / "b.jpg")
    absolute = put(tmp_path / "elsewhere" / "a b.jpg")
    lines = ["images/b.jpg", "./images/../images/b.jpg", str(absolute), "", absolute.as_uri(), "gone.jpg", "images"]
    (tmp_path / "lists" / "all.txt").write_bytes("\r\n".join(lines).encode())
    monkeypatch.chdir(tmp_path)
    source = open_path("lists/all.txt")
    items = list(source.listed().items())
    shown = location.display_path(str(absolute))
    assert [item.path for item in items] == [
        "images/b.jpg",
        "images/b.jpg#2",
        shown,
        f"{shown}#2",
        "gone.jpg",
        "images",
    ]
    assert [item.problem for item in items] == [None] * 4 + ["no such file", "a folder, not a file"]
    assert source.name == "all"


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("column", ["path", "URI", "file", "filename", "image_path", "filepath", "Image_URL", "image"])
def test_table_manifests(tmp_path: Path, ending: str, column: str) -> None:
    put(tmp_path / "a, 1.jpg")
    rows = [("a, 1.jpg", "cat"), ("gone.jpg", "")]
    path = tmp_path / f"list.{ending}"
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"n": [1, 2], column: [row[0] for row in rows], "label": [r[1] for r in rows]}), path)
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter="\t" if ending == "tsv" else ",").writerows(
                [("n", column, "label"), *((1, *row) for row in rows)]
            )
    items = list(open_path(path).listed().items())
    assert [(item.path, item.label, item.problem) for item in items] == [
        ("a, 1.jpg", "cat", None),
        ("gone.jpg", None, "no such file"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_save_them(tmp_path: Path, delimiter: str, encoding: str) -> None:
    put(tmp_path / "ä; 1, 2.jpg")
    rows = [f"label{delimiter}path", f'cat{delimiter}"ä; 1, 2.jpg"', f"{delimiter}gone.jpg"]
    (tmp_path / "list.csv").write_bytes("\r\n".join(rows).encode(encoding))
    items = list(open_path(tmp_path / "list.csv").listed().items())
    assert [(item.path, item.label, item.problem) for item in items] == [
        ("ä; 1, 2.jpg", "cat", None),
        ("gone.jpg", None, "no such file"),
    ]


def test_a_list_as_powershell_saves_it(tmp_path: Path) -> None:
    image = put(tmp_path / "ä.jpg")
    (tmp_path / "list.txt").write_bytes(f"ä.jpg\r\n{image}\r\n".encode("utf-16"))
    assert [item.problem for item in open_path(tmp_path / "list.txt").listed().items()] == [None, None]


def test_a_manifest_of_uris_and_nonsense(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"memory://bucket/a.jpg\nnul\0byte.jpg\n" + b"x" * 5000 + b"\ncaf\xe9.jpg\n")
    items = list(open_path(tmp_path / "list.txt").listed().items())
    assert items[0] == Item("memory://bucket/a.jpg", "memory://bucket/a.jpg")
    assert items[1].problem == "not a possible path"
    assert (items[2].problem or "").startswith("cannot be read")
    assert all(item.path.encode() for item in items)


# -- items, locations, reading ---------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3"]), max_size=12))
def test_distinct_paths_are_distinct_and_first_ones_are_kept(names: list[str]) -> None:
    items = [Item(name, f"memory://{number}") for number, name in enumerate(names)]
    distinct = Listed.of(items).with_distinct_paths().paths.to_pylist()
    assert len(set(distinct)) == len(names)
    if len(set(names)) == len(names):
        assert distinct == names
    # What comes later never renames what came before.
    before = Listed.of(items[:-1]).with_distinct_paths().paths.to_pylist()
    assert before == distinct[: max(0, len(names) - 1)]


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_file_uris_keep_every_byte(raw: bytes) -> None:
    path = b"/" + raw.lstrip(b"/")
    uri = location.uri_from_path(path, windows=False)
    assert uri.isascii()
    assert location.split_fragment(uri) == (uri, {})
    assert location.path_from_uri(uri, windows=False) == path


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (b"C:/Users/A B/x.jpg", "file:///C:/Users/A%20B/x.jpg"),
        (b"//server/share/x#1.jpg", "file://server/share/x%231.jpg"),
    ],
)
def test_windows_paths(path: bytes, uri: str) -> None:
    assert location.uri_from_path(path, windows=True) == uri
    assert location.path_from_uri(uri, windows=True) == path


@posix_only
def test_reading_says_why_not(tmp_path: Path) -> None:
    reader = ImageReader()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "note.txt").write_text("note")
    for name, reason in (
        ("gone", "gone before it was read"),
        ("folder", "a folder"),
        ("pipe", "FIFO"),
        ("note.txt", "not an image"),
    ):
        with pytest.raises(DecodeError, match=reason):
            reader.read(location.file_uri(str(tmp_path / name)))
    with pytest.raises(DecodeError, match="the protocol 'nonsense' is not read"):
        reader.read("nonsense://x")
    if Path("/dev/zero").exists():
        with pytest.raises(DecodeError, match="device"):
            reader.read("file:///dev/zero")


def test_a_file_that_grows_is_read_as_far_as_it_was(tmp_path: Path) -> None:
    path = put(tmp_path / "grows.jpg")
    whole = path.read_bytes()
    grows, stop = threading.Event(), threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.is_set() and file.tell() < 2**26:
                file.write(b"x" * 4096)
                file.flush()
                grows.set()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        assert grows.wait(PATIENCE)
        for _ in range(20):
            assert ImageReader().read(location.file_uri(str(path))).startswith(whole)
    finally:
        stop.set()
        thread.join()
