"""Encoders made ready to run, kept in a cache of the user's so that only the first run pays for the conversion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from shoal import atomic, cache
from shoal.config import DEFAULT_BACKBONE, check_onnx_device, is_clip
from shoal.encoder import making, needs
from shoal.encoder import weights as weight_files
from shoal.encoder.engines import Engine, OpenVinoEngine, resolve_device
from shoal.encoder.making import Wanted
from shoal.encoder.onnx import shown_name
from shoal.encoder.onnx_input import Said
from shoal.encoder.spec import EncoderSpec
from shoal.progress import Progress
from shoal.rundir import digest_file, digest_of
from shoal.runfiles import TEXT_TOWER

PREPARED: Final = "encoders"  # in the cache


@dataclass(frozen=True, slots=True)
class PreparedEncoder:
    """A folder with spec.json, the encoder's file and, where the conversion is faithful, an OpenVINO model."""

    folder: Path
    spec: EncoderSpec
    cpu_engine: str  # "openvino" or "torch"
    precision: str  # fp32 | bf16, of the OpenVINO engine

    @property
    def weights(self) -> Path:
        return self.folder / self.spec.file

    @property
    def text_tower(self) -> Path | None:
        """The file of the text tower beside it, if it has one."""
        path = self.folder / TEXT_TOWER
        return path if path.is_file() else None

    def place(self, device: str) -> str:
        """Where it runs on this machine (cpu, cuda or mps) if asked for `device`. Raises ConfigError if it cannot."""
        if not self.spec.is_onnx:
            return resolve_device(device)
        check_onnx_device(device, self.spec.backbone)
        return "cpu"

    def engine(self, device: str) -> Engine:
        """Start the engine for `device` (auto, cpu, cuda or mps)."""
        place = self.place(device)
        if place == "cpu" and self.cpu_engine == "openvino":
            return OpenVinoEngine(self.folder / "model.xml", self.precision)
        from shoal.encoder import rebuilt  # noqa: PLC0415  (imports torch)
        from shoal.encoder.torch_engine import TorchEngine  # noqa: PLC0415  (imports torch)

        encoder, spec = rebuilt.rebuild(self.spec, self.weights)
        return TorchEngine(encoder, spec, place)


def prepare(
    backbone: str, weights: str | None, features: str, resize: str, progress: Progress, tokenizer: str | None = None
) -> PreparedEncoder:
    """Find or make the prepared encoder for what was asked. See `backbones.build` and `clip.build` for the errors.

    Args:
        tokenizer: folder of that of a text tower, where a person gave one.
    """
    file = weight_files.checked_file(weights) if weights else None
    if file is not None:
        origin = digest_file(file)
    elif backbone == DEFAULT_BACKBONE:
        origin = weight_files.embedded_digest(features)
    else:
        origin = f"hub with {_version('timm')}"
    parts = [backbone, origin, features, resize]
    if is_clip(backbone):
        files = weight_files.checked_tokenizer(tokenizer) if tokenizer else {}
        parts += [_version(needs.OPEN_CLIP), digest_of({name: digest_file(path) for name, path in files.items()})]
    wanted = Wanted(backbone, features, resize, str(file) if file else None, tokenizer=tokenizer)
    return _prepare(wanted, making.key(*parts), progress)


def prepare_onnx(backbone: str, said: Said, features: str, resize: str, progress: Progress) -> PreparedEncoder:
    """Find or make the prepared encoder of an ONNX file. See `onnx.find` for the errors."""
    file = weight_files.checked_network(backbone)
    name, digest = shown_name(file), digest_file(file)
    wanted = Wanted(name, features, resize, str(file), said=said.to_json(), digest=digest)
    return _prepare(wanted, making.key(name, digest, digest_of(said.to_json()), features, resize), progress)


def prepare_saved(spec: EncoderSpec, weights: Path, progress: Progress) -> PreparedEncoder:
    """Find or make the prepared encoder of a finished run or model folder, from its own weights."""
    folder = _find(making.encoder_name(spec, weights))
    if folder is None:
        folder = _make(Wanted.saved(spec, weights), progress)
    return _load(folder)


def _prepare(wanted: Wanted, key: str, progress: Progress) -> PreparedEncoder:
    request = f"requests/{key}.json"
    known = cache.find(f"{PREPARED}/{request}")
    folder = _find(json.loads(known.read_bytes())["encoder"]) if known is not None else None
    if folder is None:
        folder = _make(wanted, progress, request)
    return _load(folder)


def _version(package: str) -> str:
    """What is made of a network by one version need not fit another."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:  # which is told where it is needed
        return f"no {package}"


def _find(name: str) -> Path | None:
    found = cache.find(f"{PREPARED}/{name}/spec.json")
    return None if found is None else found.parent


def _make(wanted: Wanted, progress: Progress, request: str | None = None) -> Path:
    """Make a prepared folder in the cache, and note there what it was asked for by."""
    making.require(wanted)
    progress.say(f"Preparing {wanted.backbone} for this machine (first time only) …")

    def make(place: Path) -> Path:
        folder = making.make(wanted, place / PREPARED)
        if request is not None:
            with cache.writing():
                atomic.write_json(place / PREPARED / request, {"encoder": folder.name, "backbone": wanted.backbone})
        return folder

    return cache.keep(make)


def _load(folder: Path) -> PreparedEncoder:
    path = folder / "spec.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    return PreparedEncoder(folder, EncoderSpec.from_json(facts["spec"], path), facts["cpu_engine"], facts["precision"])
