"""Commands that make runs, and say how good they are."""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shoal.cli.options import DEVICE, MIXED, ON_RAY, THREE
from shoal.config import DEFAULT_BACKBONE, FEATURES, METHODS, METRICS, RESIZES, ClusterConfig


@click.command()
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
@DEVICE
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


@click.command()
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


@click.command()
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
    from shoal.wording import counted

    run_dir = RunDir.open(run)
    run_dir.require("index", "embed", "neighbours", "cluster")
    config = ClusterConfig.from_json(run_dir.read_state().get("asked"))
    stages = [*pipeline.report_stages(again=True), *([pipeline.figures_stage()] if all_k else [])]
    run_dir = pipeline.run(config, run_dir, stages, TerminalProgress())
    page = run_dir.shown("report/index.html")
    if all_k:
        count = run_dir.read_state()["stages"]["figures"]["facts"]["pictures"]
        click.echo(f"{counted(count, 'silhouette picture')} in {page.parent}")
    click.echo(str(page))
    if show:
        click.launch(page.absolute().as_uri())


@click.command()
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


@click.command()
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
