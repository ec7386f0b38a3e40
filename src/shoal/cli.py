"""The command line: parse, call, print. Everything heavy is imported where it is used, so that help comes at once."""

# ruff: noqa: PLC0415

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from shoal import __version__
from shoal.config import DEFAULT_BACKBONE, DEVICES, FEATURES, METHODS, METRICS, RESIZES, ClusterConfig, three_numbers
from shoal.disk import explained
from shoal.errors import ConfigError, ShoalError

INTERRUPTED = 130


class _ThreeNumbers(click.ParamType[tuple[float, float, float]]):
    """One for each channel: `0.485,0.456,0.406`."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        return three_numbers(value, param.opts[0] if param else self.name)


THREE = _ThreeNumbers()
MINUS = "\N{MINUS SIGN}"  # stands for the hyphen of a word that is no option


class _TakingMinusWords(click.Command):
    """A command whose arguments may be words with a hyphen before them: `-snow`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [MINUS + arg[1:] if _is_minus_word(arg) else arg for arg in args])


def _is_minus_word(arg: str) -> bool:
    return re.fullmatch(r"-(?!-|h$|n[0-9]*$).+", arg) is not None


ON_RAY = click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Have a Ray cluster work: auto, HOST:PORT or ray://HOST:PORT; without ADDRESS one of this machine.",
)
MIXED = click.option(
    "--mixed", is_flag=True, help="With --ray: machines may differ in processors and versions, and so may last bits."
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


@shoal.command()
@click.argument("source", nargs=-1, required=True)
@click.option("--out", "out", type=click.Path(path_type=Path), help="Run directory.  [default: SOURCE-NAME.shoal]")
@click.option("--clusters", default="auto", show_default=True, help="auto, 10, 5-40 or 2-10,20-100:10.")
@click.option(
    "--backbone",
    default=DEFAULT_BACKBONE,
    show_default=True,
    help="Embedded backbone, any timm model, FILE.onnx, or clip:NAME/TAG.",
)
@click.option("--weights", metavar="FILE", help="Weights file for the backbone (.safetensors, .pth, .pt, .bin).")
@click.option(
    "--features", type=click.Choice(FEATURES), default="default", show_default=True, help="What is taken from it."
)
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True, help="How clusters are made.")
@click.option("--metric", type=click.Choice(METRICS), default="cosine", show_default=True, help="What near means.")
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the backbone runs."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same clusters.")
@click.option("--resize", type=click.Choice(RESIZES), default="crop", show_default=True, help="Centre crop, or squash.")
@click.option("--limit", type=int, metavar="N", help="Take only N images, spread over the source.")
@click.option("--embeddings", metavar="FILE", help="Your own, .npy or .parquet, in place of a backbone's.")
@click.option("--input-size", type=int, metavar="PIXELS", help="Of FILE.onnx: the side of its images.")
@click.option(
    "--input-mean", type=THREE, metavar="R,G,B", help="Of FILE.onnx: the mean that its images have, of 0 to 1."
)
@click.option("--input-std", type=THREE, metavar="R,G,B", help="Of FILE.onnx: the standard deviation, likewise.")
@click.option("--output", metavar="NAME", help="Of FILE.onnx: the output that the features are.  [default: found]")
@click.option("--vocabulary", metavar="FILE", help="Of clip:…: words to name clusters by, one or a phrase a line.")
@click.option(
    "--tokenizer", metavar="FOLDER", help="Of clip:…: its tokenizer, if that needs one.  [default: the hub's]"
)
@ON_RAY
@MIXED
@click.option("--no-report", is_flag=True, help="Stop at the clusters: no map, no report.")
def cluster(
    out: Path | None, no_report: bool, embeddings: str | None, ray: str | None, mixed: bool, **options: Any
) -> None:
    """Cluster the images of SOURCE.

    SOURCE is a folder, files, a quoted glob, a manifest (.txt, .csv, .parquet), a Parquet table with image bytes,
    a WebDataset tar, or a URI such as s3://bucket/photos. The same command goes on where a killed one stopped, and
    embeds only what is new when SOURCE has grown.

    With --embeddings no backbone runs: FILE.npy holds a row for each image, in the order of their paths (a manifest
    and a table have their own, files alone that in which they are named), FILE.parquet the columns path and embedding.

    \b
    Examples:
      shoal cluster photos/
      shoal cluster photos/ --clusters 10 --seed 1
      shoal cluster 'scans/*.tif' --clusters 5-40 --out scans.shoal
      shoal cluster products.csv --backbone resnet50 --weights resnet50.safetensors
      shoal cluster products.csv --embeddings products.npy
      shoal cluster photos/ --backbone dinov2.onnx --input-mean 0.485,0.456,0.406 --input-std 0.229,0.224,0.225
      shoal cluster photos/ --backbone clip:ViT-B-16/laion2b_s34b_b88k --vocabulary my-words.txt
      shoal cluster s3://bucket/photos --out /shared/photos.shoal --ray auto
    """
    from shoal import pipeline
    from shoal.distributed import executing
    from shoal.embed.given import open_given
    from shoal.images.sources import open_source
    from shoal.progress import TerminalProgress
    from shoal.rundir import RunDir
    from shoal.summary import cluster_summary

    given = None if embeddings is None else open_given(embeddings)
    config = ClusterConfig(**options, embeddings=None if given is None else given.asked)
    source = open_source(config.source)
    given = given and given.of_source(config.source)
    run_dir = RunDir(out or Path(pipeline.default_name(source)))
    report = None if no_report else pipeline.report_stages
    progress = TerminalProgress()
    with executing(ray, mixed, config.device, progress) as executor:
        stages = pipeline.clustering_stages(source, given, executor)
        run_dir = pipeline.run(config, run_dir, stages, progress, report)
    click.echo(cluster_summary(run_dir))


@shoal.command()
@click.argument("run")
@click.argument("source", nargs=-1, required=True)
@click.option("--to", "target", type=click.Path(path_type=Path), help="A new CSV file.  [default: standard output]")
@click.option("--cluster", "wanted", metavar="N|NAME", help="Only images of this cluster, surest first.")
@click.option("--embeddings", metavar="FILE", help="Of the new images, .npy or .parquet, as for shoal cluster.")
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the backbone runs."
)
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

    progress = TerminalProgress()
    if target is not None:
        check_target(target)
    if ray is not None and (target is None or embeddings is not None):
        raise ConfigError("--ray goes with --to FILE, on a path that all machines see, and not with --embeddings")
    given = None if embeddings is None else open_given(embeddings)
    opened = open_source(source)
    given = given and given.of_source(source)
    summary = AssignSummary()
    with ExitStack() as until_written:
        executor = until_written.enter_context(executing(ray, mixed, device, progress))
        model = Model.open(run, device, progress, with_encoder=given is None and executor.is_here)
        if executor.is_here or target is None:
            images = assign_images(model, opened, summary, progress, given)
        else:
            images = until_written.enter_context(assigned(executor, model, opened, target, device, summary, progress))
        if wanted is not None:
            images = iter(of_cluster(images, cluster_called(model.clusters, wanted)).to_batches())
        if target is None:
            write_csv(images, sys.stdout)
        else:
            write_file(images, target)
    for path, reason in summary.skipped:
        click.echo(f"skipped {path}: {reason}", err=True)
    where = f" -> {target}" if target else ""
    click.echo(
        f"{summary.assigned:,} images assigned, {summary.unknown:,} of them unknown, "
        f"{len(summary.skipped):,} skipped{where}",
        err=True,
    )


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("image")
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the backbone runs."
)
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


@shoal.command(cls=_TakingMinusWords)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many.")
def find(run: Path, words: tuple[str, ...], count: int) -> None:
    """List the images of RUN that show what WORDS say, the likeliest first.

    The words are those of the classifier that the backbone came with, their synonyms and plurals, and what they are
    kinds of: bird finds all birds. Several words: all of them together. -WORD: but not that.

    In a RUN that was made with --backbone clip:…, WORDS are one free text, and scores are cosines.

    \b
    Examples:
      shoal find photos.shoal penguin
      shoal find photos.shoal "polar bear" boat -n 50
      shoal find photos.shoal bird -penguin
      shoal find clip.shoal "two people in the rain" -umbrella
    """
    from shoal.find import find as look
    from shoal.rundir import RunDir

    query = " ".join(word.replace(MINUS, "-", 1) if word.startswith(MINUS) else word for word in words)
    found = look(RunDir.open(run), query, count)
    for line in found.notes:
        click.echo(line, err=True)
    click.echo(f"{'cosine' if found.is_cosine else ' score'}  cluster  path")
    for image in found.images:
        click.echo(f"{image.score:6.3f}  {image.cluster:7d}  {image.path}")


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--to", "kind", required=True, help="folders, csv, parquet, imagefolder, fiftyone or labelstudio.")
@click.option("--mode", default="copy", show_default=True, help="For folders: copy, link or move.")
@click.option(
    "--layout", default="long", show_default=True, help="For csv: long (a row an image) or wide (a column a cluster)."
)
@click.option("--numbers", is_flag=True, help="Call clusters by their numbers alone: cluster_007.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def export(run: Path, dest: Path, kind: str, mode: str, layout: str, numbers: bool, dry_run: bool) -> None:
    """Write the clusters of RUN out to DEST, for people or other programs.

    Folders are called by the names that people gave, or by number and guess: 07 monarch butterfly, 08 unnamed.

    Nothing that lies at DEST is overwritten, and a folder holds the export of one clustering: another one is refused. A
    move keeps a journal in DEST; `shoal undo DEST` puts every file back.

    \b
    Examples:
      shoal export photos.shoal --to folders sorted/ --dry-run
      shoal export photos.shoal --to folders sorted/ --mode link
      shoal export photos.shoal --to csv clusters.csv --layout wide
    """
    from shoal.export import export as write_out
    from shoal.progress import TerminalProgress
    from shoal.rundir import RunDir

    run_dir = RunDir.open(run)
    run_dir.require("cluster")
    result = write_out(
        run_dir,
        kind,
        dest,
        mode=mode,
        dry_run=dry_run,
        layout=layout,
        by_number=numbers,
        say=click.echo,
        progress=TerminalProgress(),
    )
    click.echo(result.summary())


@shoal.command()
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


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--labels", metavar="folders|FILE", help="Parent folders, or a CSV/Parquet file with path and label.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(run: Path, labels: str | None, as_json: bool) -> None:
    """Compare the clusters of RUN with labels: ACC, NMI, ARI, purity and a table of clusters.

    \b
    Examples:
      shoal evaluate cifar.shoal
      shoal evaluate photos.shoal --labels folders --json
      shoal evaluate photos.shoal --labels truth.csv
    """
    import json

    from shoal.evaluate.evaluate import evaluate as compare
    from shoal.evaluate.evaluate import keep
    from shoal.rundir import RunDir

    run_dir = RunDir.open(run)
    run_dir.require("cluster")
    result = compare(run_dir, labels)
    click.echo(json.dumps(result.to_json()) if as_json else result.text())  # also where it cannot be kept
    keep(run_dir.root, result)


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--all-k", is_flag=True, help="Also write a silhouette picture for every number of clusters looked at.")
def report(run: Path, show: bool, all_k: bool) -> None:
    """Write the report of RUN (again), and say where it is.

    \b
    Examples:
      shoal report photos.shoal --open
      shoal report photos.shoal --all-k
    """
    from shoal import pipeline
    from shoal.progress import TerminalProgress
    from shoal.rundir import RunDir

    run_dir = RunDir.open(run)
    run_dir.require("index", "embed", "neighbours", "cluster")
    config = ClusterConfig.from_json(run_dir.read_state().get("asked"))
    stages = [*pipeline.report_stages(again=True), *([pipeline.figures_stage()] if all_k else [])]
    run_dir = pipeline.run(config, run_dir, stages, TerminalProgress())
    page = run_dir.shown("report/index.html")
    if all_k:
        count = run_dir.read_state()["stages"]["figures"]["facts"]["pictures"]
        click.echo(f"{count} silhouette pictures in {page.parent}")
    click.echo(str(page))
    if show:
        click.launch(page.absolute().as_uri())


@shoal.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", nargs=-1, required=True)
def relink(run: Path, source: tuple[str, ...]) -> None:
    """Say where the images of RUN are now: in SOURCE.

    Sizes are compared, and some images byte for byte, before anything is written down; nothing is clustered again.
    A run that was moved together with its source finds it by itself.

    \b
    Examples:
      shoal relink photos.shoal /mnt/new-disk/photos
      shoal relink products.shoal moved/products.csv
    """
    from shoal.progress import TerminalProgress
    from shoal.relink import relink as find

    found, place = find(run, source, TerminalProgress())
    click.echo(found.summary(run, place))


@shoal.command()
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


@shoal.command()
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


@shoal.command()
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


@shoal.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo.shoal"), show_default=True, help="Run directory."
)
@click.option("--clusters", default="auto", show_default=True, help="As for shoal cluster.")
@click.option("--open", "show", is_flag=True, help="Open the report in the browser.")
def demo(out: Path, clusters: str, show: bool) -> None:
    """Cluster real images that come with Shoal, and compare with their labels.

    2,000 photographs of clothes (Fashion-MNIST, MIT licence); needs no network.
    """
    from shoal import pipeline
    from shoal.demo import demo_images
    from shoal.evaluate.evaluate import evaluate as compare
    from shoal.images.sources import open_source
    from shoal.progress import TerminalProgress
    from shoal.rundir import RunDir
    from shoal.summary import cluster_summary

    run_dir = RunDir(out)
    config = ClusterConfig(source=(str(demo_images()),), clusters=clusters)
    stages = [*pipeline.clustering_stages(open_source(config.source)), *pipeline.report_stages()]
    run_dir = pipeline.run(config, run_dir, stages, TerminalProgress())
    click.echo(compare(run_dir, None).text())
    click.echo(cluster_summary(run_dir))
    if show:
        click.launch(run_dir.shown("report/index.html").absolute().as_uri())


@shoal.command()
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
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the backbone runs."
)
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

    given = {name: value for name, value in options.items() if value != ()}
    tally = benches.run(BenchRequest(names=names, out=out, **given), TerminalProgress())
    click.echo(table.write(out))
    click.echo(f"{tally.results:,} results -> {out / 'table.md'}")
    if not tally.results:
        raise NothingMeasuredError(f"nothing was measured: {'; '.join(absence.why for absence in tally.absences)}")


@shoal.command()
def doctor() -> None:
    """Say what is installed, which engine and device will be used, and what is missing."""
    from shoal.doctor import findings

    found = findings()
    for well, line in found:
        click.echo(f"{'ok  ' if well else 'FAIL'}  {line}")
    if not all(well for well, _ in found):
        raise SystemExit(1)


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
        click.echo(f"shoal: {valid_text(' '.join(line.split()))}", err=True)
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
