"""The clustering stage: embeddings become clusters, with the evidence for their number and a model for new images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shoal import records
from shoal.cluster import density, graph, kmeans, levels
from shoal.cluster.arrays import Float64, Labels
from shoal.cluster.heads.placed import Placed
from shoal.cluster.kmeans import COSINE, EUCLIDEAN, Clustering
from shoal.cluster.learned import judging, learning
from shoal.cluster.model import Assignment, ClusterModel, fit_model
from shoal.cluster.number import silhouette
from shoal.cluster.number.choose_k import Choice, automatic_counts, choose, possible
from shoal.cluster.rows import ImageRows
from shoal.cluster.sample import LOOKED_AT, PER_CLUSTER, extended, sample_of
from shoal.cluster.space import ClusterSpace, Rows, centroids_of, cluster_points, fit_space
from shoal.cluster.write import Clusters, Evidence, EvidenceRow, runner_up, write
from shoal.config import DENSITY, GRAPH, ClusterConfig, ClusterCounts
from shoal.embeddings import EmbeddingStore, Float32, Ids
from shoal.errors import ConfigError, TooFewImagesError
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult

MOST_REASONS: Final = 3  # told where too few images are usable
EVEN: Final = (
    0.85  # clusters in force (exp of the entropy of sizes) a cluster; of tails too k-means makes 0.95 and more
)


def key(config: ClusterConfig) -> dict[str, Any]:
    """The options that make the clusters stale. Raises ConfigError if the method does not suit the other options."""
    if config.method in ("learned", GRAPH, DENSITY) and config.metric == EUCLIDEAN:
        raise ConfigError(f"--method has value {config.method!r}, which needs --metric cosine; got euclidean")
    if config.method == DENSITY and not config.counts.is_auto:
        raise ConfigError(
            f"--clusters has value {config.clusters!r}; --method density finds the number itself, and takes only auto"
        )
    return {"clusters": config.counts.values, "method": config.method, "metric": config.metric, "seed": config.seed}


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress) -> StageResult:
    """Write clusters, choose_k, sweep, levels and the model.

    Raises:
        TooFewImagesError: fewer usable images than clusters, or fewer than two.
    """
    images = run_dir.read_images(["id", "path", "status", "reason", "duplicate_of"])
    ids = images.filter(pc.equal(images["status"], records.OK))["id"].to_numpy()
    require_images(config.counts, images)
    store = EmbeddingStore.open(run_dir.embeddings)
    sample = sample_of(ids, max(LOOKED_AT, PER_CLUSTER * max(config.counts.values, default=0)), config.seed)
    space = fit_space(store, ids[sample], config.metric, np.random.default_rng([config.seed, 3]))
    points, lengths = cluster_points(space, store, ids)
    dense = _dense(config, store, ids, points, progress)
    counts = config.counts if dense is None else ClusterCounts((dense.k,))
    seen = points if len(sample) == len(ids) else points[sample]
    numbers = len(counts.values or automatic_counts(len(seen)))
    with progress.task("Clustering", numbers, "numbers of clusters") as task:
        choice = choose(seen, counts, config.seed, metric=config.metric, watch=lambda _: task.advance())
    looked_at = {item.k: extended(item.clustering, points, sample, config.metric) for item in choice.candidates}
    if left_out := [k for k in config.counts.values if k > len(ids)]:
        progress.say(f"--clusters: left out {len(left_out)} numbers above the {len(ids)} usable images")
    found = _numbered(looked_at[choice.chosen.k], points, config.metric)
    silhouettes = choice.silhouettes if len(sample) == len(ids) else silhouette.of(points, found.labels, config.metric)
    plain = _Outcome("kmeans", "", space, found, points, lengths, silhouettes)
    if dense is None:
        outcome = _better(plain, config, store, ids, progress)
    else:
        outcome = _by_density(plain, dense)
        choice = replace(choice, sentence=_told(dense))
    found = outcome.found
    model = fit_model(outcome.space, found, outcome.points, outcome.lengths, config.seed, points, outcome.level)
    assignment = model.assign_points(outcome.points, outcome.lengths)
    means = kmeans.means_of(points, found.labels, config.metric)
    sweep = {f"k{k}": clustering.labels for k, clustering in looked_at.items()}
    sweep[f"k{choice.chosen.k}"] = found.labels
    if config.metric == EUCLIDEAN:  # the points may be other coordinates than those of new images
        model = _in_features(model, points, found.labels, store, ids)
        assignment = _assigned(model, store, ids)
    return write(
        run_dir,
        Clusters(
            rows=ImageRows.of(images, ids),
            cluster=found.labels,
            confidence=assignment.confidence,
            unsure=_unsure(outcome, assignment),
            silhouette=outcome.silhouettes.astype(np.float32),
            # Where two centroids are equally near, k-means and assignment may differ; what k-means said stands.
            runner_up=runner_up(found.labels, assignment),
            levels=levels.nested(points, found.labels, means, config.seed, config.metric),
            model=model,
            evidence=_evidence(choice, sweep),
            facts={"metric": config.metric, **_facts(choice, outcome)},
        ),
    )


def require_images(counts: ClusterCounts, images: pa.Table) -> None:
    """Raise TooFewImagesError if there are fewer usable ones than clusters; no usable one at all is others' to tell.

    Where copies, or files that are skipped, are why, it says so.
    """
    statuses = Counter({pair["values"]: pair["counts"] for pair in images["status"].value_counts().to_pylist()})
    usable, copies = statuses[records.OK], statuses[records.DUPLICATE]
    least = max(2, min(counts.values, default=2))
    if not 1 <= usable < least:
        return
    skipped = images["reason"].filter(pc.equal(images["status"], records.SKIPPED))
    told = Counter({pair["values"]: pair["counts"] for pair in skipped.value_counts().to_pylist()})
    if told and not copies:
        why = ", ".join(f"{count:,} {reason}" for reason, count in told.most_common(MOST_REASONS))
        only = "" if usable == 1 else "s"
        raise TooFewImagesError(
            f"{usable:,} usable image{only} of {images.num_rows:,} files, {told.total():,} skipped ({why}); "
            f"clusters need at least {least}"
        )
    if not copies:
        possible(counts, usable)
        return
    files = images.num_rows - statuses[records.VANISHED]
    what = f"{files:,} files" if files == usable + copies else f"{usable + copies:,} usable files of {files:,}"
    ones = "one image" if usable == 1 else f"{usable:,} images"
    asked = "clusters need" if least == 2 else "--clusters asks for"
    raise TooFewImagesError(f"{what}, all copies of {ones}; {asked} at least {least} different images")


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """A clustering of the usable images in its space, with silhouettes [N] among the points of k-means."""

    method: str  # kmeans | learned | graph | density
    why: str  # one sentence; empty if there was nothing to choose
    space: ClusterSpace
    found: Clustering
    points: Float32
    lengths: Float32
    silhouettes: Float64
    noise: npt.NDArray[np.bool_] | None = None  # images that lie in no dense group, where that was looked at
    level: float | None = None  # share of the images on which another way of clustering agrees, if one was at hand


def _dense(
    config: ClusterConfig, store: EmbeddingStore, ids: Ids, points: Float32, progress: Progress
) -> density.Dense | None:
    """Dense groups, if they were asked for and there are two or more."""
    if config.method != DENSITY:
        return None
    found = density.find(store, ids, points, config.seed)
    if found.k < 2:
        progress.say("--method density: fewer than two groups stand out by density; k-means is taken")
        return None
    return found


def _by_density(plain: _Outcome, dense: density.Dense) -> _Outcome:
    """The dense groups, with centroids of the images that lie in them, in the space of k-means."""
    labels, _ = kmeans.number_by_size(dense.labels, dense.k)
    core = ~dense.noise
    centroids = kmeans.means_of(plain.points[core], labels[core], COSINE)
    return replace(
        plain,
        method=DENSITY,
        found=replace(plain.found, labels=labels, centroids=centroids),
        silhouettes=silhouette.cosine(plain.points, labels, dense.k),
        noise=dense.noise,
    )


def _told(dense: density.Dense) -> str:
    return (
        f"{dense.k} clusters: so many groups stand out by density; {dense.noise.mean():.0%} of the images lie in none "
        "of them, and are unsure, in the cluster of the nearest image that does"
    )


def _better(plain: _Outcome, config: ClusterConfig, store: EmbeddingStore, ids: Ids, progress: Progress) -> _Outcome:
    """Communities, or learned clusters, where they were asked for; these also where evidence speaks for them."""
    k = len(plain.found.centroids)
    if k < 2 or config.metric == EUCLIDEAN:
        return plain
    if config.method == GRAPH:
        found = graph.find(store, ids, k, config.seed)
        return _by_head(plain, GRAPH, f"asked for; modularity {found.modularity:.2f}", found.placed)
    if config.method == "learned" and k > learning.MOST_CLUSTERS:
        why = f"k-means stands: heads do not learn more than {learning.MOST_CLUSTERS} clusters; {k:,} were asked for"
        progress.say(f"--method learned: {why}")
        return replace(plain, why=why)
    if config.method != "learned" and not (config.method == "auto" and learning.worth_a_look(len(ids), k)):
        return plain
    fitted = learning.learn(store, ids, k, config.seed, progress=progress)
    verdict = judging.judge(fitted, plain.found.labels, k)
    if not verdict.taken:
        progress.say(f"--method {config.method}: {verdict.sentence}")
        return replace(plain, why=verdict.sentence)
    return _by_head(plain, "learned", verdict.sentence, fitted.placed)


def _by_head(plain: _Outcome, method: str, why: str, placed: Placed) -> _Outcome:
    """Clusters that one head places, numbered by size."""
    k = len(placed.found.centroids)
    labels, order = kmeans.number_by_size(placed.found.labels, k)
    found = replace(placed.found, labels=labels, centroids=placed.found.centroids[order])
    silhouettes = silhouette.cosine(plain.points, labels, k)
    return _Outcome(method, why, placed.space, found, placed.points, placed.lengths, silhouettes, level=placed.level)


def _numbered(clustering: Clustering, points: Float32, metric: str) -> Clustering:
    """The clustering with its clusters numbered by size, and its centroids in the space of `points`."""
    labels, _ = kmeans.number_by_size(clustering.labels, len(clustering.centroids))
    return replace(clustering, labels=labels, centroids=kmeans.means_of(points, labels, metric))


def _in_features(model: ClusterModel, points: Float32, labels: Labels, store: Rows, ids: Ids) -> ClusterModel:
    """The model of Euclidean `points` [N, d] with its centroids and landmarks where the features are."""
    space = model.space
    centroids = centroids_of(space, store, ids, labels, len(model.centroids))
    if model.landmarks is None:
        return replace(model, centroids=centroids)
    used, nearest = np.unique(
        kmeans.assign(points, model.landmarks.points, metric=space.metric)[0], return_inverse=True
    )
    places = centroids_of(space, store, ids, nearest.astype(np.int32), len(used))
    landmarks = replace(model.landmarks, points=places, trust=model.landmarks.trust[used])
    return replace(model, centroids=centroids, landmarks=landmarks)


def _assigned(model: ClusterModel, store: Rows, ids: Ids) -> Assignment:
    """What `model` says of the images, as it will of new ones."""
    return Assignment.together([model.assign(features) for _, features in store.blocks(ids)])


def _unsure(outcome: _Outcome, assignment: Assignment) -> npt.NDArray[np.bool_]:
    if outcome.noise is not None:
        return outcome.noise
    return assignment.unsure | ((outcome.silhouettes < 0) & (outcome.method == "kmeans"))


def _evidence(choice: Choice, sweep: Mapping[str, Labels]) -> Evidence:
    """One row for each number of clusters looked at."""
    rows = [
        EvidenceRow(
            k=row.k,
            silhouette=row.silhouette,
            inertia=row.clustering.inertia,
            smallest=row.smallest,
            images=len(row.clustering.labels),
            chosen=row is choice.chosen,
            stability=row.stability.rand,
            coding_length=row.coding_length,
        )
        for row in choice.candidates
    ]
    return Evidence.of(rows, sweep)


def _facts(choice: Choice, outcome: _Outcome) -> dict[str, Any]:
    sizes = np.bincount(outcome.found.labels, minlength=choice.chosen.k)
    seen, images = len(choice.chosen.clustering.labels), len(outcome.found.labels)
    told = f"; found on {seen:,} of the {images:,} images, by which the others were placed" if seen < images else ""
    return {
        "k": choice.chosen.k,
        "looked_at": seen,
        "sentence": choice.sentence + told + ("" if outcome.method == DENSITY else _unequal(sizes)),
        "method": outcome.method,
        "why_method": outcome.why,
        "sizes": sizes.tolist(),
        "runners_up": list(choice.runners_up),
    }


def _unequal(sizes: npt.NDArray[np.int64]) -> str:
    """What to say of a long tail: there more clusters part what is frequent, and fewer join what is rare."""
    shares = sizes[sizes > 0] / sizes.sum()
    if len(shares) < 3 or np.exp(-np.sum(shares * np.log(shares))) >= EVEN * len(shares):
        return ""
    half = int(np.searchsorted(np.cumsum(np.sort(shares)[::-1]), 0.5)) + 1
    return (
        f"; sizes are unequal ({half} of the clusters hold{'s' * (half == 1)} half of the images, the smallest "
        f"{sizes.min():,}), so more clusters would part the frequent kinds and fewer would join the rare ones"
    )
