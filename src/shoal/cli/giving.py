"""Commands that give a run to people or to other programs."""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shoal.cli.options import MIXED, ON_RAY
from shoal.errors import ConfigError


@click.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others can reach it then.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--no-open", is_flag=True, help="Do not open the browser.")
def browse(run: str, host: str, port: int, no_open: bool) -> None:
    """Look at RUN in the browser, correct it, and take it away.

    RUN is a run directory, or a model (a folder, or hf://OWNER/NAME) to try with images of your own. The address
    carries a secret: whoever has it can see the images. Ctrl-C ends it.

    \b
    Examples:
      shoal browse photos.shoal
      shoal browse photos.shoal --no-open --port 8000
    """
    from contextlib import ExitStack

    from shoal.browse.opening import shown
    from shoal.browse.server import serve
    from shoal.hub import model_place
    from shoal.progress import TerminalProgress

    def opened(address: str) -> None:
        click.echo(f"{run} is at {address}")
        click.echo("Ctrl-C ends it.")
        if not no_open:
            until_its_end.enter_context(shown(address))

    with ExitStack() as until_its_end:
        serve(model_place(run, TerminalProgress()), host, port, opened, lambda line: click.echo(line, err=True))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--to", "kind", required=True, help="folders, csv, parquet, imagefolder, fiftyone or labelstudio.")
@click.option("--mode", default="copy", show_default=True, help="For folders: copy, link or move.")
@click.option(
    "--layout", default="long", show_default=True, help="For csv: long (a row an image) or wide (a column a cluster)."
)
@click.option("--numbers", is_flag=True, help="Call clusters by their numbers alone: cluster_007.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@ON_RAY
@MIXED
def export(
    run: Path,
    dest: Path,
    kind: str,
    mode: str,
    layout: str,
    numbers: bool,
    dry_run: bool,
    ray: str | None,
    mixed: bool,
) -> None:
    """Write the clusters of RUN out to DEST, for people or other programs.

    Folders are called by the names that people gave, or by number and guess: 07 monarch butterfly, 08 unnamed.

    Nothing that lies at DEST is overwritten, and a folder holds the export of one clustering: another one is refused. A
    move keeps a journal in DEST; `shoal undo DEST` puts every file back.

    \b
    Examples:
      shoal export photos.shoal --to folders sorted/ --dry-run
      shoal export photos.shoal --to folders sorted/ --mode link
      shoal export photos.shoal --to csv clusters.csv --layout wide
      shoal export /shared/photos.shoal --to parquet /shared/clusters.parquet --ray auto
    """
    from shoal.distributed import executing
    from shoal.export import export as write_out
    from shoal.progress import TerminalProgress
    from shoal.rundir import RunDir

    if ray is not None and kind != "parquet":
        raise ConfigError(f"--ray goes with --to parquet; got --to {kind}")
    run_dir = RunDir.open(run)
    run_dir.require("cluster")
    progress = TerminalProgress()
    with executing(ray, mixed, "cpu", progress) as executor:
        result = write_out(
            run_dir,
            kind,
            dest,
            mode=mode,
            dry_run=dry_run,
            layout=layout,
            by_number=numbers,
            say=click.echo,
            progress=progress,
            executor=executor,
        )
    click.echo(result.summary())


@click.command()
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Put files back into this folder only; for a DEST that was not made here.",
)
def undo(dest: Path, source: Path | None) -> None:
    """Put back every file that `shoal export --mode move` moved to DEST.

    Your own exports go back to where the files were. A DEST that comes from elsewhere, or from another machine, is
    believed only if you say with --source which folder its files may go into. Nothing is ever overwritten.

    \b
    Examples:
      shoal undo sorted/
      shoal undo /media/disk/sorted/ --source photos/
    """
    from shoal.export import undo as put_back
    from shoal.progress import TerminalProgress

    result = put_back(dest, source=source, progress=TerminalProgress())
    click.echo(result.summary())
    if result.left:
        raise SystemExit(1)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", "to", required=True, metavar="FOLDER|hf://OWNER/NAME", help="Where the model goes.")
@click.option("--public", is_flag=True, help="On the Hub: let everybody see it. Otherwise only its owner does.")
@click.option("--with-images", is_flag=True, help="Show each cluster's most confident images in the card.")
@click.option("--no-labels", is_flag=True, help="Leave the evaluation out, and with it the names of labels.")
@click.option("--license", metavar="NAME", help="Of the model: apache-2.0, cc-by-4.0, …  [default: the backbone's]")
def publish(run: Path, to: str, no_labels: bool, **options: Any) -> None:
    """Write the model of RUN, with a model card, for others to use.

    What is written has the Hugging Face Hub's form: weights as safetensors, config.json, README.md with clusters,
    settings, data and licence, a picture of the architecture. Corrections made in `shoal browse` are in it; the images
    are not, nor is where they lie. What was published there before is replaced as a whole, nothing else overwritten.

    \b
    Examples:
      shoal publish photos.shoal --to photos-model/
      shoal publish photos.shoal --to hf://me/photos
      shoal publish demo.shoal --to hf://me/clothes --public --with-images --license apache-2.0
    """
    from shoal.progress import TerminalProgress
    from shoal.publish.publish import publish as write_out
    from shoal.rundir import RunDir

    done = write_out(RunDir.open(run), to, with_labels=not no_labels, progress=TerminalProgress(), **options)
    click.echo(done.summary())
