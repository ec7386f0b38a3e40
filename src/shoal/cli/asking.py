"""Commands that ask a run, or a model, about images."""

# ruff: noqa: PLC0415

from __future__ import annotations

import sys
from pathlib import Path

import click

from shoal.cli.options import DEVICE, MINUS, MIXED, ON_RAY, TakingMinusWords
from shoal.errors import ConfigError


@click.command()
@click.argument("run")
@click.argument("source", nargs=-1, required=True)
@click.option("--to", "target", type=click.Path(path_type=Path), help="A new CSV file.  [default: standard output]")
@click.option("--cluster", "wanted", metavar="N|NAME", help="Only images of this cluster, surest first.")
@click.option("--embeddings", metavar="FILE", help="Of the new images, .npy or .parquet, as for shoal cluster.")
@DEVICE
@ON_RAY
@MIXED
def assign(
    run: str,
    source: tuple[str, ...],
    target: Path | None,
    wanted: str | None,
    embeddings: str | None,
    device: str,
    ray: str | None,
    mixed: bool,
) -> None:
    """Put new images into the clusters of RUN.

    RUN is a run directory, a model folder, or a model on the Hugging Face Hub: hf://OWNER/NAME. Each image gets its
    nearest cluster, a confidence from 0 to 1, and `unknown` if it is farther from that cluster than the images it was
    made of. With --cluster only those are listed that belong to one, without the unknown. A RUN that was made with
    --embeddings has no encoder: it takes those of the new images, by the same model.

    \b
    Examples:
      shoal assign photos.shoal new-photos/ --to new.csv
      shoal assign photos.shoal holiday.jpg
      shoal assign hf://me/photos new-photos/ --cluster beaches
      shoal assign products.shoal new.csv --embeddings new.npy
      shoal assign /shared/photos.shoal s3://bucket/new --to /shared/new.csv --ray auto
    """
    from contextlib import ExitStack

    from shoal.assign import AssignSummary, check_target, cluster_called, of_cluster, write_csv, write_file
    from shoal.assign import assign as assign_images
    from shoal.assign_blocks import assigned
    from shoal.distributed import executing
    from shoal.embed.given import open_given
    from shoal.images.sources import open_source
    from shoal.model import Model
    from shoal.progress import TerminalProgress
    from shoal.wording import counted

    progress = TerminalProgress()
    if target is not None:
        check_target(target)
    if ray is not None and (target is None or embeddings is not None):
        raise ConfigError("--ray goes with --to FILE, on a path that all machines see, and not with --embeddings")
    given = None if embeddings is None else open_given(embeddings)
    opened = open_source(source)
    given = given and given.of_source(source)
    summary, listed = AssignSummary(), ""
    with ExitStack() as until_written:
        executor = until_written.enter_context(executing(ray, mixed, device, progress))
        model = Model.open(run, device, progress, with_encoder=given is None and executor.is_here)
        if executor.is_here or target is None:
            images = assign_images(model, opened, summary, progress, given)
        else:
            images = until_written.enter_context(assigned(executor, model, opened, target, device, summary, progress))
        if wanted is not None:
            found = of_cluster(images, cluster_called(model.clusters, wanted))
            images, listed = iter(found.to_batches()), f"; listed: {found.num_rows:,} of cluster {wanted}"
        if target is None:
            write_csv(images, sys.stdout)
        else:
            write_file(images, target)
    for path, reason in summary.skipped:
        click.echo(f"skipped {path}: {reason}", err=True)
    where = f" -> {target}" if target else ""
    click.echo(
        f"{counted(summary.assigned, 'image')} assigned, {summary.unknown:,} of them unknown, "
        f"{len(summary.skipped):,} skipped{listed}{where}",
        err=True,
    )


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("image")
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@DEVICE
def similar(run: Path, image: str, count: int, device: str) -> None:
    """List the images of RUN nearest to IMAGE, nearest first.

    IMAGE is a file or URI, or an image of RUN by the path that clusters.parquet has.

    \b
    Examples:
      shoal similar photos.shoal cat.jpg -n 5
      shoal similar photos.shoal holiday/IMG_0042.jpg
    """
    from shoal.progress import TerminalProgress
    from shoal.rundir import RunDir
    from shoal.similar import similar as find

    images = find(RunDir.open(run), image, count, device, TerminalProgress())
    click.echo("similarity  cluster  path")
    for found in images:
        click.echo(f"{found.similarity:10.4f}  {found.cluster:7d}  {found.path}")


@click.command(cls=TakingMinusWords)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many.")
def find(run: Path, words: tuple[str, ...], count: int) -> None:
    """List the images of RUN that show what WORDS say, the likeliest first.

    The words are those of the classifier that the backbone came with, their synonyms and plurals, and what they are
    kinds of: bird finds all birds. Several words: all of them together. -WORD: but not that. Images that they fit by
    less than 2 % are not listed.

    In a RUN that was made with --backbone clip:…, WORDS are one free text, and scores are cosines.

    \b
    Examples:
      shoal find photos.shoal penguin
      shoal find photos.shoal "polar bear" boat -n 50
      shoal find photos.shoal bird -penguin
      shoal find clip.shoal "two people in the rain" -umbrella
    """
    from shoal.find import NONE_FITS
    from shoal.find import find as look
    from shoal.rundir import RunDir

    query = " ".join(word.replace(MINUS, "-", 1) if word.startswith(MINUS) else word for word in words)
    found = look(RunDir.open(run), query, count)
    for line in found.notes:
        click.echo(line, err=True)
    if not found.images:
        click.echo(NONE_FITS, err=True)
        return
    click.echo(f"{'cosine' if found.is_cosine else ' score'}  cluster  path")
    for image in found.images:
        click.echo(f"{image.score:6.3f}  {image.cluster:7d}  {image.path}")
