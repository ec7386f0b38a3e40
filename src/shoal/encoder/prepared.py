"""Encoders made ready to run, kept in a cache of the user's so that only the first run pays for the conversion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from shoal import atomic, cache
from shoal.config import DEFAULT_BACKBONE
from shoal.encoder import making
from shoal.encoder import weights as weight_files
from shoal.encoder.engines import Engine, OpenVinoEngine, TorchEngine, resolve_device
from shoal.encoder.making import ENCODER_WEIGHTS, Wanted
from shoal.encoder.spec import EncoderSpec
from shoal.progress import Progress
from shoal.rundir import digest_file

ENCODERS: Final = "encoders"  # in the cache


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
        from shoal.encoder import backbones  # noqa: PLC0415  (imports torch)

        encoder, spec = backbones.rebuild(self.spec, self.weights)
        return TorchEngine(encoder, spec, place)


def prepare(backbone: str, weights: str | None, features: str, resize: str, progress: Progress) -> PreparedEncoder:
    """Find or make the prepared encoder for what was asked. See `backbones.build` for the errors."""
    file = weight_files.checked_file(weights) if weights else None
    if file is not None:
        origin = digest_file(file)
    elif backbone == DEFAULT_BACKBONE:
        origin = weight_files.embedded_digest(features)
    else:
        origin = f"hub with timm {metadata.version('timm')}"
    request = f"requests/{making.key(backbone, origin, features, resize)}.json"
    known = cache.find(f"{ENCODERS}/{request}")
    folder = _find(json.loads(known.read_bytes())["encoder"]) if known is not None else None
    if folder is None:
        progress.say(f"Preparing {backbone} for this machine (first time only) …")
        folder = _make(Wanted(backbone, features, resize, str(file) if file else None), request)
    return _load(folder)


def prepare_saved(spec: EncoderSpec, weights: Path, progress: Progress) -> PreparedEncoder:
    """Find or make the prepared encoder of a finished run or model folder, from its own weights."""
    folder = _find(making.encoder_name(spec, weights))
    if folder is None:
        progress.say(f"Preparing {spec.backbone} for this machine (first time only) …")
        folder = _make(Wanted.saved(spec, weights))
    return _load(folder)


def _find(name: str) -> Path | None:
    found = cache.find(f"{ENCODERS}/{name}/spec.json")
    return None if found is None else found.parent


def _make(wanted: Wanted, request: str | None = None) -> Path:
    """Make a prepared folder in the cache, and note there what it was asked for by."""

    def make(place: Path) -> Path:
        folder = making.make(wanted, place / ENCODERS)
        if request is not None:
            with cache.writing():
                atomic.write_json(place / ENCODERS / request, {"encoder": folder.name, "backbone": wanted.backbone})
        return folder

    return cache.keep(make)


def _load(folder: Path) -> PreparedEncoder:
    path = folder / "spec.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    return PreparedEncoder(folder, EncoderSpec.from_json(facts["spec"], path), facts["cpu_engine"], facts["precision"])
