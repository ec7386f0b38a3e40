"""The model card: README.md with the Hub's metadata, from what the run knows of itself.

Nothing of it names a place on the person's machine, an image, or the source: those who publish may not want them known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from shoal import foreign, records
from shoal.config import DEFAULT_BACKBONE, is_clip
from shoal.corrections.log import in_force, read_log
from shoal.corrections.model import CorrectedModel
from shoal.demo import demo_images
from shoal.encoder.names import PREFIX
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.weights import EMBEDDED_LICENCE
from shoal.publish import licences
from shoal.publish.architecture import words_of_space
from shoal.report.findings import Findings
from shoal.report.selection import ClusterShown

EMBEDDED: Final = "embedded"  # a recipe's word for the embedded backbone's weights
# Measures of an evaluation: the Hub's word, a name, what it is.
MEASURES: Final = {
    "acc": ("accuracy", "ACC", "accuracy under the best one-to-one match of clusters and labels"),
    "nmi": ("nmi", "NMI", "normalised mutual information"),
    "ari": ("ari", "ARI", "adjusted Rand index"),
    "purity": ("purity", "Purity", "share of images that have the majority label of their cluster"),
}
# Data sets whose tables Shoal itself makes, by how the table's name begins: id on the Hub, what people call it.
DATASETS: Final = {
    demo_images().stem: ("zalando-datasets/fashion_mnist", "Fashion-MNIST"),
    "shoal-cifar10-": ("uoft-cs/cifar10", "CIFAR-10"),
    "shoal-cifar100-20-": ("uoft-cs/cifar100", "CIFAR-100"),
    "shoal-stl10-": (None, "STL-10"),
}
HEADS: Final = ("scan", "selflabel")  # methods of clustering whose clusters are a trained head's
SECTIONS: Final = ("encoder", "data", "pretext", "neighbours", "scan", "selflabel")  # of a recipe
TASKS: Final = {"simclr": "SimCLR", "moco": "MoCo v2", "rotnet": "RotNet"}
ESCAPED: Final = re.compile(r"([\\`*_{}\[\]<>|~&$])")  # what Markdown, HTML and formulas begin with


@dataclass(frozen=True)
class Card:
    """What the template asks for.

    Attributes:
        title: what the model is called; address: what `load` opens.
        recipe: of a run that was trained, with no file's place in it; None if the encoder was borrowed.
        noise: number of the cluster for what belongs nowhere, or None.
        license: as the person gave it.
        files: what lies in the folder beside the card.
    """

    title: str
    address: str
    version: str
    findings: Findings
    clusters: Sequence[ClusterShown]
    spec: EncoderSpec
    model: CorrectedModel
    recipe: dict[str, Any] | None
    noise: int | None
    license: str | None
    with_images: bool
    files: dict[str, str]

    def render(self) -> str:
        """The whole file."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("shoal.publish"),
            autoescape=False,  # it is Markdown: names that people gave go through `plain`
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters.update(plain=plain, number=lambda value: f"{value:,}", percent=percent)
        text = environment.get_template("card.md.j2").render(card=self)
        return f"---\n{yaml.safe_dump(self.metadata(), sort_keys=False, allow_unicode=True)}---\n\n{text}"

    def metadata(self) -> dict[str, Any]:
        """What the Hub reads: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
        found: dict[str, Any] = {"library_name": "shoal", **licences.metadata(self.licence)}
        found["pipeline_tag"] = "image-classification"  # of the Hub's tasks the one with an image in and a group out
        found["tags"] = self._tags()
        if self.dataset and self.dataset[0]:
            found["datasets"] = [self.dataset[0]]
        if self.evaluation:
            found["metrics"] = [word for word, _, _ in MEASURES.values()]
            found["model-index"] = [{"name": self.title, "results": [self._result(self.evaluation)]}]
        return found

    # -- where the encoder comes from ------------------------------------------------------------------------------

    @property
    def is_trained(self) -> bool:
        return self.recipe is not None

    @property
    def starts_from(self) -> str | None:
        """The weights that a training started from: None, `embedded`, or a file's name."""
        return self.recipe["encoder"]["weights"] if self.recipe else None

    @property
    def encoder(self) -> str:
        """The encoder's name, for people."""
        return self.spec.backbone.removeprefix(PREFIX)

    @property
    def origin(self) -> str:
        """Where the encoder comes from, in a few words."""
        if not self.is_trained:
            return "trained elsewhere, frozen" if self.spec.backbone.startswith(PREFIX) else "borrowed, frozen"
        return "trained on the images alone" if self.starts_from is None else "borrowed, trained on"

    @property
    def backbone_licence(self) -> str | None:
        """What its publisher says of the weights that the encoder is, or started from; None if it started from none."""
        if not self.is_trained:
            return None if self.spec.backbone.startswith(PREFIX) else self.spec.licence
        if self.starts_from is None:
            return None
        return EMBEDDED_LICENCE if self.starts_from == EMBEDDED else "unknown"

    @property
    def licence(self) -> str | None:
        """The licence of the model; None if nobody has chosen one yet."""
        return self.license or self.backbone_licence

    @property
    def knows_labels(self) -> bool:
        """Did the backbone see ImageNet's labels?"""
        return self.spec.backbone == DEFAULT_BACKBONE or self.starts_from == EMBEDDED

    @property
    def has_text_tower(self) -> bool:
        """Is the encoder the image tower of a model of images and texts?"""
        return is_clip(self.spec.architecture)

    @property
    def words(self) -> str:
        """Which words names were taken from, where it is."""
        return "words of its maker's own" if self.asked.get("vocabulary") else "ImageNet-1k's classes"

    @property
    def training(self) -> list[tuple[str, str]]:
        """How it was trained: each phase, and what was set for it."""
        if self.recipe is None:
            return []
        pretext, neighbours, scan, selflabel = (self.recipe[name] for name in SECTIONS[2:])
        found = []
        if pretext["epochs"]:
            found.append(
                (
                    f"pretext task {TASKS[pretext['task']]}",
                    f"{_loop(pretext)}, temperature {pretext['temperature']}, projected to {pretext['head']['dim']}",
                )
            )
        if scan["epochs"]:
            found.append(
                (
                    "SCAN",
                    f"{neighbours['k']} neighbours, {_loop(scan)}, entropy weight {scan['entropy_weight']}, "
                    f"best of {scan['heads']} head{'s' * (scan['heads'] != 1)}, "
                    f"encoder {'tuned' if scan['tune_encoder'] else 'frozen'}",
                )
            )
        if selflabel["epochs"]:
            stage = self.findings.state["stages"].get("selflabel", {})
            kept = "" if stage.get("facts", {}).get("kept", True) else "; not kept: neighbours agreed less after it"
            taken = f"the surest {selflabel['quota']:.0%} of each cluster"
            if not selflabel["quota"]:
                taken = f"images surer than {selflabel['threshold']}"
            if not scan["epochs"]:
                taken += " that was found with the encoder before"
            found.append(("self-labelling", f"{_loop(selflabel)}, {taken}{kept}"))
        return found

    @property
    def recipe_text(self) -> str:
        assert self.recipe is not None
        ordered = {name: self.recipe[name] for name in SECTIONS}
        return yaml.safe_dump(ordered, sort_keys=False, default_flow_style=None, width=110)

    # -- what was clustered ----------------------------------------------------------------------------------------

    @cached_property
    def dataset(self) -> tuple[str | None, str] | None:
        """Id on the Hub and name of the data set, where Shoal knows it."""
        name = self.findings.state.get("source", {}).get("name", "")
        return next((known for start, known in DATASETS.items() if name.startswith(start)), None)

    @property
    def images(self) -> int:
        return len(self.findings.ids)

    @cached_property
    def megabytes(self) -> float:
        table = self.findings.run_dir.read_images(["status", "size_bytes"])
        sizes = table["size_bytes"].to_numpy().astype(np.float64)
        usable = pc.equal(table["status"], records.OK).to_numpy()
        return float(np.nansum(sizes[usable])) / 1e6

    @cached_property
    def pixels(self) -> str:
        """Sizes of the images."""
        images = self.findings.images.select(["width", "height"]).take(pa.array(self.findings.ids))
        sizes = np.column_stack([images["width"].to_numpy(), images["height"].to_numpy()])
        middle, least, most = np.median(sizes, axis=0).astype(int), sizes.min(axis=0), sizes.max(axis=0)
        if (least == most).all():
            return f"{least[0]:,} × {least[1]:,}"
        wide, high = (f"{low:,} to {high:,}" for low, high in zip(least, most, strict=True))
        return f"{middle[0]:,} × {middle[1]:,} (median); {wide} wide, {high} high"

    @cached_property
    def left_out(self) -> list[tuple[str, int]]:
        """Why images are in no cluster, most frequent first; without details, which may name places."""
        images = self.findings.images
        usable = pc.is_in(images["status"], value_set=pa.array([records.OK, records.DUPLICATE]))
        counts: Counter[str] = Counter()
        for pair in images["reason"].filter(pc.invert(usable)).value_counts().to_pylist():
            counts[(pair["values"] or "no reason given").split(" (")[0]] += pair["counts"]
        return counts.most_common()

    @property
    def copies(self) -> int:
        return self.findings.counts[records.DUPLICATE]

    # -- the clusters ----------------------------------------------------------------------------------------------

    @property
    def asked(self) -> dict[str, Any]:
        return self.findings.asked

    @property
    def facts(self) -> dict[str, Any]:
        return self.findings.facts

    @property
    def space(self) -> list[tuple[str, str, str]]:
        return words_of_space(self.spec, self.model)

    @property
    def unsure(self) -> float:
        return float(self.findings.unsure.mean())

    @cached_property
    def corrections(self) -> int:
        """How many of a person's edits are in force."""
        return len(in_force(read_log(self.findings.run_dir))[0])

    @property
    def example(self) -> int:
        """A cluster to show how to ask for one: the largest one that new images can come to."""
        return next(shown.cluster for shown in self.clusters if shown.cluster != self.noise)

    def name(self, cluster: int) -> str:
        """A cluster's name as Markdown; a guess is in italics, with its strength."""
        shown = self.findings.shown.get(cluster)
        if shown is None:
            return ""
        return f"*{plain(shown.name)}* ({shown.strength:.1f})" if shown.is_guess else plain(shown.name)

    @property
    def has_names(self) -> bool:
        return any(self.name(shown.cluster) for shown in self.clusters)

    @property
    def has_guesses(self) -> bool:
        return any(self.findings.guess(shown.cluster) for shown in self.clusters)

    @property
    def evaluation(self) -> dict[str, Any] | None:
        return self.findings.evaluation

    @property
    def measures(self) -> list[tuple[str, str, float]]:
        """Name, what it is, value."""
        found = self.evaluation
        return [(name, what, found[key]) for key, (_, name, what) in MEASURES.items()] if found else []

    def majority(self, cluster: int) -> tuple[str, float] | None:
        """The most frequent label of a cluster and its share; None where no image of it has a label."""
        rows = self.evaluation["table"] if self.evaluation else []
        return next(((str(row["majority"]), float(row["accuracy"])) for row in rows if row["cluster"] == cluster), None)

    def _tags(self) -> list[str]:
        tags = ["clustering", "image-clustering", "unsupervised-learning"]
        if self.recipe is not None:
            tags += [self.recipe["pretext"]["task"]] if self.recipe["pretext"]["epochs"] else []
            tags += ["scan"] if self.recipe["scan"]["epochs"] else []
        return tags

    def _result(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """An entry of the Hub's model-index."""
        identifier, name = self.dataset or (None, None)
        images = "those that the clusters were made of"
        return {
            "task": {"type": "image-clustering", "name": "Image clustering"},
            "dataset": {"type": identifier or "images", "name": f"{name}: {images}" if name else images},
            "metrics": [
                {"type": word, "name": name, "value": round(evaluation[key], 4)}
                for key, (word, name, _) in MEASURES.items()
            ],
        }


def recipe_of(path: Path) -> dict[str, Any] | None:
    """The recipe by which a run was trained, None if it was not. A weights file is told by its name alone."""
    if not path.is_file():
        return None
    recipe: dict[str, Any] = foreign.parse_json(foreign.read_bytes(path), path)
    weights = recipe["encoder"]["weights"]
    recipe["encoder"]["weights"] = weights if weights is None else re.split(r"[/\\]", weights)[-1]
    return recipe


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return ESCAPED.sub(r"\\\1", " ".join(str(text).split()))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _loop(phase: dict[str, Any]) -> str:
    epochs, optimiser = phase["epochs"], phase["optimiser"]
    count = f"{epochs:,} epoch{'s' * (epochs != 1)}"
    return f"{count}, batch {phase['loop']['batch']}, {optimiser['name']} at {optimiser['rate']:g}"
