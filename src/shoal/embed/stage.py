"""The embedding stage: every usable image becomes a row of features on disk."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pyarrow.compute as pc

from shoal import atomic, records
from shoal.config import DEFAULT_BACKBONE, ClusterConfig, is_onnx
from shoal.disk import require_free
from shoal.embed import head
from shoal.embed.failures import write_failures
from shoal.embed.parts import PartsWriter, among
from shoal.embed.work import Parts
from shoal.embeddings import Ids, part_of
from shoal.encoder import onnx_input
from shoal.encoder import weights as weight_files
from shoal.encoder.engines import resolve_device
from shoal.encoder.prepared import PreparedEncoder, prepare, prepare_onnx
from shoal.encoder.spec import CONFIG, MODEL_FORMAT
from shoal.errors import NoImagesError
from shoal.executor import Executor
from shoal.names import own_words
from shoal.progress import Progress
from shoal.rundir import RunDir, StageResult, digest_file, digest_of
from shoal.runfiles import TEXT_TOWER


def key(config: ClusterConfig) -> dict[str, Any]:
    """What makes the embeddings stale besides the images."""
    if is_onnx(config.backbone):
        file = weight_files.checked_network(config.backbone)
        said = onnx_input.find(file, config.onnx_options).to_json()
        return {"backbone": file.name, "weights": digest_file(file), "input": said, "resize": config.resize}
    weights = config.weights and digest_file(weight_files.checked_file(config.weights))
    if weights is None and config.backbone == DEFAULT_BACKBONE:
        weights = weight_files.embedded_digest(config.features)
    asked: dict[str, Any] = {
        "backbone": config.backbone,
        "weights": weights,
        "features": config.features,
        "resize": config.resize,
    }
    if config.tokenizer is not None:
        files = weight_files.checked_tokenizer(config.tokenizer)
        asked["tokenizer"] = {name: digest_file(path) for name, path in files.items()}
    if config.vocabulary is not None:
        asked["vocabulary"] = digest_of(own_words.read(config.vocabulary))
    return asked


def check(config: ClusterConfig, progress: Progress, executor: Executor) -> None:
    """Refuse a device or an encoder that cannot be had before any image is read. Raises as `run` does for them."""
    if executor.is_here:
        resolve_device(config.device)
    if config.backbone != DEFAULT_BACKBONE or config.weights is not None:  # the embedded one is there
        _prepare(config, progress)


def run(config: ClusterConfig, run_dir: RunDir, progress: Progress, executor: Executor) -> StageResult:
    """Embed what is not embedded yet, and note the images whose pixels turn out unreadable.

    Raises:
        ConfigError, WeightsError: see `backbones.build`.
        NoImagesError: not one image could be decoded.
        DiskSpaceError: the embeddings would not fit.
        Whatever the executor raises.
    """
    prepared = _prepare(config, progress)
    _save_encoder(run_dir, prepared)
    images = run_dir.read_listing(["id", "sha256", "status"])
    writer = PartsWriter.open(run_dir, images.num_rows, prepared.spec)
    usable = images.filter(pc.equal(images["status"], records.OK))
    missing = writer.plan(usable["id"].to_numpy(), usable["sha256"])
    require_free(run_dir.root, len(missing) * writer.row_bytes, "embedding")
    work = Parts(run_dir, prepared, config.device)
    engines = _embed(work, missing, executor, progress) if len(missing) else []
    digest = writer.finish()
    failures, notes = among(usable["id"], writer.failures), among(usable["id"], writer.notes)
    write_failures(run_dir, failures, notes)
    if len(failures) == usable.num_rows:
        reasons = sorted({failure.reason for failure in failures.values()})
        raise NoImagesError(f"no usable image in {' '.join(config.source)}: {'; '.join(reasons[:3])}")
    kept = head.write(run_dir, prepared, config, progress)
    facts = {
        "backbone": prepared.spec.backbone,
        "weights_source": prepared.spec.weights_source,
        "licence": prepared.spec.licence,
        "dim": prepared.spec.dim,
        "images": usable.num_rows - len(failures),
        "embedded_now": len(missing),
        "failed": len(failures),
        **({"engine": ", ".join(engines)} if engines else {}),
    }
    return StageResult(digest, facts, {"head": kept})


def _embed(work: Parts, missing: Ids, executor: Executor, progress: Progress) -> list[str]:
    """Have the parts embedded that images are missing of; return the names of the engines that did."""
    engines = set()
    parts = np.unique(part_of(missing)).tolist()
    with progress.task("Embedding", len(missing)) as task, closing(executor.run(work, parts)) as told:
        for done in told:
            engines.add(done.engine)
            task.advance(done.images)
    return sorted(engines)


def _prepare(config: ClusterConfig, progress: Progress) -> PreparedEncoder:
    if is_onnx(config.backbone):
        said = onnx_input.find(weight_files.checked_network(config.backbone), config.onnx_options)
        return prepare_onnx(config.backbone, said, config.features, config.resize, progress)
    return prepare(config.backbone, config.weights, config.features, config.resize, progress, config.tokenizer)


def _save_encoder(run_dir: RunDir, prepared: PreparedEncoder) -> None:
    """Put what `assign` needs of the encoder into model/, its description and its file, and what free text needs."""
    if prepared.text_tower is not None:
        with atomic.replacing(run_dir.new(f"model/{TEXT_TOWER}")) as temporary:
            atomic.give_second_name(prepared.text_tower, temporary)
    with atomic.replacing(run_dir.new(f"model/{prepared.spec.file}")) as temporary:
        atomic.give_second_name(prepared.weights, temporary)
    config = {"format_version": MODEL_FORMAT, "encoder": prepared.spec.to_json()}
    atomic.write_json(run_dir.new(f"model/{CONFIG}"), config)
