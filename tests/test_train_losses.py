"""The losses of training against literal loops of their formulas, and two processes against one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, distributed
from torch.nn import functional as F

import two_ranks
from shoal.train import losses


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(batch=st.integers(2, 7), dim=st.integers(2, 9), temperature=st.floats(0.1, 2.0), seed=st.integers(0, 99))
def test_nt_xent_is_the_paper_s_sum(batch: int, dim: int, temperature: float, seed: int) -> None:
    first, second = draw(batch, dim, seed=seed), draw(batch, dim, seed=seed + 100)
    views = [row / row.norm() for row in [*first, *second]]
    total = decoupled = 0.0
    for i, view in enumerate(views):
        twin = views[(i + batch) % (2 * batch)]
        others = sum(math.exp(float(view @ other) / temperature) for j, other in enumerate(views) if j != i)
        positive = math.exp(float(view @ twin) / temperature)
        total -= math.log(positive / others)
        decoupled -= math.log(positive / (others - positive))
    assert float(losses.nt_xent(first, second, temperature)) == pytest.approx(total / (2 * batch), rel=1e-4, abs=1e-5)
    found = float(losses.nt_xent(first, second, temperature, decoupled=True))
    assert found == pytest.approx(decoupled / (2 * batch), rel=1e-3, abs=1e-3)


def test_nt_xent_does_not_care_how_long_projections_are_nor_which_view_comes_first() -> None:
    first, second = draw(8, 5), draw(8, 5, seed=1)
    loss = losses.nt_xent(first, second, 0.2)
    torch.testing.assert_close(losses.nt_xent(7 * first, second / 3, 0.2), loss)
    torch.testing.assert_close(losses.nt_xent(second, first, 0.2), loss)


def test_info_nce_is_the_paper_s_sum() -> None:
    queries, keys = draw(6, 4), draw(6, 4, seed=1)
    queue = F.normalize(draw(9, 4, seed=2), dim=1)
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        unit = query / query.norm()
        positive = math.exp(float(unit @ key / key.norm()) / 0.07)
        total -= math.log(positive / (positive + sum(math.exp(float(unit @ old) / 0.07) for old in queue)))
    assert float(losses.info_nce(queries, keys, queue, 0.07)) == pytest.approx(total / 6, rel=1e-4)


def test_info_nce_gives_keys_no_gradient() -> None:
    queries, keys = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    losses.info_nce(queries, keys, F.normalize(draw(5, 3, seed=2), dim=1), 0.2).backward()
    assert queries.grad is not None
    assert keys.grad is None


@settings(max_examples=20)
@given(heads=st.integers(1, 3), batch=st.integers(1, 8), clusters=st.integers(2, 6), seed=st.integers(0, 99))
def test_scan_is_the_paper_s_sum_for_every_head(heads: int, batch: int, clusters: int, seed: int) -> None:
    anchors, neighbours = draw(heads, batch, clusters, seed=seed), draw(heads, batch, clusters, seed=seed + 100)
    found = losses.scan(anchors, neighbours, 5.0)
    for head in range(heads):
        p, q = anchors[head].softmax(1), neighbours[head].softmax(1)
        consistency = -sum(math.log(float(p[i] @ q[i])) for i in range(batch)) / batch
        mean = p.mean(0)
        entropy = -sum(float(value) * math.log(float(value)) for value in mean)
        assert float(found.consistency[head]) == pytest.approx(consistency, rel=1e-4)
        assert float(found.entropy[head]) == pytest.approx(entropy, rel=1e-4, abs=1e-6)
        assert float(found.total[head]) == pytest.approx(consistency - 5 * entropy, rel=1e-4, abs=1e-4)


def test_scan_is_finite_where_probabilities_underflow() -> None:
    sure = torch.tensor([[[300.0, -300.0], [-300.0, 300.0]]]).requires_grad_()
    found = losses.scan(sure, sure.detach().flip(1), 5.0)
    found.total.sum().backward()
    assert torch.isfinite(found.total).all()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_scan_likes_even_clusters_that_neighbours_share_best() -> None:
    even = 20 * F.one_hot(torch.arange(6) % 3, 3).float()[None]
    one = 20 * F.one_hot(torch.zeros(6, dtype=torch.long), 3).float()[None]
    best, collapsed, wrong = (
        float(losses.scan(a, b, 5.0).total[0]) for a, b in ((even, even), (one, one), (even, even.roll(1, 1)))
    )
    assert best == pytest.approx(-5 * math.log(3), abs=1e-3)
    assert best < collapsed
    assert best < wrong


def literal_self_label(weak: Tensor, strong: Tensor, sure: list[bool], weighed: bool) -> float:
    label = weak.argmax(1).tolist()
    chosen = [i for i, one in enumerate(sure) if one]
    counts = [sum(label[i] == k for i in chosen) for k in range(weak.shape[1])]
    weights = {i: len(chosen) / counts[label[i]] if weighed else 1.0 for i in chosen}
    log = strong.log_softmax(1)
    return -sum(weights[i] * float(log[i, label[i]]) for i in chosen) / sum(weights.values())


@pytest.mark.parametrize("weighed", [True, False])
def test_self_label_is_a_weighed_mean_over_confident_images(weighed: bool) -> None:
    weak, strong = 3 * draw(40, 5), draw(40, 5, seed=1)
    sure = (weak.softmax(1).amax(1) > 0.7).tolist()
    found = losses.self_label(weak, strong, threshold=0.7, weigh_classes=weighed)
    assert found.confident.tolist() == sure
    assert float(found.total) == pytest.approx(literal_self_label(weak, strong, sure, weighed), rel=1e-4)


def test_self_label_without_confident_images_is_nothing_to_learn() -> None:
    strong = draw(10, 4, seed=1).requires_grad_()
    found = losses.self_label(draw(10, 4), strong, threshold=0.9999)
    found.total.backward()
    assert float(found.total.detach()) == 0
    assert not found.confident.any()
    assert strong.grad is not None
    assert not strong.grad.any()


def test_a_quota_takes_the_surest_of_each_cluster() -> None:
    weak, strong = draw(60, 3), draw(60, 3, seed=1)
    probability, label = weak.softmax(1).max(1)
    most = math.ceil(0.5 * 60 / 3)
    expected = [
        sum(bool(label[j] == label[i] and probability[j] > probability[i]) for j in range(60)) < most for i in range(60)
    ]
    found = losses.self_label(weak, strong, threshold=0, quota=0.5)
    assert found.confident.tolist() == expected
    assert float(found.total) == pytest.approx(literal_self_label(weak, strong, expected, True), rel=1e-4)


def test_self_label_gives_weak_views_no_gradient() -> None:
    weak, strong = (3 * draw(20, 4)).requires_grad_(), draw(20, 4, seed=1).requires_grad_()
    losses.self_label(weak, strong, threshold=0.3).total.backward()
    assert weak.grad is None
    assert strong.grad is not None


def test_the_keras_example_s_losses_have_its_faults() -> None:
    """What its printed run shows: 0.3133 in every epoch, which one cluster for all reaches."""
    one = torch.tensor([100.0, 0, 0]).expand(1, 8, 3)
    assert float(losses.keras_clustering(one, one).total) == pytest.approx(0.3133, abs=1e-4)
    first, second = draw(4, 3), draw(4, 3, seed=1)
    features = torch.cat([first, second])
    logits = [[float(a @ b) / 0.1 for b in features] for a in features]
    most = [max(row) for row in logits]
    shifted = torch.tensor([[logits[i][j] - most[j] for j in range(8)] for i in range(8)])
    log = shifted.log_softmax(1)
    expected = -sum(float(log[i, j]) for i in range(8) for j in (i % 4, i % 4 + 4)) / 8
    assert float(losses.keras_contrastive(first, second, 0.1)) == pytest.approx(expected, rel=1e-4)


def test_losses_compute_in_float32_whatever_autocast_made() -> None:
    first, second = draw(6, 4).bfloat16(), draw(6, 4, seed=1).bfloat16()
    assert losses.nt_xent(first, second, 0.1).dtype == torch.float32
    assert losses.scan(first[None], second[None], 5.0).total.dtype == torch.float32


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], Path]:
    """How two processes ended that made gradients, started as torchrun starts them, and what they made."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # at a port that is free
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": "2",
    }
    target = tmp_path_factory.mktemp("ranks") / "gradients.safetensors"
    command = [sys.executable, two_ranks.__file__, str(target)]
    started = [subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(number)}) for number in range(2)]
    return [process.wait() for process in started], target


def test_processes_leave_no_thread_of_theirs_and_end_well(of_two: tuple[list[int], Path]) -> None:
    codes, _ = of_two
    assert codes == [0, 0]


def test_two_processes_have_the_gradients_of_one(of_two: tuple[list[int], Path]) -> None:
    _, target = of_two
    together, alone = load_file(target), two_ranks.gradients()
    assert together.pop("shared").tolist() == [[15.0], [15.0]]  # 4 + 2 + 4 · 2 numbers and a count, all 1
    assert together.keys() == alone.keys()
    for name, gradient in alone.items():
        assert gradient.abs().max() > 1e-6 or name.endswith("bias")
        torch.testing.assert_close(
            together[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
