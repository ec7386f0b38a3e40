"""Folders that are not looked into: which, wherever a source lies, and that they are named with how many there are."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest

from drafted import run_index
from messy import encode, picture
from shoal.errors import NoImagesError
from shoal.images import left_out
from shoal.images.left_out import LeftOut, counted, first_left_out, left_out_as, told
from shoal.images.sources import open_source

IMAGE = encode(picture(1), "JPEG")
MADE_BY_SYSTEMS = {  # folder → its kind
    "@eaDir": "@eaDir",
    "deep/er/@eaDir": "@eaDir",
    ".thumbnails": ".thumbnails",
    "__MACOSX": "__MACOSX",
    "__macosx": "__MACOSX",
    "#recycle": "#recycle",
    "$RECYCLE.BIN": "$RECYCLE.BIN",
    "$Recycle.Bin": "$RECYCLE.BIN",
    "System Volume Information": "System Volume Information",
    "lost+found": "lost+found",
    ".Trash-1000": ".Trash-*",
    "@Recycle": "@Recycle",
    "#snapshot": "#snapshot",
    ".@__thumb": ".@__thumb",
    ".AppleDouble": ".AppleDouble",
    ".picasaoriginals": ".picasaoriginals",
    "Wedding Previews.lrdata": "*.lrdata",
    "Wedding Smart Previews.lrdata": "*.lrdata",
    "Berlin.photoslibrary/resources": "resources of *.photoslibrary",
    "Rome.photoslibrary/resources": "resources of *.photoslibrary",
    "iPhoto Library/Thumbnails": "Thumbnails of iPhoto Library",
    "CaptureOne/Cache": "Cache of CaptureOne",
    "iPod Photo Cache": "iPod Photo Cache",
    "node_modules": "node_modules",
    ".git": ".git",
    ".secret": "hidden",
    ".other": "hidden",
}
A_PERSONS_OWN = (
    *("@friend", "trash", "recycle", "thumbs", "cache", "previews", "resources", "snapshot", "#1", "$", "~"),
    *("Berlin.photoslibrary/originals/0", "iPhoto Library/Masters/2012", "CaptureOne/Output", "Data"),
)


def fill(folder: Path) -> Path:
    """An image in each kind of folder, and in each folder of a person's own."""
    for name in (*MADE_BY_SYSTEMS, *A_PERSONS_OWN):
        put(folder / name / "sub" / "a.jpg")
    return folder


def put(path: Path, seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(picture(seed), "JPEG"))
    return path


def listed(*specs: str | Path) -> tuple[set[str], dict[str, int]]:
    """The paths of a source, and how many folders of each kind it leaves out."""
    found: LeftOut = {}
    paths = {item.path for item in open_source(tuple(map(str, specs))).listed(found).items()}
    return paths, counted(found)


def of_kind(folder: Path) -> dict[str, int]:
    """What is to be left out of `fill`, as the file system tells names apart."""
    there = {(folder / name).stat().st_ino: kind for name, kind in MADE_BY_SYSTEMS.items()}
    return counted({str(number): kind for number, kind in there.items()})


OWN = {f"{name}/sub/a.jpg" for name in A_PERSONS_OWN}


def test_a_folder_without_those_of_systems(tmp_path: Path) -> None:
    assert listed(fill(tmp_path / "nas")) == (OWN, of_kind(tmp_path / "nas"))


def test_a_network_disk_with_thumbnails_has_its_photos_only(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / f"{number}.jpg", number)
        put(tmp_path / "@eaDir" / f"{number}.jpg" / "SYNOPHOTO_THUMB_M.jpg", 100 + number)
        put(tmp_path / ".thumbnails" / f"{number}.jpg", 200 + number)
        put(tmp_path / "__MACOSX" / f"{number}.jpg", 300 + number)
    photos = {f"{number}.jpg" for number in range(20)}
    assert listed(tmp_path) == (photos, {".thumbnails": 1, "@eaDir": 1, "__MACOSX": 1})
    # A shell's * gives the folders of systems too, and so do patterns; hidden ones neither.
    given = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert listed(*given) == (photos, {"@eaDir": 1, "__MACOSX": 1})
    for pattern in ("*", "**/*.jpg"):
        assert listed(tmp_path / pattern) == (photos, {"@eaDir": 1, "__MACOSX": 1})


def test_who_names_a_folder_gets_it(tmp_path: Path) -> None:
    put(tmp_path / "@eaDir" / "a.jpg")
    put(tmp_path / ".hidden" / "b.jpg", 2)
    assert listed(tmp_path / "@eaDir") == ({"a.jpg"}, {})
    assert listed(tmp_path / "@eaDir" / "*.jpg") == ({"a.jpg"}, {})
    put(tmp_path / "c.jpg", 3)
    assert listed(tmp_path / ".hidden", tmp_path / "c.jpg") == ({".hidden/b.jpg", "c.jpg"}, {})
    (tmp_path / "list.txt").write_text("@eaDir/a.jpg\n")
    assert listed(tmp_path / "list.txt") == ({"@eaDir/a.jpg"}, {})


def test_a_library_itself_may_be_the_source(tmp_path: Path) -> None:
    library = tmp_path / "Photos.photoslibrary"
    put(library / "originals" / "a.jpg")
    put(library / "resources" / "derivatives" / "a.jpg")
    assert listed(library) == ({"originals/a.jpg"}, {"resources of *.photoslibrary": 1})


def test_objects_elsewhere(tmp_path: Path, bucket: fsspec.AbstractFileSystem) -> None:
    fill(tmp_path / "nas")
    for path in (tmp_path / "nas").rglob("*.jpg"):
        bucket.pipe(f"/bucket/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    assert listed("memory://bucket/nas") == (OWN, of_kind(tmp_path / "nas"))


@pytest.mark.parametrize("prefix", ["", "./"])
def test_members_of_a_tar(tmp_path: Path, prefix: str) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(fill(tmp_path / "nas"), prefix or ".")
    assert listed(tmp_path / "all.tar") == (OWN, of_kind(tmp_path / "nas"))


def test_members_of_a_zip(tmp_path: Path, bucket: fsspec.AbstractFileSystem) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a.jpg", "sub/b.jpg", "__MACOSX/sub/._b.jpg", "__MACOSX/c.jpg", "sub/@eaDir/b.jpg/S.jpg"):
            archive.writestr(name, IMAGE)
    bucket.pipe("/bucket/a.zip", packed.getvalue())
    assert listed("zip://::memory://bucket/a.zip") == ({"a.jpg", "sub/b.jpg"}, {"@eaDir": 1, "__MACOSX": 1})


def test_thumbnails_beside_shards_do_not_make_them_images(tmp_path: Path) -> None:
    put(tmp_path / "photo.jpg")
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            archive.add(tmp_path / "photo.jpg", "a.jpg")
    (tmp_path / "photo.jpg").unlink()
    put(tmp_path / "@eaDir" / "0.tar" / "SYNOPHOTO_THUMB_M.jpg")
    assert listed(tmp_path)[0] == {"0/a.jpg", "1/a.jpg"}


def test_the_parts_of_a_path_that_lead_nowhere_are_no_names() -> None:
    assert first_left_out(["", ".", "..", "a"]) is None
    assert first_left_out(["..", "@eaDir", "b"]) == (2, "@eaDir")
    assert left_out_as("@EADIR") == "@eaDir"
    assert left_out_as("resources") is None


def test_the_index_tells_how_many_of_each_kind(tmp_path: Path) -> None:
    fill(tmp_path / "nas")
    facts = run_index(tmp_path / "run", tmp_path / "nas").facts
    assert facts[left_out.FACT] == of_kind(tmp_path / "nas")
    put(tmp_path / "none" / "@eaDir" / "a.jpg")
    with pytest.raises(NoImagesError, match=r"it holds no file; 1 folder not looked into: 1 @eaDir$"):
        run_index(tmp_path / "run2", tmp_path / "none")


def test_what_is_told_fits_a_line() -> None:
    assert told({}) == ""
    assert told({"@eaDir": 1}) == "1 folder not looked into: 1 @eaDir"
    kinds = counted({str(number): f"kind{number % 7}" for number in range(7000)})
    assert told(kinds).startswith("7,000 folders not looked into: 1,000 kind0, ")
    assert told(kinds).endswith("1,000 kind4, 2 more kinds")


def test_what_shoal_itself_writes_among_images_is_no_image_that_was_skipped(tmp_path: Path) -> None:
    for name in (".shoal-export.jsonl", ".shoal-moves.jsonl", f".{'0' * 32}.12345678.shoal-part"):
        (put(tmp_path / "sorted" / "a.jpg").parent / name).write_bytes(b"{}")
    assert open_source([str(tmp_path / "sorted")]).listed().paths.to_pylist() == ["a.jpg"]
