"""Commands that train encoders, measure methods, and look at the machine."""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shoal.cli.options import DEVICE
from shoal.config import DEVICES, FEATURES, RESIZES


@click.command()
@click.argument("source", nargs=-1, required=True)
@click.option("--recipe", required=True, metavar="NAME|FILE", help="A recipe of Shoal's, or a .yaml file.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe: pretext.epochs=100.")
@click.option("--clusters", default="auto", show_default=True, help="auto (as the recipe says, or found), or 10.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of data sets by name.  [default: data]")
@click.option("--show-views", is_flag=True, help="Only draw the recipe's views of a few images, and say where.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory.  [default: SOURCE-NAME.shoal]")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same weights on a CPU.")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where it trains.")
@click.option("--resume", is_flag=True, help="Go on where a training stopped; on a finished run, say so.")
@click.option("--no-report", is_flag=True, help="Stop at the clusters: no map, no report.")
def train(no_report: bool, show_views: bool, **options: Any) -> None:
    """Learn an encoder from the images of SOURCE alone, and cluster with it.

    SOURCE is anything that `shoal cluster` takes, or a data set by name: cifar10, cifar100-20, stl10, each also with
    parts, such as cifar10:train+test. The run is like any other: assign, similar, report and export work on it.
    Several GPUs: torchrun --nproc-per-node N -m shoal train …

    \b
    Examples:
      shoal train scans/ --recipe cpu-small
      shoal train cifar10 --recipe scan-cifar10 --data datasets/
      shoal train photos/ --recipe cpu-small --clusters 12 --set pretext.epochs=100 --resume
      shoal train photos/ --recipe cpu-small --show-views
    """
    from shoal.encoder.needs import require_torch
    from shoal.progress import Progress, TerminalProgress
    from shoal.summary import cluster_summary

    require_torch("shoal train")
    from shoal.train.processes import is_leader
    from shoal.train.run import TrainRequest
    from shoal.train.run import train as learn

    request = TrainRequest(report=not no_report, **options)
    progress = TerminalProgress() if is_leader() else Progress()
    if show_views:
        from shoal.train.run import show_views as show

        click.echo(str(show(request, progress)))
        return
    run_dir, worked = learn(request, progress)
    if not is_leader():
        return
    if not worked:
        click.echo(f"{run_dir.root} is finished; nothing to resume")
    click.echo(cluster_summary(run_dir))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--data", multiple=True, metavar="DIR|NAME=DIR", help="Where data lies; NAME=DIR for one of them.")
@click.option("--classes", type=click.Path(path_type=Path), metavar="FILE", help="WordNet ids of an ImageNet subset.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bench.out"), show_default=True, help="Where results go."
)
@click.option("--backbone", "backbones", multiple=True, help="One or several.  [default: the embedded one]")
@click.option("--weights", multiple=True, metavar="BACKBONE=FILE", help="Weights file of a backbone.")
@click.option(
    "--features", type=click.Choice(FEATURES), multiple=True, help="As for shoal cluster.  [default: default]"
)
@click.option(
    "--method", "methods", multiple=True, help="One of Shoal's, sklearn-kmeans, evoc, hdbscan.  [default: all]"
)
@click.option(
    "--clusters", multiple=True, metavar="true|auto|K", help="true: as many as classes.  [default: true, auto]"
)
@click.option("--seeds", type=int, default=5, show_default=True, help="How many; they count from 0.")
@click.option("--resize", type=click.Choice(RESIZES), default="crop", show_default=True, help="Centre crop, or squash.")
@click.option("--limit", type=int, metavar="N", help="Take only N images of each split: a trial, no result.")
@DEVICE
@click.option("--download", is_flag=True, help="Let torchvision fetch data that is not there.")
def bench(names: tuple[str, ...], out: Path, **options: Any) -> None:
    """Measure clusterings on labelled data: methods by backbones by seeds, beside other packages and papers.

    NAME is cifar10, cifar100, cifar100-20, stl10, imagenet10, imagenet50, imagenet100, imagenet200, fashion-mnist,
    tinyimagenet-20, cifar10-lt, stamps or transfer. Fitting never sees labels; it is done on the training images, and
    figures are of the test images. The same command goes on where a killed one stopped.

    \b
    Examples:
      shoal bench cifar10 fashion-mnist --data datasets/
      shoal bench cifar10 --data datasets/ --method kmeans --method learned --seeds 10
      shoal bench imagenet50 --data imagenet/ --classes imagenet50.txt
      shoal bench transfer --data photos/
    """
    from shoal.bench import bench as benches
    from shoal.bench import table
    from shoal.bench.request import BenchRequest
    from shoal.errors import NothingMeasuredError
    from shoal.progress import TerminalProgress
    from shoal.wording import counted

    given = {name: value for name, value in options.items() if value != ()}
    tally = benches.run(BenchRequest(names=names, out=out, **given), TerminalProgress())
    click.echo(table.write(out))
    click.echo(f"{counted(tally.results, 'result')} -> {out / 'table.md'}")
    if not tally.results:
        raise NothingMeasuredError(f"nothing was measured: {'; '.join(absence.why for absence in tally.absences)}")


@click.command()
def doctor() -> None:
    """Say what is installed, which engine and device will be used, and what is missing."""
    from shoal.doctor import State, findings

    found = findings()
    for state, line in found:
        click.echo(f"{state.value:4}  {line}")
    if any(state is State.FAILED for state, _ in found):
        raise SystemExit(1)
