"""A finished model, opened from a run, a model folder or the Hub: the encoder and the clusters it was fitted with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shoal.cluster.model import Assignment
from shoal.corrections.corrected import read_corrected
from shoal.corrections.model import CorrectedModel, corrected_model, load_model
from shoal.embed.newcomers import Newcomers, embed_items, embed_picture
from shoal.embeddings import Float32
from shoal.encoder.engines import Engine
from shoal.encoder.making import ENCODER_WEIGHTS
from shoal.encoder.prepared import PreparedEncoder, prepare_saved
from shoal.encoder.spec import CONFIG, ModelConfig
from shoal.errors import RunError
from shoal.hub import model_place
from shoal.images.sources import Item
from shoal.progress import Progress
from shoal.publication import read_whole
from shoal.rundir import RunDir
from shoal.runfiles import Folder
from shoal.spool import Spool


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder ready to run, and clusters to assign to."""

    prepared: PreparedEncoder
    engine: Engine
    clusters: CorrectedModel

    @classmethod
    def open(cls, place: str | Path | RunDir, device: str = "auto", progress: Progress | None = None) -> Model:
        """Open a run, a model folder (a run's `model/`, wherever it was copied to), or hf://OWNER/NAME.

        Raises:
            RunError: it is none of these, or is unfinished or of a newer format.
            RequestError, WorkError: the Hub has no such model, or cannot be reached.
        """
        opened = place if isinstance(place, RunDir) else _opened(model_place(place, progress))

        def read(files: Folder) -> tuple[PreparedEncoder, CorrectedModel]:
            clusters = (
                load_model(files) if isinstance(opened, Path) else corrected_model(opened, read_corrected(opened))
            )
            return _encoder(files, clusters, progress or Progress()), clusters

        if isinstance(opened, Path):
            prepared, clusters = read_whole(opened, read)
        else:
            opened.require("embed", "cluster")
            prepared, clusters = read(opened.model)
        return cls(prepared, prepared.engine(device), clusters)

    def embed(self, items: Iterable[Item], spool: Spool | None = None) -> Iterator[Newcomers]:
        """Features of new images, a batch at a time; `spool` is their source's."""
        return embed_items(self.engine, self.prepared.spec, items, spool)

    def embed_picture(self, data: bytes) -> Float32:
        """Features [1, dim] of one image given as a file's bytes. Raises DecodeError."""
        return embed_picture(self.engine, self.prepared.spec, data)

    def assign(self, newcomers: Newcomers) -> Assignment:
        return self.clusters.assign(newcomers.features)


def _encoder(files: Folder, clusters: CorrectedModel, progress: Progress) -> PreparedEncoder:
    spec = ModelConfig.read(files / CONFIG).encoder
    dim = len(clusters.model.space.mean)
    if dim != spec.dim:  # of a run of before generations that was killed when half new
        raise RunError(
            f"{files / 'clusters.json'} is of features with {dim:,} dimensions, and the encoder beside it gives "
            f"{spec.dim:,}: the clusters are stale; run the same shoal cluster again"
        )
    return prepare_saved(spec, files / ENCODER_WEIGHTS, progress)


def is_model_folder(folder: Path) -> bool:
    """True if this is a run's `model/`, a copy of one, or a publication."""
    return read_whole(folder, lambda files: all((files / name).is_file() for name in (ENCODER_WEIGHTS, CONFIG)))


def _opened(folder: Path) -> Path | RunDir:
    return folder if is_model_folder(folder) else RunDir.open(folder)
