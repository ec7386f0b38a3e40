"""Random numbers: every draw comes from a generator made from (seed, what for, epoch, step, rank).

So there is no generator whose state a checkpoint would have to keep: the position in the training is the state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def number(seed: int, *words: int | str) -> int:
    """A seed below 2^63 made from a seed and the words that say what for."""
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *words: int | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(number(seed, *words))


@contextmanager
def seeded(device: torch.device, seed: int, *words: int | str) -> Iterator[None]:
    """Torch's global generators seeded within the block, for layers that know no other (dropout, initialisation).

    The state of the CPU's and of that of `device` is as before after the block.
    """
    devices = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(number(seed, *words))
        yield


def beside(random: torch.Generator) -> torch.Generator:
    """A generator on the CPU for what the host must know, at the place where `random` is: the same where that is there.

    Reading the state of a GPU's generator, a seed and a count of draws, does not wait for the GPU as a draw would.
    """
    if random.device.type == "cpu":
        return random
    return torch.Generator().manual_seed(number(0, random.get_state().numpy().tobytes().hex()))


def order(count: int, random: torch.Generator) -> list[int]:
    """0 to count − 1 in an order drawn."""
    found: list[int] = torch.randperm(count, generator=beside(random)).tolist()
    return found


def uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """float32 [count] from low to high."""
    return torch.rand(count, generator=random, device=random.device) * (high - low) + low


def chance(count: int, probability: float, random: torch.Generator) -> Tensor:
    """bool [count], each true with that probability."""
    return torch.rand(count, generator=random, device=random.device) < probability


def signs(count: int, random: torch.Generator) -> Tensor:
    """float32 [count], each −1 or 1."""
    return chance(count, 0.5, random).float() * 2 - 1
