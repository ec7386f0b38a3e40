"""Gradients of every loss with the whole batch in one process, or with half of it in each of two (run as a script)."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shoal.train import losses, processes
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


def group_threads() -> list[str]:
    """The names of this process's threads that work for the group, where the system tells them."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.disable()  # what is in a circle of references then goes only where it is seen to
    with processes.together("cpu"):
        made = {**gradients(), "shared": shared()}
        if processes.is_leader():
            save_file(made, sys.argv[1])
        assert group_threads() or not Path("/proc/self/task").exists()
    assert not group_threads(), "threads of the group are left: one that lets go of a tensor as we end is signal 6"
