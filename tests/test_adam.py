"""Adam without torch.optim: the same bits, and none of its imports."""

from __future__ import annotations

import subprocess
import sys

import torch

from shoal.cluster.adam import Adam

STEPS = 40

TRAINED = """
import sys
import numpy as np
from shoal.cluster.heads import train_heads
random = np.random.default_rng(0)
points = random.standard_normal((60, 8)).astype(np.float32)
neighbours = random.integers(0, 60, (60, 5)).astype(np.int32)
train_heads(points, neighbours, [random.integers(0, 3, 60).astype(np.int32)], 3, 0)
assert "torch" in sys.modules
assert "torch._dynamo" not in sys.modules
"""


def test_the_same_bits_as_torch() -> None:
    random = torch.Generator().manual_seed(0)
    rows, wanted = torch.randn((30, 7), generator=random), torch.randn((30, 3), generator=random)
    start = [torch.randn((7, 3), generator=random), torch.zeros(3)]
    ours, theirs = ([values.clone().requires_grad_() for values in start] for _ in range(2))
    own = Adam(ours, 0.05, STEPS)
    peer = torch.optim.Adam(theirs, lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(peer, STEPS)
    for _ in range(STEPS):
        own.step((rows @ ours[0] + ours[1] - wanted).pow(2).mean())
        peer.zero_grad()
        (rows @ theirs[0] + theirs[1] - wanted).pow(2).mean().backward()
        peer.step()
        schedule.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_heads_are_trained_without_torchs_compiler() -> None:
    subprocess.run([sys.executable, "-c", TRAINED], check=True)
