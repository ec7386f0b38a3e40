"""The loop: stopped and resumed equals uninterrupted, bit for bit; whole checkpoints; collapse stops with advice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import small_training
from shoal import pipeline
from shoal.config import ClusterConfig
from shoal.errors import CollapseError, RunError
from shoal.images.sources import open_source
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.train import checkpoint, dead_taps, decoding, log, loop, selflabel
from shoal.train.config import DataConfig
from shoal.train.encoders import Clusterer, ClusterHeads, Head
from shoal.train.evidence import HeldOut, crosswise, split
from shoal.train.features import encode, mine
from shoal.train.selflabel import calibrated, probe, surest
from shoal.train.stopwatch import Stopwatch
from shoal.train.teacher import Teacher
from shoal.train.watch import Watch, health

PHASES = {
    "simclr": ("pretext", ["pretext.task=simclr", "pretext.head.kind=keras"]),  # with dropout
    "moco": ("pretext", ["pretext.task=moco", "pretext.loss=standard", "pretext.optimiser.name=adamw"]),
    "rotnet": ("pretext", ["pretext.task=rotnet", "pretext.loss=standard", "pretext.loop.accumulate=2"]),
    "scan-frozen": ("scan", []),
    "scan-tuned": ("scan", ["scan.loop.clip=1.0", "scan.optimiser.name=sgd"]),
    "selflabel": ("selflabel", ["selflabel.ema=0.9"]),
    "taught": ("selflabel", ["selflabel.quota=0.9", "selflabel.loop.batch=8"]),
}
CHOOSING = {"scan-frozen", "scan-tuned", "selflabel"}  # an epoch by a measure; of the others the last one counts


class KilledError(Exception):
    """The machine was switched off."""


def weights(phase: loop.Phase) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in phase.kept.state_dict().items()}


@pytest.mark.parametrize("kind", PHASES)
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(kind: str, tmp_path: Path) -> None:
    section, changes = PHASES[kind]
    recipe, images = small_training.config(*changes), small_training.pixels()
    settings = small_training.settings(recipe, section)
    whole = small_training.build(kind, recipe, images)
    loop.train(whole, settings, tmp_path / "whole", Progress())

    for stop in (2, 5):  # within the first epoch, then within a later one
        phase = small_training.build(kind, recipe, images)
        done, original = 0, phase.after_step

        def after_step(stop: int = stop, original: object = original) -> None:
            nonlocal done
            original()  # type: ignore[operator]
            done += 1
            if done == stop:
                raise KilledError

        phase.after_step = after_step  # type: ignore[method-assign]
        with pytest.raises(KilledError):
            loop.train(phase, settings, tmp_path / "parts", Progress())
    resumed = small_training.build(kind, recipe, images)
    with torch.no_grad():
        for weight in resumed.kept.parameters():
            weight.fill_(9)  # nothing of a fresh start may be left
    position = loop.train(resumed, settings, tmp_path / "parts", Progress())

    expected = weights(whole)
    assert position.epoch == settings.epochs
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, expected[name]), name
    told = [
        [
            {
                key: value
                for key, value in line.items()
                if key not in ("seconds", "processor_seconds", "images_per_second")
            }
            for line in lines
        ]
        for lines in (log.read(tmp_path / "whole"), log.read(tmp_path / "parts"))
    ]
    assert told[0] == told[1]
    left = {path.name.split("-")[0] for path in (tmp_path / "parts" / section).iterdir()}
    chooses = {"best.json", "best"} if kind in CHOOSING else set()
    assert left == {"last.json", "last"} | chooses  # a checkpoint that nobody reads is not written
    assert (position.best_epoch is not None) == (kind in CHOOSING)


def test_a_stopwatch_goes_on_where_another_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0, 40.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: now[1])
    first = Stopwatch()
    now[:] = [107.0, 42.0]
    assert first.spent() == (7, 2)
    second = Stopwatch(*first.spent())
    now[:] = [108.0, 45.0]
    assert second.spent() == (8, 5)


def test_a_finished_phase_is_not_trained_again(tmp_path: Path) -> None:
    recipe, images = small_training.config(), small_training.pixels()
    settings = small_training.settings(recipe, "pretext")
    first = small_training.build("simclr", recipe, images)
    loop.train(first, settings, tmp_path, Progress())
    again = small_training.build("simclr", recipe, images)
    loop.train(again, settings, tmp_path, Progress())
    for name, tensor in weights(again).items():
        assert torch.equal(tensor, weights(first)[name])


def test_pretext_tasks_learn(tmp_path: Path) -> None:
    for kind in ("simclr", "moco", "rotnet"):
        section, changes = PHASES[kind]
        recipe = small_training.config(*changes, "pretext.epochs=8", "pretext.head.kind=mlp")
        phase = small_training.build(kind, recipe, small_training.pixels())
        loop.train(phase, small_training.settings(recipe, section, 9), tmp_path / kind, Progress())
        found = [line["loss"] for line in log.read(tmp_path / kind)]
        assert found[-1] < max(found)  # MoCo's rises while noise in its queue gives way to keys


def test_scan_finds_the_kinds_of_images(tmp_path: Path) -> None:
    recipe = small_training.config("scan.epochs=20", "scan.optimiser.rate=0.3")
    phase = small_training.build("scan-frozen", recipe, small_training.pixels(150))
    loop.train(phase, small_training.settings(recipe, "scan", 9), tmp_path, Progress())
    label = phase.held_out_logits()[phase.best_head()].argmax(1)
    kinds = phase._held_out.positions % 3
    assert len({(int(a), int(b)) for a, b in zip(label, kinds, strict=True)}) == 3
    assert log.read(tmp_path)[-1]["agreement"] > 0.95


def test_clusters_that_are_mostly_right_teach_an_encoder_the_rest(tmp_path: Path) -> None:
    changes = ("selflabel.epochs=20", "selflabel.quota=0.5", "selflabel.optimiser.rate=0.02", "selflabel.ema=null")
    recipe, images = small_training.config(*changes), small_training.pixels()
    phase = small_training.build("taught", recipe, images)
    kinds = torch.arange(len(images)) % 3
    assert (phase.kept.labels != kinds).sum() == 4
    loop.train(phase, small_training.settings(recipe, "selflabel"), tmp_path, Progress())
    assert (phase.kept.labels == kinds).all()
    assert log.read(tmp_path)[-1]["renewed"] == 0
    torch.testing.assert_close(phase.logits(torch.arange(60)).softmax(dim=1).max(dim=1).values, phase.kept.confidence)


def test_uneven_clusters_teach_without_alarm(tmp_path: Path) -> None:
    """95 of 100 images are of one kind: all but one cluster empty would be 1, these are 1.2."""
    changes = ("selflabel.epochs=12", "selflabel.loop.batch=8", "selflabel.weigh_classes=false")
    recipe = small_training.config(*changes, "selflabel.optimiser.rate=0.05", "selflabel.ema=null")
    images = small_training.pixels(100)
    labels = torch.zeros(100, dtype=torch.long)
    labels[:5] = 1
    phase = selflabel.Taught(
        recipe.selflabel,
        Clusterer(small_training.TinyEncoder(), ClusterHeads(8, 2, 1)),
        images,
        Teacher(torch.arange(100), labels, torch.rand(100), 2, "", ""),
        HeldOut(torch.arange(100), torch.arange(100).roll(1)[:, None]),
        small_training.COLOURS,
        small_training.PRECISION,
    )
    loop.train(phase, small_training.settings(recipe, "selflabel"), tmp_path, Progress())
    assert all(line["clusters_used"] < 1.5 for line in log.read(tmp_path)[-3:])


def test_of_each_cluster_the_surest_come_first() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])
    confidence = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2, 0.3, 0.0, 0.3])
    order = surest(labels, confidence, 4)  # the fourth cluster is empty
    assert order.tolist() == [1, 5, 6, 3, 2, 4, 7, 0]  # after 0, 0, 0, 0.2, 0.4, 0.5, 0.6, 0.8 of their clusters


@pytest.mark.parametrize("clusters", [2, 5])
def test_a_probe_tells_what_a_line_can_tell(clusters: int) -> None:
    """Features far from zero, of very different scales, and one that is the same for all images."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % clusters
    features = torch.eye(clusters, 8)[labels] + 0.1 * torch.randn(400, 8, generator=random)
    features = features * torch.logspace(-3, 3, 8) + 50
    features[:, 7] = 7
    head = probe(features[:300], labels[:300], clusters)
    assert head.weight.shape == (8, clusters)
    assert ((features[300:] @ head.weight + head.bias).argmax(dim=1) == labels[300:]).all()


def test_a_probe_gives_no_image_to_a_cluster_that_has_none() -> None:
    features = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    head = probe(features, (features[:, 0] > 0).long(), 3)
    assert ((features @ head.weight + head.bias).argmax(dim=1) < 2).all()


@pytest.mark.parametrize("truth", [0.2, 1.0, 3.0])
def test_confidence_tells_how_often_the_earlier_clusters_agree(truth: float) -> None:
    """The earlier clusters are drawn by probabilities softmax(truth · logits): that factor is found again."""
    random = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(20_000, 5, generator=random)
    earlier = torch.multinomial((truth * logits).softmax(dim=1), 1, generator=random)[:, 0]
    head = calibrated(Head(torch.ones(3, 5), torch.full((5,), 2.0)), logits, earlier)
    assert head.weight.unique().item() == pytest.approx(truth, rel=0.12)
    torch.testing.assert_close(head.bias, 2 * head.weight[0])
    agreed = logits.argmax(dim=1).eq(earlier).float().mean()
    confidence = (logits * head.weight[0]).softmax(dim=1).max(dim=1).values.mean()
    assert float(confidence) == pytest.approx(float(agreed), abs=0.02)


def test_agreement_of_all_images_is_not_certainty() -> None:
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    head = calibrated(Head(torch.ones(3, 5), torch.zeros(5)), logits, logits.argmax(dim=1))
    confidence = (logits * head.weight[0]).softmax(dim=1).max(dim=1).values
    assert 0.9 < float(confidence.mean()) < 1 - 0.5 / 200


def test_standardising_is_put_into_the_head() -> None:
    recipe = small_training.config("scan.standardise=true")
    phase = small_training.build("scan-frozen", recipe, small_training.pixels())
    features = phase._views[0].float()
    head = phase.head(1)
    standard = (features - features.mean(0)) / features.std(0)
    torch.testing.assert_close(features @ head.weight + head.bias, phase.network(standard)[1], atol=1e-4, rtol=1e-4)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_request_is_not_gone_on_with(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    checkpoint.save(tmp_path, "last", "one", checkpoint.Position(epoch=3), network, None)
    assert checkpoint.restore(tmp_path, "last", "another", network, None) is None
    assert checkpoint.restore(tmp_path, "last", "one", network, None) == checkpoint.Position(epoch=3)


def test_a_crash_between_tensors_and_record_leaves_the_earlier_pair(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    checkpoint.save(tmp_path, "last", "key", checkpoint.Position(epoch=1), network, None)
    record = (tmp_path / "last.json").read_bytes()
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    expected = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.add_(1)
    checkpoint.save(tmp_path, "last", "key", checkpoint.Position(epoch=2), network, None)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1  # older ones go
    (tmp_path / "last.json").write_bytes(record)
    for name, data in kept.items():
        (tmp_path / name).write_bytes(data)
    found = checkpoint.restore(tmp_path, "last", "key", network, None)
    assert found is not None
    assert found.epoch == 1
    assert torch.equal(network.weight, expected)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: str) -> None:
    network = nn.Linear(2, 2)
    checkpoint.save(tmp_path, "last", "key", checkpoint.Position(), network, None)
    if damage == "cut":
        file = next(tmp_path.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-9])
    else:
        (tmp_path / "last.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="no readable checkpoint"):
        checkpoint.restore(tmp_path, "last", "key", network, None)


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    recipe = small_training.config()
    phase = small_training.build("simclr", recipe, small_training.pixels())
    loop.train(phase, small_training.settings(recipe, "pretext"), tmp_path, Progress())
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    assert endings <= {".safetensors", ".json", ".jsonl"}


def test_the_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    written = log.Log(tmp_path, "scan", 0, tensorboard=False)
    for epoch in range(4):
        written.write(epoch, loss=float(epoch))
    written.close()
    with (tmp_path / log.FILE).open("a", encoding="utf-8") as file:
        file.write('{"phase": "scan", "epo')  # cut off by a crash
    again = log.Log(tmp_path, "scan", 2, tensorboard=False)
    again.write(2, loss=9.0)
    again.close()
    assert [(line["epoch"], line["loss"]) for line in log.read(tmp_path)] == [(0, 0.0), (1, 1.0), (2, 9.0)]
    assert all(json.loads(line) for line in (tmp_path / log.FILE).read_text(encoding="utf-8").splitlines())


# -- collapse ----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    recipe = small_training.config("pretext.optimiser.name=sgd", "pretext.optimiser.rate=1e30", "pretext.head.kind=mlp")
    phase = small_training.build("simclr", recipe, small_training.pixels())
    with pytest.raises(CollapseError, match=r"not finite.*lower pretext.optimiser.rate"):
        loop.train(phase, small_training.settings(recipe, "pretext", 9), tmp_path, Progress())


def test_clusters_that_collapse_stop_with_advice(tmp_path: Path) -> None:
    """The Keras example's loss as printed has one cluster for all as its minimum."""
    recipe = small_training.config(
        "scan.loss=keras", "scan.heads=1", "scan.epochs=60", "scan.optimiser.rate=0.5", "scan.schedule.kind=constant"
    )
    phase = small_training.build("scan-frozen", recipe, small_training.pixels())
    with pytest.raises(CollapseError, match=r"one of 3 clusters.*set scan.loss=standard"):
        loop.train(phase, small_training.settings(recipe, "scan", 9), tmp_path, Progress())


def test_features_that_become_one_stop_with_advice() -> None:
    watch = Watch("pretext")
    same = torch.ones(16, 4)
    for _ in range(2):
        watch.features(health(same, same).spread, 0)
    with pytest.raises(CollapseError, match=r"features of all images are the same.*--show-views"):
        watch.features(health(same, same).spread, 0)
    spread = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert health(spread, spread).spread > 0.8
    assert health(spread, spread).alignment == pytest.approx(0)


@pytest.mark.parametrize("kind", ["apart", "same", "nearly the same", "with none"])
def test_uniformity_is_that_of_all_pairs(kind: str) -> None:
    drawn = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    rows = {"apart": drawn, "same": torch.ones(40, 8), "nearly the same": 1 + 1e-4 * drawn, "with none": drawn.relu()}
    rows["with none"][:3] = 0  # features of no length stay so
    unit = nn.functional.normalize(rows[kind], dim=1)
    wanted = torch.pdist(unit.double()).square().mul(-2).exp().mean().log()
    assert health(rows[kind], rows[kind]).uniformity == pytest.approx(float(wanted), abs=1e-6)


def test_one_image_has_no_pairs() -> None:
    assert health(torch.ones(1, 4), torch.ones(1, 4)).uniformity == 0


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [(1, 3, 2, 1), (2, 3, 2, 1), (1, 7, 2, 3), (5, 3, 1, 1)]
)
def test_taps_that_meet_no_pixel_have_no_gradient(size: int, kernel: int, stride: int, padding: int) -> None:
    """In bfloat16, where the library leaves them unset, as in float32."""
    images = torch.randn(16, 96, size, size, generator=torch.Generator().manual_seed(0))
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        convolution = nn.Conv2d(96, 96, kernel, stride, padding, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(torch.linspace(-1, 1, convolution.weight.numel()).view_as(convolution.weight))
        dead_taps.guard(convolution)
        for _ in range(3):
            filled = [torch.full_like(convolution.weight, torch.nan, dtype=dtype) for _ in range(3)]
            del filled  # what is left in memory
            convolution.weight.grad = None
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                made = convolution(images)
            made.float().mean().backward()
            found[dtype] = convolution.weight.grad.clone()
    torch.testing.assert_close(found[torch.bfloat16], found[torch.float32], atol=2e-3, rtol=0.02)
    taps = dead_taps.alive(size, kernel, stride, padding, 1)
    for tap, is_alive in enumerate(taps):
        assert is_alive == bool(found[torch.float32][:, :, tap].any())


# -- pixels ------------------------------------------------------------------------------------------------------------


def test_pixels_are_the_pictures_whether_kept_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken images are passed over; decoding anew gives what was kept."""
    folder = tmp_path / "images"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    for number, value in enumerate(values):
        Image.fromarray(value).save(folder / f"{number}.png")
    cut = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(cut[: len(cut) // 2])  # its header is whole
    index = [pipeline.index_stage(open_source((str(folder),)))]
    run_dir = pipeline.run(ClusterConfig((str(folder),)), RunDir(tmp_path / "run"), index, Progress())
    kept = decoding.open_pixels(run_dir, DataConfig(size=12), Progress())
    assert kept.ids.tolist() == [0, 2, 3, 4]
    wanted = torch.tensor([3, 0, 3])
    expected = torch.from_numpy(values[[4, 0, 4]]).permute(0, 3, 1, 2)
    assert torch.equal(kept.take(wanted), expected)
    mean, std = kept.colours()
    assert mean == pytest.approx(values[[0, 2, 3, 4]].mean((0, 1, 2)) / 255, abs=1e-3)
    assert std == pytest.approx(values[[0, 2, 3, 4]].std((0, 1, 2)) / 255, abs=1e-3)
    monkeypatch.setattr(decoding, "KEPT_BYTES", 0)
    anew = decoding.open_pixels(run_dir, DataConfig(size=12), Progress())
    assert torch.equal(anew.take(torch.tensor([4, 0])), expected[:2])


# -- features and evidence ---------------------------------------------------------------------------------------------


def test_encoding_leaves_batchnorm_and_mode_alone() -> None:
    images, encoder = small_training.pixels(), small_training.TinyEncoder().train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    everything = torch.arange(len(images))
    found = encode(encoder, images, everything, lambda batch: batch.float() / 255, small_training.PRECISION)
    assert found.shape == (60, 8)
    assert encoder.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_mined_neighbours_are_brute_force_s() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(features, dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-2)
    assert torch.equal(mine(features, 4, torch.device("cpu")), similarity.topk(4, dim=1).indices)


def test_the_encoder_that_sees_kinds_is_told_from_one_that_sees_something_else() -> None:
    """The second is no less sure of its clusters; they are of something that the first does not see, nor the kinds."""
    rng = np.random.default_rng(0)
    kinds, other, eye = rng.integers(0, 4, 800), rng.integers(0, 4, 800), np.eye(4)
    both = (eye[kinds] + rng.normal(0, 0.3, (800, 4)), eye[other] + 0.5 * eye[kinds] + rng.normal(0, 0.2, (800, 4)))
    good, bad = (torch.from_numpy(rows.astype(np.float32)) for rows in both)
    better, worse = crosswise(good, bad, 4, 10, 0, torch.device("cpu"))
    assert better > worse
    assert crosswise(bad, good, 4, 10, 0, torch.device("cpu")) == (worse, better)


def test_only_chosen_images_are_split() -> None:
    features, chosen = torch.randn(40, 6), torch.arange(1, 40, 2)
    kept, neighbours, held_out = split(features, chosen, 0.25, 3, 0, torch.device("cpu"))
    assert sorted([*kept.tolist(), *held_out.positions.tolist()]) == chosen.tolist()
    assert len(held_out.positions) == 5
    assert set(neighbours.flatten().tolist()) <= set(kept.tolist())
    assert not (neighbours == kept[:, None]).any()


def test_agreement_rises_with_shared_even_clusters_and_is_blind_to_their_names() -> None:
    held_out = HeldOut(torch.arange(12), torch.tensor([[(i + 3) % 12, (i + 6) % 12] for i in range(12)]))
    kinds = torch.arange(12) % 3
    shared = torch.nn.functional.one_hot(kinds, 3).float()
    assert held_out.agreement(shared) == pytest.approx(1)
    assert held_out.agreement(shared[:, [2, 0, 1]]) == pytest.approx(1)
    assert held_out.agreement(torch.nn.functional.one_hot(kinds * 0, 3).float()) == pytest.approx(0)
    noise = torch.from_numpy(np.random.default_rng(0).random((12, 3)))
    assert 0 <= held_out.agreement(noise) < 0.9
