"""The command line: parse, call, print. Everything heavy is imported where it is used, so that help comes at once."""

# ruff: noqa: PLC0415

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from shoal import __version__
from shoal.cli import asking, giving, making, studying
from shoal.disk import explained
from shoal.errors import ShoalError

INTERRUPTED = 130
COMMANDS = (
    *(making.cluster, making.demo, making.report, making.evaluate, making.relink),
    *(asking.assign, asking.similar, asking.find),
    *(giving.browse, giving.export, giving.undo, giving.publish),
    *(studying.train, studying.bench, studying.doctor),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="shoal")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def shoal(debug: bool) -> None:  # --debug may stand anywhere: main() takes it before click sees it
    """Group images by what they show, without labels.

    \b
    Start here:
      shoal demo                            see it work on real images
      shoal cluster photos/                 cluster your own
      shoal report photos.shoal --open      look at the result
      shoal browse photos.shoal             look, correct, search, take away
    """


for _command in COMMANDS:
    shoal.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `shoal` command; exits with 0 done, 1 failed, 2 wrong request, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        status = shoal.main(words, prog_name="shoal", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        raise SystemExit(0) from None
    except (Exception, KeyboardInterrupt) as error:
        from shoal.images.location import valid_text

        if debug:
            traceback.print_exc()
        code, line = _explain(error)
        click.echo(f"shoal: {valid_text(' '.join(filter(None, map(str.strip, line.splitlines()))))}", err=True)
        raise SystemExit(code) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and the one line for the person."""
    match error:
        case ShoalError():
            return error.exit_code, str(error)
        case click.UsageError():
            return 2, error.format_message() + (f" (see: {error.ctx.command_path} --help)" if error.ctx else "")
        case click.ClickException():
            return 1, error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED, "interrupted; the same command goes on from here"
        case OSError():
            return 1, str(explained(error))
        case _:
            return 1, f"unexpected {type(error).__name__}: {error} (please report it; --debug shows where)"
