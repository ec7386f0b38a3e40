"""Adam without torch: what torch computes, to rounding; and k-means and heads import no torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from shoal.cluster.heads.adam import Adam

STEPS = 40

LEARNED = """
import sys
import numpy as np
from shoal.cluster import LearnedClustering
rows = np.random.default_rng(0).standard_normal((60, 8))
LearnedClustering(3, n_heads=4).fit(rows)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("steps", [STEPS, None])
def test_the_same_as_torch(steps: int | None) -> None:
    random = np.random.default_rng(0)
    start = [random.standard_normal((7, 3)).astype(np.float32), np.zeros(3, np.float32)]
    ours, theirs = [values.copy() for values in start], [torch.from_numpy(values.copy()) for values in start]
    own = Adam(ours, 0.05, steps)
    peer = torch.optim.Adam([values.requires_grad_() for values in theirs], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(peer, STEPS)
    for _ in range(STEPS):
        gradients = [random.standard_normal(values.shape).astype(np.float32) for values in start]
        own.step(gradients)
        for values, gradient in zip(theirs, gradients, strict=True):
            values.grad = torch.from_numpy(gradient)
        peer.step()
        if steps:
            schedule.step()
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_learned_clusters_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", LEARNED], check=True)
