"""Options that several commands have, and values and arguments of kinds that click lacks."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from shoal.config import DEVICES, three_numbers

MINUS: Final = "\N{MINUS SIGN}"  # stands for the hyphen of a word that is no option


class _ThreeNumbers(click.ParamType[tuple[float, float, float]]):
    """One for each channel: `0.485,0.456,0.406`."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        return three_numbers(value, param.opts[0] if param else self.name)


class TakingMinusWords(click.Command):
    """A command whose arguments may be words with a hyphen before them: `-snow`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [MINUS + arg[1:] if _is_minus_word(arg) else arg for arg in args])


def _is_minus_word(arg: str) -> bool:
    return re.fullmatch(r"-(?!-|h$|n[0-9]*$).+", arg) is not None


THREE: Final = _ThreeNumbers()
DEVICE: Final = click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the backbone runs."
)
ON_RAY: Final = click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Have a Ray cluster work: auto, HOST:PORT or ray://HOST:PORT; without ADDRESS one of this machine.",
)
MIXED: Final = click.option(
    "--mixed", is_flag=True, help="With --ray: machines may differ in processors and versions, and so may last bits."
)
