"""Manifests as people's programs write them: each names photos that lie beside it."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafted import run_index
from messy import encode, picture
from shoal.errors import NoImagesError, ShoalError
from shoal.images import catalogue
from shoal.images.item import Item
from shoal.images.listed import Listed
from shoal.images.reading import ImageReader
from shoal.images.sources import open_source

NAMES = [f"é{number}.jpg" for number in range(3)]  # composed, as Windows and Linux write them
ENDS = ("\r", "\n", "\r\n")
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows reads backslashes and drives by itself")


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos in `bilder`, their names taken apart, as macOS copies them."""
    for number, name in enumerate(NAMES):
        put(tmp_path / "bilder" / nfd(name), number)
    return tmp_path


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(picture(seed), "JPEG"))
    return path


def items_of(manifest: Path, text: str | bytes) -> list[Item]:
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(open_source((str(manifest),)).listed().items())


def problems(manifest: Path, text: str | bytes) -> list[str | None]:
    return [item.problem for item in items_of(manifest, text)]


WAYS = {
    "plain": "path\n" + "".join(f"bilder/{nfd(name)}\n" for name in NAMES),
    "composed": "path\n" + "".join(f"bilder/{name}\n" for name in NAMES),
    "Windows-1252": ("path\n" + "".join(f"bilder/{name}\n" for name in NAMES)).encode("cp1252"),
    "command line of Windows": ("path\r\n" + "".join(f"bilder\\{name}\r\n" for name in NAMES)).encode("cp850"),
    "backslashes": "path\n" + "".join(f"bilder\\{nfd(name)}\n" for name in NAMES),
    "backslashes, composed": "path\n" + "".join(f".\\bilder\\{name}\n" for name in NAMES),
    "blanks": "path,label\n" + "".join(f"  bilder/{name} \t,x\n" for name in NAMES),
    "quotes in quotes": "path\n" + "".join(f'"""bilder/{name}"""\n' for name in NAMES),
    "single quotes": "path\n" + "".join(f"'bilder/{name}'\n" for name in NAMES),
    "marks that cannot be seen": "path\n" + "".join(f"\u202abilder/{name}\u200b\n" for name in NAMES),
    "mixed line endings": "path\r\n" + "".join(f"bilder/{name}{end}" for name, end in zip(NAMES, ENDS, strict=True)),
    "as Excel writes separators": "sep=;\r\nlabel;path\r\n" + "".join(f"a,b;bilder/{name}\r\n" for name in NAMES),
    "file: relative": "path\n" + "".join(f"file:bilder/{name}\n" for name in NAMES),
}


@posix_only
@pytest.mark.parametrize("way", WAYS)
def test_a_table_finds_its_photos(folder: Path, way: str) -> None:
    items = items_of(folder / "list.csv", WAYS[way])
    assert [item.problem for item in items] == [None] * 3
    assert [item.path for item in items] == [f"bilder/{nfd(name)}" for name in NAMES]
    assert [ImageReader().read(item.uri) for item in items] == [
        (folder / "bilder" / nfd(name)).read_bytes() for name in NAMES
    ]


LINES = {
    "blanks and quotes": "".join(f'"bilder/{nfd(name)}"  \n' for name in NAMES),
    "comments and empty lines": "# made by hand\n\n"
    + "".join(f"bilder/{name}\n  \n" for name in NAMES)
    + "#bilder/x\n",
    "mixed line endings": "\n".join(f"bilder/{name}\r" for name in NAMES[:2]) + "\rbilder/é2.jpg",
    "two files joined": "\ufeffbilder/é0.jpg\n\ufeffbilder/é1.jpg\nbilder/é2.jpg",
    "end of file of DOS": "".join(f"bilder\\{name}\r\n" for name in NAMES) + "\x1a",
}


@posix_only
@pytest.mark.parametrize("way", LINES)
def test_a_list_finds_its_photos(folder: Path, way: str) -> None:
    items = items_of(folder / "list.txt", LINES[way])
    assert [(item.path, item.problem) for item in items] == [(f"bilder/{nfd(name)}", None) for name in NAMES]


@posix_only
def test_absolute_uris_of_files(folder: Path) -> None:
    photo = put(folder / "50% off.jpg")
    uris = [f"file://{photo}", f"FILE://localhost{photo}", f"file:{photo}", photo.as_uri(), str(photo)]
    assert problems(folder / "list.txt", "\n".join(uris)) == [None] * len(uris)
    assert problems(folder / "list.txt", b"file:///caf\xe9.jpg\n") == ["no such file"]


@posix_only
def test_what_lies_there_as_it_is_written_comes_first(tmp_path: Path) -> None:
    odd = [" a.jpg", "a.jpg", "b\\c.jpg", "b/c.jpg", "'q'.jpg", "#1.jpg", nfd("é.jpg"), "é.jpg"]
    for number, name in enumerate(odd):
        put(tmp_path / name, number)
    items = items_of(tmp_path / "list.txt", "\n".join(odd))
    assert [item.path for item in items] == odd
    assert len({ImageReader().read(item.uri) for item in items}) == len(
        {(tmp_path / name).stat().st_ino for name in odd}
    )


def test_folders_may_be_in_another_form_than_files(tmp_path: Path) -> None:
    put(tmp_path / "Bücher" / nfd("Häuser") / "é.jpg")
    written = [f"{nfd('Bücher')}/Häuser/{nfd('é.jpg')}", str(tmp_path / nfd("Bücher") / "Häuser" / "é.jpg")]
    assert problems(tmp_path / "list.txt", "\n".join(written)) == [None, None]
    assert problems(tmp_path / "list.txt", "Bücher/è.jpg\nBücher/" + "é/" * 300) == ["no such file"] * 2


def test_labels_are_read_in_the_same_encoding(folder: Path) -> None:
    text = "path,label\nbilder/é0.jpg,Café\n"
    for encoding in ("utf-8", "cp1252", "utf-16"):
        assert [item.label for item in items_of(folder / "list.csv", text.encode(encoding))] == ["Café"]


@posix_only
def test_places_of_windows_are_said_to_be_such(tmp_path: Path) -> None:
    lines = [
        "C:\\pics\\a.jpg",
        "c:/pics/a.jpg",
        "file:///C:/pics/a.jpg",
        "\\\\server\\share\\a.jpg",
        "file://server/a.jpg",
    ]
    assert problems(tmp_path / "list.txt", "\n".join(lines)) == [
        *["no such file (a drive of Windows)"] * 3,
        *["no such file (on another machine)"] * 2,
    ]


def test_uris_are_tidied_too(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path / "list.txt", ' "https://example.org/a b.jpg" \r\n')
    assert (item.path, item.uri) == ("https://example.org/a b.jpg",) * 2


def test_a_manifest_elsewhere_is_read_alike(bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/bucket/set/bilder/é.jpg", encode(picture(1), "JPEG"))
    for text in ('"bilder\\é.jpg" \r\n# comment\r\n'.encode(), "bilder/é.jpg\r".encode("cp1252")):
        bucket.pipe("/bucket/set/list.txt", text)
        (item,) = open_source(("memory://bucket/set/list.txt",)).listed().items()
        assert (item.path, len(ImageReader().read(item.uri)) > 0) == ("bilder/é.jpg", True)


# -- what is said ----------------------------------------------------------------------------------------------------


def test_where_nothing_is_found_the_first_path_and_its_folder_are_named(folder: Path) -> None:
    (folder / "list.csv").write_text("path\n" + "".join(f"elsewhere/{name}\n" for name in NAMES), encoding="utf-8")
    message = f"list.csv: 3 files, 3 skipped: no such file; the first, elsewhere/é0.jpg, was looked for in {folder}"
    with pytest.raises(NoImagesError) as caught:
        run_index(folder / "run", folder / "list.csv")
    assert str(caught.value).endswith(message)
    (folder / "list.txt").write_text("C:\\a.jpg\n", encoding="utf-8")
    if os.name != "nt":
        with pytest.raises(NoImagesError, match=r"1 skipped: no such file \(a drive of Windows\); the first is C:/a"):
            run_index(folder / "run2", folder / "list.txt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "path\n", "list.csv: it lists no file"),
        ("list.csv", "a.jpg\nb.jpg\n", "has the columns a.jpg; .*; a list without a line of names belongs into a .txt"),
        ("list.csv", "", "list.csv is empty; expected a column called path, "),
        ("list.txt", "/no/where.jpg\n", "1 skipped: no such file; the first is /no/where.jpg$"),
    ],
)
def test_lists_without_images_say_so(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ShoalError, match=message):
        run_index(tmp_path / "run", tmp_path / name)


def test_so_they_are_in_storage_elsewhere(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    bucket.pipe("/bucket/set/list.txt", b"gone/a.jpg\n")
    with pytest.raises(NoImagesError, match=r"the first, gone/a.jpg, was looked for in memory:///?bucket/set"):
        run_index(tmp_path / "run", "memory://bucket/set/list.txt")


def test_what_a_missing_package_is_called_is_kept() -> None:
    needs = "needs the package s3fs (pip install s3fs)"
    reasons = pa.array([needs] * 2 + [f"not an image (.{number})" for number in range(4)] + [None])
    assert catalogue.reasons(reasons) == {"not an image": 4, needs: 2}


# -- whatever it holds -----------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from([b"", b"path\n", b"sep=;\npath\n"]), st.sampled_from(["txt", "csv"]))
def test_no_bytes_make_a_manifest_crash(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes, kind: str
) -> None:
    file = tmp_path_factory.getbasetemp() / f"any.{kind}"
    file.write_bytes(head + data)
    try:
        items = list(open_source((str(file),)).listed().items())
    except ShoalError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all((item.path.encode() and item.uri.isascii()) or "://" in item.path for item in items)


def test_a_folder_is_listed_once_however_many_names_are_written_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        put(tmp_path / nfd(f"é{number}.jpg"))
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    found = items_of(tmp_path / "list.txt", "".join(f"é{number}.jpg\nö{number}.jpg\n" for number in range(50)))
    assert [item.problem for item in found] == [None, "no such file"] * 50
    assert len(listed) <= 1  # none where the file system does not tell the forms apart


def test_many_equal_paths_are_numbered_in_linear_time() -> None:
    names = [*(f"a#{number}" for number in range(2, 20_000)), *["a"] * 20_000]
    began = time.process_time()
    assert len(set(Listed.of(Item(name, "") for name in names).with_distinct_paths().paths.to_pylist())) == len(names)
    assert time.process_time() - began < 5
