"""The Python face of Shoal: `ImageClusterer`."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from shoal import pipeline, plain
from shoal.assign import AssignSummary, cluster_called, of_cluster
from shoal.assign import assign as assign_images
from shoal.config import DEFAULT_BACKBONE, ClusterConfig, whole_number
from shoal.corrections.corrected import corrected_table, read_corrected
from shoal.corrections.shown import read_shown
from shoal.corrections.why import why
from shoal.embed.given import open_given
from shoal.errors import RunError, SourceError
from shoal.find import find
from shoal.hub import model_place
from shoal.images.from_python import Picture, Source, opened_source
from shoal.images.in_memory import EXPECTED, InMemorySource, is_picture
from shoal.model import Model, is_model_folder
from shoal.progress import Progress, TerminalProgress
from shoal.rundir import RunDir
from shoal.similar import similar

if TYPE_CHECKING:
    from typing import Self

Embeddings = str | Path | npt.NDArray[np.floating]

_FOUND = pa.schema([("id", pa.int64()), ("path", pa.string()), ("score", pa.float64()), ("cluster", pa.int64())])

# What `fit` asks for besides its images: the parameters of an ImageClusterer that have these names.
OPTIONS = tuple(field.name for field in dataclasses.fields(ClusterConfig) if field.name not in ("source", "embeddings"))


class ImageClusterer:
    """Cluster images without labels; the options are those of `shoal cluster`.

    Args:
        clusters: `auto`, a number, or ranges such as `5-40` or `2-10,20-100:10`.
        backbone: the embedded backbone's name, any timm model's, or the path of an ONNX file.
        weights: weights file for the backbone; None takes the embedded or the hub's.
        features: `default`, `map`, `logits`, `probabilities` or `best`.
        method: `auto`, `kmeans`, `learned`, `graph` or `density`.
        metric: `cosine` or `euclidean`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        seed: the same seed, source, machine and versions give the same clusters.
        resize: `crop` or `squash`.
        limit: take only so many images, spread over the source.
        input_size: of an ONNX file that does not say so: the side of its images, pixels.
        input_mean: likewise, one for each channel: the mean that its images have, scaled to 0..1.
        input_std: likewise: their standard deviation.
        output: of an ONNX file: the name of the output that the features are; None finds one.
        vocabulary: of `clip:…`: a text file with a word or phrase a line, by which clusters are named; None takes the
            classes of ImageNet-1k.
        tokenizer: likewise: the folder of its tokenizer, where that is not open_clip's own; None asks the hub.
        out: run directory to write and go on with; None uses a temporary one, kept by `save`.
        verbose: show progress on standard error.

    Attributes:
        clusters_: DataFrame with id, path, cluster, confidence, unsure, silhouette, runner_up, name, name_strength; a
            row an image; as people corrected them, if they did. A name is a person's or, where it has a strength, a
            guess of what the cluster shows.
        labels_: int32 array, the `cluster` column.
        n_clusters_: how many clusters were made.
        why_: one sentence saying why that many.
        run_dir_: where the run lies.

    Example:
        >>> from shoal import ImageClusterer                                    # doctest: +SKIP
        >>> clusterer = ImageClusterer(clusters=10).fit("photos/")              # doctest: +SKIP
        >>> clusterer.clusters_.groupby("cluster").size()                       # doctest: +SKIP
    """

    def __init__(
        self,
        clusters: str | int = "auto",
        *,
        backbone: str | Path = DEFAULT_BACKBONE,
        weights: str | Path | None = None,
        features: str = "default",
        method: str = "auto",
        metric: str = "cosine",
        device: str = "auto",
        seed: int = 0,
        resize: str = "crop",
        limit: int | None = None,
        input_size: int | None = None,
        input_mean: Sequence[float] | None = None,
        input_std: Sequence[float] | None = None,
        output: str | None = None,
        vocabulary: str | Path | None = None,
        tokenizer: str | Path | None = None,
        out: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.clusters = clusters
        self.backbone = backbone
        self.weights = weights
        self.features = features
        self.method = method
        self.metric = metric
        self.device = device
        self.seed = seed
        self.resize = resize
        self.limit = limit
        self.input_size = input_size
        self.input_mean = input_mean
        self.input_std = input_std
        self.output = output
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer
        self.out = out
        self.verbose = verbose
        self._folder: Path | None = None
        self._temporary: _TemporaryFolder | None = None  # that the run lies in
        self._models: dict[bool, Model] = {}  # by whether their encoder is started

    def fit(self, source: Source, *, embeddings: Embeddings | None = None) -> Self:
        """Cluster `source`: a folder, files, a glob, a manifest, a table, a zip, a tar or a URI.

        Or several of them: a list of paths, or a DataFrame with a column of paths, called as in a manifest.
        Or pictures: PIL images or uint8 arrays [height, width], [height, width, 3] or [height, width, 4], or one array
        of all of them; they are kept in the run, and their paths are their numbers.

        Args:
            embeddings: of those images, in place of a backbone's: an array, floats [images, dimensions], in the order
                of `source`, or the path of a .npy or .parquet file, as for `shoal cluster --embeddings`.

        Raises:
            ConfigError, SourceError, EmbeddingsError, WeightsError, RunError: the request was wrong.
            NoImagesError, TooFewImagesError, DiskSpaceError, RunLockedError: the work failed.
        """
        given = None if embeddings is None else open_given(embeddings)
        spec, opened = opened_source(source, self._progress())
        given = given and given.of_source(spec)
        asked = {name: getattr(self, name) for name in OPTIONS}
        config = ClusterConfig.of(spec, **asked, embeddings=None if given is None else given.asked)
        temporary = None
        if self.out is None:
            temporary = _TemporaryFolder()
            folder = temporary.path / "run"
        else:
            folder = Path(self.out)
        pipeline.run(config, RunDir(folder), pipeline.clustering_stages(opened, given), self._progress())
        self._temporary = temporary
        return self._opened(folder)

    def fit_predict(self, source: Source, *, embeddings: Embeddings | None = None) -> npt.NDArray[np.int32]:
        """Fit, and return the cluster of every usable image, int32 [n], in the order of `clusters_`."""
        return self.fit(source, embeddings=embeddings).labels_

    def predict(self, source: Source, *, embeddings: Embeddings | None = None) -> pd.DataFrame:
        """Assign new images: path, cluster, confidence, unknown, unsure, runner_up, name, name_strength of each.

        Images that cannot be read, or have no embedding, are left out; `NoImagesError` if all are.

        Args:
            source, embeddings: as for `fit`. Without embeddings the encoder looks at the images; what was fitted to
                embeddings has none (`RunError`).
        """
        found: pd.DataFrame = pa.Table.from_batches(self._assigned(source, embeddings)).to_pandas()
        return found

    def retrieve(self, source: Source, cluster: int | str, *, embeddings: Embeddings | None = None) -> pd.DataFrame:
        """The images of `source` that belong to a cluster, surest first: rows as of `predict`.

        Args:
            cluster: its number, or its name: a person's before a guess.

        Raises:
            RequestError: there is no such cluster. NoImagesError: no image can be read.
        """
        wanted = cluster_called(self._opened_model(with_encoder=embeddings is None).clusters, cluster)
        found: pd.DataFrame = of_cluster(self._assigned(source, embeddings), wanted).to_pandas()
        return found

    def transform(self, source: Source) -> npt.NDArray[np.float32]:
        """Raw features of new images, float32 [n, dim], in the source's order without those that cannot be read."""
        model = self._opened_model()
        _, opened = opened_source(source, self._progress())
        found = [newcomers.features for newcomers in model.embed(opened.listed().items(), opened.spool)]
        return np.concatenate(found) if found else np.empty((0, model.dim), np.float32)

    def similar(self, image: str | Path | Picture, n: int = 20) -> pd.DataFrame:
        """The `n` nearest images of the run: a DataFrame with id, path, similarity, cluster.

        Args:
            image: a path or URI, the `path` of an image of the run, or a picture.

        Raises:
            ConfigError: `n` is no whole number from 1 up. SourceError, NoImagesError: there is no such image, or it
                cannot be read.
        """
        count = whole_number(n, "n", 1)
        if not isinstance(image, str | Path) and not is_picture(image):
            raise SourceError(
                f"image is of type {type(image).__name__}; expected the path or URI of an image, or {EXPECTED}"
            )
        query = str(image) if isinstance(image, str | Path) else InMemorySource([image])
        found = similar(self.run_dir_, query, count, self.device, self._progress())
        return pd.DataFrame([dataclasses.asdict(one) for one in found], columns=["id", "path", "similarity", "cluster"])

    def find(self, words: str, n: int = 20) -> pd.DataFrame:
        """The `n` images of the run that show what `words` say best: a DataFrame with id, path, score, cluster.

        There are fewer, or none, where words fit fewer by 2 %: a score of 0.02.

        Args:
            words: `penguin ice`: both; `bird -penguin`: no penguins; `"polar bear"`: one phrase. Of a run with a
                backbone `clip:…` one free text, whose scores are cosines, the best however low.

        Raises:
            RequestError: a word is not known. RunError: the run has no classifier to search with.
            ConfigError: `n` is no whole number from 1 up; or free text needs a package that is not installed.
        """
        found = find(self.run_dir_, words, whole_number(n, "n", 1)).images
        table: pd.DataFrame = pa.Table.from_pylist([dataclasses.asdict(one) for one in found], _FOUND).to_pandas()
        return table

    @property
    def run_dir_(self) -> RunDir:
        if self._folder is None or not (self._folder / "run.json").is_file():
            raise RunError("this ImageClusterer has no run; call fit(source) or load(run) first")
        return RunDir.open(self._folder)

    @property
    def clusters_(self) -> pd.DataFrame:
        run_dir = self.run_dir_
        corrected = read_corrected(run_dir)
        table: pd.DataFrame = corrected_table(run_dir, corrected).to_pandas()
        shown = read_shown(run_dir, corrected)
        table["name"] = table["cluster"].map({number: one.name for number, one in shown.items()}).astype(object)
        strengths = {number: one.strength for number, one in shown.items() if one.strength is not None}
        table["name_strength"] = table["cluster"].map(strengths).astype(np.float32)
        return table

    @property
    def labels_(self) -> npt.NDArray[np.int32]:
        return read_corrected(self.run_dir_).cluster

    @property
    def n_clusters_(self) -> int:
        run_dir = self.run_dir_
        run_dir.require("cluster")
        return len(read_corrected(run_dir).numbers)

    @property
    def why_(self) -> str:
        run_dir = self.run_dir_
        run_dir.require("cluster")
        return why(run_dir, read_corrected(run_dir))

    def save(self, folder: str | Path) -> Path:
        """Copy the run (embeddings, clusters, model) to `folder`, which must not exist yet, and return its path."""
        target = Path(folder)
        if target.exists():
            raise RunError(f"save(folder) has value {str(target)!r}, which exists; expected a new folder")
        plain.copy(self.run_dir_, target)
        self._folder = target
        return target

    def publish(
        self,
        to: str | Path,
        *,
        public: bool = False,
        with_images: bool = False,
        with_labels: bool = True,
        license: str | None = None,
    ) -> str:
        """Write the model with its card to a folder or to hf://OWNER/NAME, as `shoal publish` does.

        Args:
            public: let everybody see it on the Hub; otherwise only its owner does.
            with_images: show each cluster's most confident images in the card. Without it no image goes along.
            with_labels: tell the evaluation, if there is one, and with it names of labels.
            license: of the model, as the Hub calls it: apache-2.0, cc-by-4.0, …

        Returns:
            Where it is: the folder, or hf://OWNER/NAME. `load` opens it.

        Raises:
            RunError: there is no finished run. RequestError: `to` is taken by something else, or the Hub refuses.
            WorkError: the Hub cannot be reached.
        """
        from shoal.publish.publish import publish  # noqa: PLC0415  (draws, reads the run: only those who publish pay)

        done = publish(
            self.run_dir_,
            to,
            public=public,
            with_images=with_images,
            with_labels=with_labels,
            license=license,
            progress=self._progress(),
        )
        return done.address

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", verbose: bool = False) -> Self:
        """Open a run, or a model: a folder or hf://OWNER/NAME (which can `predict`, but has no `clusters_`)."""
        place = model_place(folder, TerminalProgress() if verbose else None)
        if is_model_folder(place):
            return cls(device=device, verbose=verbose)._opened(place)
        run_dir = RunDir.open(place)
        run_dir.require("embed", "cluster")
        asked = ClusterConfig.from_json(run_dir.read_state().get("asked")).to_json()
        del asked["source"], asked["embeddings"]
        return cls(**{**asked, "device": device}, verbose=verbose)._opened(place)

    def _opened(self, folder: Path) -> Self:
        self._folder = folder
        self._models = {}
        return self

    def _opened_model(self, *, with_encoder: bool = True) -> Model:
        if self._folder is None:
            raise RunError("this ImageClusterer has no model; call fit(source) or load(run) first")
        if with_encoder not in self._models:
            self._models[with_encoder] = Model.open(
                self._folder, self.device, self._progress(), with_encoder=with_encoder
            )
        return self._models[with_encoder]

    def _assigned(self, source: Source, embeddings: Embeddings | None) -> Iterator[pa.RecordBatch]:
        model = self._opened_model(with_encoder=embeddings is None)
        given = None if embeddings is None else open_given(embeddings)
        spec, opened = opened_source(source, self._progress())
        given = given and given.of_source(spec)
        return assign_images(model, opened, AssignSummary(), self._progress(), given)

    def _progress(self) -> Progress:
        return TerminalProgress() if self.verbose else Progress()


class _TemporaryFolder:
    """A folder that goes when nobody has this object any more; copies of an ImageClusterer share it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="shoal-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, _: dict[int, Any]) -> _TemporaryFolder:
        return self
