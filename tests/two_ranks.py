"""Gradients of every loss with the whole batch in one process, or with half of it in each of two (run as a script)."""

from __future__ import annotations

import os
import sys

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from shoal.train import losses
from shoal.train.gather import gather_constant, rank, share_first, world_size

BATCH, DIM, CLUSTERS, HEADS = 24, 10, 4, 3


class Network(nn.Module):
    """No BatchNorm, which several processes could only share on GPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(DIM, 16), nn.Tanh(), nn.Linear(16, HEADS * CLUSTERS))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def gradients() -> dict[str, Tensor]:
    """By loss and parameter, after averaging over the processes."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, BATCH, DIM, generator=draw)
    queue = nn.functional.normalize(torch.randn(32, HEADS * CLUSTERS, generator=draw), dim=1)
    share = BATCH // world_size()
    here = slice(rank() * share, (rank() + 1) * share)
    first, second = first[here], second[here]

    def heads(rows: Tensor) -> Tensor:
        return rows.view(len(rows), HEADS, CLUSTERS).transpose(0, 1)

    measures = {
        "nt_xent": lambda y, z: losses.nt_xent(y, z, 0.3),
        "info_nce": lambda y, z: losses.info_nce(y, z, queue, 0.2),
        "scan": lambda y, z: losses.scan(heads(y), heads(z), 5.0).total.sum(),
        "threshold": lambda y, z: losses.self_label(heads(3 * y)[0], heads(z)[0], threshold=0.4).total,
        "quota": lambda y, z: losses.self_label(heads(y)[0], heads(z)[0], threshold=0, quota=0.5).total,
    }
    found = {}
    for name, measure in measures.items():
        torch.manual_seed(1)
        network = Network()
        called = DistributedDataParallel(network) if world_size() > 1 else network
        both = called(torch.cat([first, second]))
        measure(both[: len(first)], both[len(first) :]).backward()
        found |= {f"{name}/{path}": weight.grad.clone() for path, weight in network.named_parameters()}
    return found


def shared() -> Tensor:
    """Sums of a network's weights and statistics in each process, after all have taken the first one's: [world, 1]."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(rank() + 1)
    share_first(network)
    return gather_constant(torch.stack([tensor.sum() for tensor in network.state_dict().values()]).sum().view(1, 1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    made = {**gradients(), "shared": shared()}
    if os.environ["RANK"] == "0":
        save_file(made, sys.argv[1])
    distributed.destroy_process_group()
