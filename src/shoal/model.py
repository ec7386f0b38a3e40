"""A finished model, opened from a run, a model folder or the Hub: the encoder and the clusters it was fitted with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shoal.cluster.model import Assignment
from shoal.corrections.corrected import read_corrected
from shoal.corrections.model import CorrectedModel, corrected_model, load_model
from shoal.embed.given import Given
from shoal.embed.matching import newcomers_of
from shoal.embed.newcomers import Newcomers, embed_items, embed_picture
from shoal.embeddings import Float32
from shoal.encoder.engines import Engine
from shoal.encoder.prepared import PreparedEncoder, prepare_saved
from shoal.encoder.spec import CONFIG, ModelConfig
from shoal.errors import EmbeddingsError, RunError
from shoal.hub import model_place
from shoal.images.item import Item
from shoal.images.listed import Listed
from shoal.progress import Progress
from shoal.publication import read_whole
from shoal.rundir import RunDir
from shoal.runfiles import Folder
from shoal.spool import Spool


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder ready to run, and clusters to assign to; no encoder where embeddings were given, or are."""

    place: str
    clusters: CorrectedModel
    encoder: tuple[PreparedEncoder, Engine] | None

    @classmethod
    def open(
        cls,
        place: str | Path | RunDir,
        device: str = "auto",
        progress: Progress | None = None,
        *,
        with_encoder: bool = True,
    ) -> Model:
        """Open a run, a model folder (a run's `model/`, wherever it was copied to), or hf://OWNER/NAME.

        Args:
            with_encoder: start the encoder; not needed where features are given.

        Raises:
            RunError: it is none of these, or is unfinished or of a newer format.
            RequestError, WorkError: the Hub has no such model, or cannot be reached.
        """
        opened = place if isinstance(place, RunDir) else _opened(model_place(place, progress))

        def read(files: Folder) -> tuple[PreparedEncoder | None, CorrectedModel]:
            clusters = (
                load_model(files) if isinstance(opened, Path) else corrected_model(opened, read_corrected(opened))
            )
            return _prepared(files, clusters, progress or Progress()) if with_encoder else None, clusters

        if isinstance(opened, Path):
            prepared, clusters = read_whole(opened, read)
        else:
            opened.require("embed", "cluster")
            prepared, clusters = read(opened.model)
        name = str(opened.root if isinstance(opened, RunDir) else place)
        return cls(name, clusters, None if prepared is None else (prepared, prepared.engine(device)))

    @property
    def dim(self) -> int:
        """Of the features."""
        return len(self.clusters.model.space.mean)

    @property
    def engine(self) -> Engine:
        """That the encoder runs in. Raises RunError if there is none."""
        return self._encoder()[1]

    def embed(self, items: Iterable[Item], spool: Spool | None = None) -> Iterator[Newcomers]:
        """Features of new images, a batch at a time; `spool` is their source's. Raises RunError without an encoder."""
        prepared, engine = self._encoder()
        return embed_items(engine, prepared.spec, items, spool)

    def take(self, given: Given, listed: Listed, spool: Spool) -> Iterator[Newcomers]:
        """Given features of new images, some at a time.

        Raises:
            EmbeddingsError: they have other dimensions than the model's, or do not fit what is listed.
        """
        if given.dim != self.dim:
            raise EmbeddingsError(
                f"{given.name} has rows of {given.dim:,} numbers; expected {self.dim:,}, as {self.place} was made of"
            )
        return newcomers_of(given, listed, spool)

    def embed_picture(self, data: bytes) -> Float32:
        """Features [1, dim] of one image given as a file's bytes. Raises DecodeError; RunError without an encoder."""
        prepared, engine = self._encoder()
        return embed_picture(engine, prepared.spec, data)

    def assign(self, newcomers: Newcomers) -> Assignment:
        return self.clusters.assign(newcomers.features)

    def _encoder(self) -> tuple[PreparedEncoder, Engine]:
        if self.encoder is None:
            raise RunError(
                f"{self.place} was made of embeddings that were given, and has no encoder for new images; expected "
                "their embeddings too (shoal assign --embeddings), or an image of the run"
            )
        return self.encoder


def _prepared(files: Folder, clusters: CorrectedModel, progress: Progress) -> PreparedEncoder | None:
    spec = ModelConfig.read(files / CONFIG).encoder
    if spec is None:
        return None
    dim = len(clusters.model.space.mean)
    if dim != spec.dim:  # of a run of before generations that was killed when half new
        raise RunError(
            f"{files / 'clusters.json'} is of features with {dim:,} dimensions, and the encoder beside it gives "
            f"{spec.dim:,}: the clusters are stale; run the same shoal cluster again"
        )
    if not (files / spec.file).is_file():
        raise RunError(f"{files / spec.file} is not there, though {CONFIG} tells of an encoder that lies in it")
    return prepare_saved(spec, files / spec.file, progress)


def is_model_folder(folder: Path) -> bool:
    """True if this is a run's `model/`, a copy of one, or a publication."""
    return read_whole(folder, lambda files: all((files / name).is_file() for name in ("clusters.json", CONFIG)))


def _opened(folder: Path) -> Path | RunDir:
    return folder if is_model_folder(folder) else RunDir.open(folder)
