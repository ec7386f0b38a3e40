"""Encoders made ready to run, kept in a cache of the user's so that only the first run pays for the conversion."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs

from shoal import atomic
from shoal.config import DEFAULT_BACKBONE
from shoal.embed import weights as weight_files
from shoal.embed.engines import Engine, OpenVinoEngine, TorchEngine, cpu_precision, resolve_device
from shoal.embed.spec import EncoderSpec
from shoal.progress import Progress
from shoal.rundir import digest_file, digest_of

CACHE_FORMAT = 4
ENCODER_WEIGHTS = "encoder.safetensors"


@dataclass(frozen=True, slots=True)
class PreparedEncoder:
    """A folder with spec.json, encoder.safetensors and, where the conversion is faithful, an OpenVINO model."""

    folder: Path
    spec: EncoderSpec
    cpu_engine: str  # "openvino" or "torch"
    precision: str  # fp32 | bf16, of the OpenVINO engine

    @property
    def weights(self) -> Path:
        return self.folder / ENCODER_WEIGHTS

    def engine(self, device: str) -> Engine:
        """Start the engine for `device` (auto, cpu, cuda or mps)."""
        place = resolve_device(device)
        if place == "cpu" and self.cpu_engine == "openvino":
            return OpenVinoEngine(self.folder / "model.xml", self.precision)
        from shoal.embed import backbones  # noqa: PLC0415  (imports torch)

        encoder, spec = backbones.rebuild(self.spec, self.weights)
        return TorchEngine(encoder, spec, place)


def cache_folder() -> Path:
    """Where prepared encoders are kept: $SHOAL_CACHE, or the user's cache folder."""
    return Path(os.environ.get("SHOAL_CACHE") or platformdirs.user_cache_dir("shoal")) / "encoders"


def prepare(backbone: str, weights: str | None, features: str, resize: str, progress: Progress) -> PreparedEncoder:
    """Find or make the prepared encoder for what was asked. See `backbones.build` for the errors."""
    file = weight_files.checked_file(weights) if weights else None
    if file is None and backbone == DEFAULT_BACKBONE:
        file = weight_files.embedded_file()
    origin = digest_file(file) if file else f"hub with timm {metadata.version('timm')}"
    request = cache_folder() / "requests" / f"{_key(backbone, origin, features, resize)}.json"
    folder = cache_folder() / json.loads(request.read_bytes())["encoder"] if request.is_file() else None
    if folder is None or not (folder / "spec.json").is_file():
        progress.say(f"Preparing {backbone} for this machine (first time only) …")
        from shoal.embed import backbones  # noqa: PLC0415  (imports torch; cold start only)

        encoder, spec = backbones.build(backbone, features, resize, file)
        folder = _make(encoder, spec)
        atomic.write_json(request, {"encoder": folder.name, "backbone": backbone})
    return _load(folder)


def prepare_saved(spec: EncoderSpec, weights: Path, progress: Progress) -> PreparedEncoder:
    """Find or make the prepared encoder of a finished run or model folder, from its own weights."""
    folder = cache_folder() / _encoder_name(spec, weights)
    if not (folder / "spec.json").is_file():
        progress.say(f"Preparing {spec.backbone} for this machine (first time only) …")
        from shoal.embed import backbones  # noqa: PLC0415

        encoder, _ = backbones.rebuild(spec, weights)
        folder = _make(encoder, spec)
    return _load(folder)


def _encoder_name(spec: EncoderSpec, weights: Path) -> str:
    """Name of the prepared folder: the same for a run's own copy of the weights as for the encoder it was made with."""
    return _key(digest_of(spec.to_json()), digest_file(weights))


def _key(*parts: str) -> str:
    return digest_of(CACHE_FORMAT, parts, cpu_precision(), metadata.version("openvino"))[:20]


def _make(encoder: Any, spec: EncoderSpec) -> Path:
    """Write a prepared folder under a temporary name, then give it its own in one step; return it."""
    from safetensors.torch import save_file  # noqa: PLC0415

    from shoal.embed import convert  # noqa: PLC0415

    cache_folder().mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=cache_folder()))
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in encoder.model.state_dict().items()}, made / ENCODER_WEIGHTS
        )
        facts: dict[str, Any] = {"cpu_engine": "torch", "precision": "fp32"}
        for precision in dict.fromkeys((cpu_precision(), "fp32")):
            try:
                convert.convert(encoder, spec, made / "model.xml")
                mean, least = convert.similarity(encoder, spec, OpenVinoEngine(made / "model.xml", precision))
            except RuntimeError as error:  # OpenVINO lacks an operation: torch runs the model as it is
                facts["why_torch"] = str(error).splitlines()[0][:300]
                break
            if convert.is_faithful(mean, least):
                facts = {"cpu_engine": "openvino", "precision": precision, "similarity": {"mean": mean, "least": least}}
                break
        atomic.write_json(made / "spec.json", {"spec": spec.to_json(), **facts})
        folder = cache_folder() / _encoder_name(spec, made / ENCODER_WEIGHTS)
        try:
            made.rename(folder)
        except OSError:  # another process was quicker; its folder is as good as ours
            if not (folder / "spec.json").is_file():
                raise
        return folder
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _load(folder: Path) -> PreparedEncoder:
    facts = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    return PreparedEncoder(folder, EncoderSpec.from_json(facts["spec"]), facts["cpu_engine"], facts["precision"])
