"""What encoders are called that `shoal train` makes."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "shoal:"
TIMM: Final = "timm/"  # shoal:timm/resnet50 is timm's resnet50, trained here
WHITENED: Final = "whitened/"  # before the name of another encoder: its features, whitened by half
OWN: Final = ("cpu-small", "resnet18-cifar", "resnet18-stl", "resnet50v2")  # architectures that are Shoal's


def full_name(name: str) -> str:
    """What a trained encoder is called: `cpu-small` is `shoal:cpu-small`, `resnet50` is `shoal:timm/resnet50`."""
    plain = name.removeprefix(PREFIX)
    if plain.startswith(WHITENED):
        return PREFIX + WHITENED + full_name(plain.removeprefix(WHITENED)).removeprefix(PREFIX)
    return PREFIX + (plain if plain in OWN else TIMM + plain.removeprefix(TIMM))
