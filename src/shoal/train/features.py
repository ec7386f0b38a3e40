"""Features of all images under the encoder as it stands, and the neighbours they tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shoal.embeddings import Float32
from shoal.neighbours.exact import exact_neighbours
from shoal.progress import Progress
from shoal.train.gather import gather_constant, rank, world_size
from shoal.train.moved import moved
from shoal.train.pixels import Pixels
from shoal.train.precision import Precision

BATCH = 512
LEAST_DEVIATION = 1e-6
COMPARED = 1 << 28  # pairs of rows compared at a time on a GPU: 1 GB


@torch.no_grad()
def encode(
    network: nn.Module,
    pixels: Pixels,
    positions: Tensor,
    view: Callable[[Tensor], Tensor],
    precision: Precision,
    progress: Progress | None = None,
) -> Tensor:
    """What `network`, in eval mode, makes of the images at `positions` [n]: float32 [n, ...] on the CPU.

    Several processes share the work, and all get the whole. `network` is left in the mode it was in.
    """
    was_training = network.training
    network.eval()
    share = -(-len(positions) // world_size())
    padded = torch.cat([positions, positions[:1].expand(share * world_size() - len(positions))])
    mine = padded[rank() * share : (rank() + 1) * share]
    parts = []
    with (progress or Progress()).task("Encoding", len(mine)) as task:
        for start in range(0, len(mine), BATCH):
            where = mine[start : start + BATCH]
            images = view(moved(pixels.take(where), precision.device))
            with precision.autocast():
                found = network(images)
            parts.append(found.float())
            task.advance(len(where))
    network.train(was_training)
    return gather_constant(torch.cat(parts))[: len(positions)].cpu()


def mine(features: Tensor, k: int, device: torch.device, progress: Progress | None = None) -> Tensor:
    """The k rows most similar (cosine) to each row of `features` [n, d], never itself: int64 [n, min(k, n − 1)].

    On the CPU by the exact search of the neighbours stage; on a GPU by the same comparison there.
    """
    unit = F.normalize(features.float(), dim=1)
    k = min(k, len(unit) - 1)
    if device.type == "cpu":
        ids, _ = exact_neighbours(unit.numpy(), k, progress)
        return torch.from_numpy(ids.astype(np.int64))
    return nearest(unit.to(device), k)


def nearest(unit: Tensor, k: int) -> Tensor:
    """The k rows of the largest product with each unit row [n, d], but for itself: int64 [n, k] on the CPU."""
    found = []
    queries = max(1, COMPARED // len(unit))
    for start in range(0, len(unit), queries):
        similarity = unit[start : start + queries] @ unit.T
        rows = torch.arange(len(similarity), device=unit.device)
        similarity[rows, rows + start] = -torch.inf
        found.append(similarity.topk(k, dim=1).indices.cpu())
    return torch.cat(found)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, [d], over all images [n, d]; a constant's deviation is not zero."""
    return features.mean(dim=0), features.std(dim=0).clamp_min(LEAST_DEVIATION)


def standardised(features: Tensor) -> Float32:
    """Unit rows of centred features, for comparisons on the CPU."""
    centred = features - features.mean(dim=0)
    unit: Float32 = F.normalize(centred, dim=1).numpy()
    return unit
