"""The folder that is published: what lies in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shoal import atomic
from shoal.cluster.model_file import NAMES
from shoal.corrections.corrected import Corrected, corrected_digest, read_corrected
from shoal.corrections.model import corrected_model
from shoal.encoder import onnx_texts
from shoal.encoder.names import full_name
from shoal.encoder.parts import parts_of
from shoal.encoder.spec import CONFIG, MODEL_FORMAT, NETWORK, WEIGHTS, EncoderSpec, ModelConfig
from shoal.errors import RunError, WorkError
from shoal.pictures.pictures import Pictures
from shoal.progress import Progress
from shoal.publication import MANIFEST, Manifest
from shoal.publish import architecture
from shoal.publish.card import HEADS, Card, recipe_of
from shoal.report import sheets, thumbnails
from shoal.report.findings import Findings
from shoal.report.page import shown_side
from shoal.report.selection import show
from shoal.rundir import RunDir, versions
from shoal.runfiles import GUESSES
from shoal.typed import shown

CARD: Final = "README.md"
ARCHITECTURE: Final = "architecture.png"
PROTOTYPES: Final = "prototypes.png"
STEPS: Final = 4
FILES: Final = {
    CARD: "this card",
    CONFIG: "the encoder: its architecture, and how images are prepared for it",
    WEIGHTS: "the encoder's weights",
    NETWORK: "the encoder, as an ONNX file",
    "clusters.json": "metric and thresholds of the clusters",
    "clusters.safetensors": "the space and the clusters' centroids",
    NAMES: "the clusters' names",
    GUESSES: "guesses of what the clusters show",
    ARCHITECTURE: "the picture of the architecture",
    PROTOTYPES: "each cluster's most confident images, small",
    MANIFEST: "these files' SHA-256, by which `shoal publish` knows what it may replace",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants published: how it is called, where `load` will find it, and what of it."""

    title: str
    address: str
    with_images: bool
    with_labels: bool
    license: str | None


def encoder_of(run_dir: RunDir) -> EncoderSpec:
    """The encoder of a run. Raises RunError if it has none."""
    spec = ModelConfig.read(run_dir.model / CONFIG).encoder
    if spec is None:
        raise RunError(
            f"{run_dir.root} was made of embeddings that were given, and has no encoder to publish; expected a run "
            f"with a backbone (a copy of {run_dir.shown('model')} does for shoal assign --embeddings)"
        )
    return spec


def write(run_dir: RunDir, wanted: Wanted, folder: Path, progress: Progress) -> list[str]:
    """Write everything that is published of a finished run into the empty `folder`. The same run, the same bytes.

    Returns:
        Lines for the person about what the card tells, or does not.

    Raises:
        RunError: the run is unfinished, or its model cannot be read.
        WorkError: it was changed meanwhile.
    """
    with progress.task("Publishing", STEPS, "steps") as task:
        before = corrected_digest(run_dir)
        corrected = read_corrected(run_dir)
        spec = _write_model(run_dir, corrected, wanted, folder)
        task.advance()
        findings = Findings.read(run_dir)
        if not wanted.with_labels:
            findings = replace(findings, evaluation=None)
        clusters = [show(findings, cluster) for cluster in findings.by_size]
        task.advance()
        missing: list[str] = []
        if wanted.with_images:
            ids = [number for shown in clusters[: sheets.MOST_ROWS] for number in shown.prototypes]
            side = shown_side(len(clusters))  # as in the report: its pictures are there already
            taken = thumbnails.take(Pictures(run_dir), findings.image, ids, (), side, progress)
            (folder / PROTOTYPES).write_bytes(sheets.prototypes_sheet(clusters, taken.pictures, findings.title))
            missing = [taken.sentence] if taken.missing else []
        task.advance()
        recipe = recipe_of(run_dir.path("train/recipe.json"))
        if recipe is not None and full_name(recipe["encoder"]["name"]) != spec.backbone:
            recipe = None  # it was trained, and clustered since with another backbone
        written = {path.name for path in folder.iterdir()} | {CARD, ARCHITECTURE, MANIFEST}
        card = Card(
            title=wanted.title,
            address=wanted.address,
            version=versions()["shoal"],
            findings=findings,
            clusters=clusters,
            spec=spec,
            model=corrected_model(run_dir, corrected),
            recipe=recipe,
            noise=corrected.noise,
            license=wanted.license,
            with_images=wanted.with_images,
            files={name: what for name, what in FILES.items() if name in written},
        )
        parts = parts_of(spec, folder / spec.file)
        is_head = findings.facts.get("method") in HEADS and not findings.is_refitted
        (folder / ARCHITECTURE).write_bytes(architecture.draw(spec, parts, card.model, card.origin, is_head))
        (folder / CARD).write_text(card.render(), encoding="utf-8")
        task.advance()
    if corrected_digest(run_dir) != before:
        raise WorkError(f"{run_dir.root} was changed while it was being published; publish it again")
    Manifest.of(folder).write(folder)
    return missing + _notes(run_dir, wanted, findings) + _told_by(folder / spec.file if spec.is_onnx else None)


def _told_by(network: Path | None) -> list[str]:
    """What an ONNX file gives away, which is published as it is."""
    path = None if network is None else onnx_texts.absolute_path(network)
    if path is None:
        return []
    return [
        f"{NETWORK} names folders of the machine that it was exported on, such as {shown(path)}, for all who get it to "
        "read; docs/publishing.md says how it is written without them."
    ]


def _notes(run_dir: RunDir, wanted: Wanted, findings: Findings) -> list[str]:
    if findings.evaluation is not None:
        return ["The card names the images' labels; --no-labels leaves them out."]
    if wanted.with_labels and run_dir.evaluation.is_file():
        return ["The evaluation is of earlier clusters or names, and not in the card; shoal evaluate makes it anew."]
    return []


def _write_model(run_dir: RunDir, corrected: Corrected, wanted: Wanted, folder: Path) -> EncoderSpec:
    """What `assign` needs, with people's corrections in it."""
    spec = encoder_of(run_dir)
    config = {"format_version": MODEL_FORMAT, "encoder": spec.to_json()}
    shutil.copyfile(run_dir.model / spec.file, folder / spec.file)
    atomic.write_json(folder / CONFIG, {**config, "library_name": "shoal", "name": wanted.title})
    found = corrected_model(run_dir, corrected)
    found.model.save(folder, found.numbers, found.names)
    if found.guesses is not None:
        atomic.write_json(folder / GUESSES, replace(found.guesses, coarse=(), fine=()).to_json())
    for path in folder.iterdir():  # safetensors makes files that nobody else may read
        shutil.copymode(folder / CONFIG, path)
    return spec
