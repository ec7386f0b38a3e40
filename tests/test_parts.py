"""embeddings/ as it is written: resumed, grown, shrunk; always the same bytes for the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import draft as drafts
from shoal import embeddings
from shoal.embed import parts
from shoal.embed.batches import EmbeddedBatch, Failure
from shoal.embed.parts import PartsWriter
from shoal.embeddings import PART_ROWS, EmbeddingStore, part_count, part_of, part_range
from shoal.encoder.spec import EncoderSpec
from shoal.rundir import RunDir, StageResult

DIM = 3


def spec(**changes: object) -> EncoderSpec:
    values: dict[str, object] = {
        "backbone": "b",
        "architecture": "a",
        "features": "default",
        "weights_sha256": "0" * 64,
        "weights_source": "file",
        "licence": "unknown",
        "dim": DIM,
        "size": 8,
        "crop_fraction": 1.0,
        "interpolation": "bicubic",
        "resize": "crop",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return EncoderSpec(**{**values, **changes})  # type: ignore[arg-type]


NOTE = "12 bits in 16, told by the brightest value"


def features_of(image: int, sha256: str) -> list[float]:
    return [float(image % 100), float(len(sha256)), 1.0]


def embed(
    folder: Path, wanted: dict[int, str], rows: int, *, bad: dict[int, Failure] | None = None, stop_after: int = -1
):
    """Do what the stage does; `stop_after` batches the process "dies". Returns (digest, ids that were embedded)."""
    return fill(PartsWriter.open(RunDir(folder), rows, spec()), wanted, bad or {}, stop_after)


def fill(writer: PartsWriter, wanted: dict[int, str], failures: dict[int, Failure], stop_after: int):
    missing = plan(writer, wanted)
    done = []
    for count, start in enumerate(_cuts(missing)):
        if count == stop_after:
            return None, done
        ids = start
        values = np.array([features_of(i, wanted[i]) if i not in failures else [0.0] * DIM for i in ids], np.float32)
        failed = {i: failures[i] for i in ids if i in failures}
        writer.add(EmbeddedBatch(ids, values, failed, {i: NOTE for i in ids if i == 4}))
        done += ids
    return writer.finish(), done


def plan(writer: PartsWriter, wanted: dict[int, str]) -> list[int]:
    return writer.plan(
        np.array(sorted(wanted), np.int64), pa.array([wanted[image] for image in sorted(wanted)])
    ).tolist()


def _cuts(missing: list[int], size: int = 100) -> list[list[int]]:
    cuts: list[list[int]] = []
    for image in missing:
        if not cuts or len(cuts[-1]) == size or cuts[-1][0] // PART_ROWS != image // PART_ROWS:
            cuts.append([])
        cuts[-1].append(image)
    return cuts


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "embeddings").iterdir())}


WANTED = {image: f"{image:064d}" for image in range(0, 2500, 2)}


def test_rows_of_wanted_images_hold_features_and_all_others_zeros(tmp_path: Path) -> None:
    embed(tmp_path, WANTED, 2500)
    store = EmbeddingStore.open(RunDir(tmp_path).embeddings)
    found = store.read(np.arange(2500))
    assert store.rows == 2500
    for image in (0, 1022, 1024, 2498):
        assert found[image].tolist() == features_of(image, WANTED[image])
    assert not found[1::2].any()


@pytest.mark.parametrize("stop_after", [0, 1, 5, 6, 11])
def test_a_run_killed_between_batches_goes_on_to_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    embed(tmp_path / "whole", WANTED, 2500)
    _, before = embed(tmp_path / "killed", WANTED, 2500, stop_after=stop_after)
    _, after = embed(tmp_path / "killed", WANTED, 2500)
    assert content(tmp_path / "whole") == content(tmp_path / "killed")
    finished_parts = {image // PART_ROWS for image in before} - {image // PART_ROWS for image in after}
    assert all(image // PART_ROWS not in finished_parts for image in after)


def test_finished_embeddings_are_not_made_again(tmp_path: Path) -> None:
    first, _ = embed(tmp_path, WANTED, 2500)
    before = content(tmp_path)
    again, done = embed(tmp_path, WANTED, 2500)
    assert (again, done, content(tmp_path)) == (first, [], before)


def test_growing_embeds_only_what_is_new_or_changed(tmp_path: Path) -> None:
    embed(tmp_path, WANTED, 2500)
    grown = {**WANTED, 10: "changed".rjust(64), 2501: "new".rjust(64)}
    _, done = embed(tmp_path, grown, 2502)
    assert done == [10, 2501]
    assert EmbeddingStore.open(RunDir(tmp_path).embeddings).read(np.array([2501]))[0].tolist() == features_of(
        2501, grown[2501]
    )


def test_vanished_images_leave_empty_rows_and_come_back(tmp_path: Path) -> None:
    embed(tmp_path, WANTED, 2500)
    before = content(tmp_path)
    _, done = embed(tmp_path, {image: sha for image, sha in WANTED.items() if image != 4}, 2500)
    assert done == []
    assert not EmbeddingStore.open(RunDir(tmp_path).embeddings).read(np.array([4])).any()
    _, done = embed(tmp_path, WANTED, 2500)
    assert done == [4]
    assert content(tmp_path) == before


def test_undecodable_images_are_not_tried_again_but_unreadable_ones_are(tmp_path: Path) -> None:
    bad = {2: Failure("decode", "truncated"), 6: Failure("read", "the network is down")}
    embed(tmp_path, WANTED, 2500, bad=bad)
    writer = PartsWriter.open(RunDir(tmp_path), 2500, spec())
    assert plan(writer, WANTED) == [6]


def test_a_failure_is_remembered_after_its_image_left_the_wanted(tmp_path: Path) -> None:
    bad = {2: Failure("decode", "truncated")}
    embed(tmp_path, WANTED, 2500, bad=bad)
    before = content(tmp_path)
    embed(tmp_path, {image: sha for image, sha in WANTED.items() if image != 2}, 2500)
    assert content(tmp_path) == before


def test_notes_are_kept_beside_the_rows(tmp_path: Path) -> None:
    embed(tmp_path, WANTED, 2500, bad={2: Failure("decode", "truncated")})
    again = PartsWriter.open(RunDir(tmp_path), 2500, spec())
    assert plan(again, WANTED) == []
    again.finish()
    assert again.notes == {4: NOTE}
    assert set(again.failures) == {2}


def test_an_earlier_way_to_decode_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(tmp_path, WANTED, 2500)
    monkeypatch.setattr(parts, "VERSION", parts.VERSION + 1)
    assert plan(PartsWriter.open(RunDir(tmp_path), 2500, spec()), WANTED) == sorted(WANTED)


def test_another_encoder_counts_for_nothing(tmp_path: Path) -> None:
    embed(tmp_path, WANTED, 2500)
    writer = PartsWriter.open(RunDir(tmp_path), 2500, spec(weights_sha256="1"))
    assert plan(writer, WANTED) == sorted(WANTED)


def test_what_has_not_changed_is_taken_over_and_what_was_before_stays(tmp_path: Path) -> None:
    def write(wanted: dict[int, str], rows: int, *, stop_after: int = -1) -> list[int]:
        with drafts.writing(tmp_path, from_start=True) as draft:
            draft.begin_stage()
            writer = PartsWriter.open(draft.run_dir, rows, spec())
            digest, done = fill(writer, wanted, {}, stop_after)
            if digest is not None:
                draft.end_stage("embed", draft.record("key", (), StageResult(digest), 0.0))
                draft.commit()
        return done

    assert len(write(WANTED, 2500)) == len(WANTED)
    first = RunDir.open(tmp_path)
    grown = {**WANTED, 2501: "new".rjust(64)}
    assert write(grown, 2502, stop_after=0) == []
    assert EmbeddingStore.open(RunDir.open(tmp_path).embeddings).rows == 2500  # not finished, so not current
    assert write(grown, 2502) == [2501]
    second = RunDir.open(tmp_path)
    assert [EmbeddingStore.open(run.embeddings).rows for run in (first, second)] == [2500, 2502]
    same = [
        (first.embeddings / f"part-0000{part}.npy") == (second.embeddings / f"part-0000{part}.npy") for part in range(3)
    ]
    assert same == [True, True, False]


@given(st.lists(st.integers(0, 1 << 26), min_size=1))
def test_parts_depend_on_ids_alone_and_cover_them_all(ids: list[int]) -> None:
    rows = max(ids) + 1
    numbers = part_of(np.array(ids)).tolist()
    assert all(image in part_range(number, rows) for image, number in zip(ids, numbers, strict=True))
    assert max(numbers) + 1 == part_count(rows)
    if number := max(numbers):
        assert part_range(number, rows).start == part_range(number - 1, rows).stop
    assert all(part_range(number, 2 * rows).start == part_range(number, rows).start for number in numbers)


def test_many_images_are_few_parts() -> None:
    assert part_count(1 << 20) == 1024
    assert part_count(100_000_000) < 8000


def test_a_run_that_grows_beyond_small_parts_keeps_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SMALL_PARTS", 1)
    monkeypatch.setattr(embeddings, "LARGE_PART_ROWS", 3000)
    embed(tmp_path, WANTED, 2500)
    first = (tmp_path / "embeddings" / "part-00000.npy").read_bytes()
    grown = {**WANTED, **{image: f"{image:064d}" for image in range(2500, 9000, 500)}}
    _, done = embed(tmp_path, grown, 9000)
    assert done == list(range(2500, 9000, 500))
    assert (tmp_path / "embeddings" / "part-00000.npy").read_bytes() == first
    store = EmbeddingStore.open(tmp_path / "embeddings")
    assert len(store.parts) == 1 + 3
    rows = store.read(np.array([8500, 0, 2498, 2500, 1]))
    assert rows.tolist() == [*(features_of(image, grown[image]) for image in (8500, 0, 2498, 2500)), [0.0] * DIM]
