"""A finished model, opened from a run, a model folder or the Hub: the encoder and the clusters it was fitted with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shoal.cluster.model import Assignment
from shoal.corrections.corrected import read_corrected
from shoal.corrections.model import CorrectedModel, corrected_model, load_model
from shoal.embed.engines import Engine
from shoal.embed.making import ENCODER_WEIGHTS
from shoal.embed.newcomers import Newcomers, embed_items, embed_picture
from shoal.embed.prepared import PreparedEncoder, prepare_saved
from shoal.embed.spec import EncoderSpec
from shoal.embeddings import Float32
from shoal.errors import RunError
from shoal.hub import model_place
from shoal.images.sources import Item
from shoal.progress import Progress
from shoal.publication import Folder, read_whole
from shoal.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder ready to run, and clusters to assign to."""

    prepared: PreparedEncoder
    engine: Engine
    clusters: CorrectedModel

    @classmethod
    def open(cls, folder: str | Path, device: str = "auto", progress: Progress | None = None) -> Model:
        """Open a run directory, a model folder (a run's `model/`, wherever it was copied to), or hf://OWNER/NAME.

        Raises:
            RunError: it is none of these, or is unfinished or of a newer format.
            RequestError, WorkError: the Hub has no such model, or cannot be reached.
        """
        place = model_place(folder, progress)

        def read(files: Folder) -> tuple[PreparedEncoder, CorrectedModel]:
            return _encoder(files, progress or Progress()), _clusters(place, files)

        prepared, clusters = read_whole(model_folder(place), read)
        return cls(prepared, prepared.engine(device), clusters)

    def embed(self, items: Iterable[Item]) -> Iterator[Newcomers]:
        """Features of new images, a batch at a time."""
        return embed_items(self.engine, self.prepared.spec, items)

    def embed_picture(self, data: bytes) -> Float32:
        """Features [1, dim] of one image given as a file's bytes. Raises DecodeError."""
        return embed_picture(self.engine, self.prepared.spec, data)

    def assign(self, newcomers: Newcomers) -> Assignment:
        return self.clusters.assign(newcomers.features)


def _encoder(files: Folder, progress: Progress) -> PreparedEncoder:
    try:
        config = json.loads((files / "config.json").read_text(encoding="utf-8"))
        spec = EncoderSpec.from_json(config["encoder"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{files} holds no readable model: {error}") from error
    return prepare_saved(spec, files / ENCODER_WEIGHTS, progress)


def _clusters(folder: Path, files: Folder) -> CorrectedModel:
    """The clusters of a model folder as they lie there, those of a run after its edits."""
    if is_model_folder(folder):
        return load_model(files)
    run_dir = RunDir.open(folder)
    return corrected_model(run_dir, read_corrected(run_dir))


def is_model_folder(folder: Path) -> bool:
    """True if this is a run's `model/`, a copy of one, or a publication."""
    return read_whole(folder, lambda files: all((files / name).is_file() for name in (ENCODER_WEIGHTS, "config.json")))


def model_folder(folder: Path) -> Path:
    """Where the model of a run or model folder lies."""
    if is_model_folder(folder):
        return folder
    run = RunDir.open(folder)
    run.require("embed", "cluster")
    return run.model
