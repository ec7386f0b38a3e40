"""Making prepared encoders: built, converted for this machine, checked, and put into the user's cache.

What needs torch is made in a process of its own, since torch and a conversion take a gigabyte that the work after it
would have to live beside; an ONNX file too, so that whatever one from elsewhere does to its reader, it does there. The
embedded networks need neither.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from shoal import atomic, cache, errors, foreign
from shoal.config import DEFAULT_BACKBONE, is_clip
from shoal.encoder import embedded, lite, memory, needs, onnx
from shoal.encoder.beside import Beside
from shoal.encoder.engines import OpenVinoEngine, cpu_precision
from shoal.encoder.onnx_input import Said
from shoal.encoder.onnx_network import words
from shoal.encoder.probes import is_faithful
from shoal.encoder.spec import CONFIG, ONNX, EncoderSpec
from shoal.rundir import digest_file, digest_of

CACHE_FORMAT = 5
LONGEST = 1200  # seconds to prepare an ONNX file; most take some
OF_MEMORY = ("SIGABRT", "SIGKILL", "SIGSEGV")


class Makeable(Protocol):
    """An encoder, built and not yet made ready."""

    @property
    def spec(self) -> EncoderSpec: ...

    @property
    def nbytes(self) -> int:
        """Of its tensors."""

    @property
    def runs_in_torch(self) -> bool:
        """Can torch run it where OpenVINO cannot?"""

    @property
    def beside(self) -> Sequence[Beside]:
        """What it came with, but what lies elsewhere."""

    def save(self, target: Path) -> None:
        """Write what `spec.file` is to hold: its tensors as safetensors, or the ONNX file that it came as."""

    def convert(self, target: Path) -> None:
        """Write it as an OpenVINO model that takes uint8 [batch, size, size, 3]. RuntimeError if it cannot."""

    def similarity(self, engine: OpenVinoEngine, model: Path) -> tuple[float, float]:
        """Mean and least cosine similarity of the engine's features on made images to the encoder's own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An encoder as `prepared.prepare` is asked for it or, with `spec`, of a finished run or a model folder.

    Attributes:
        weights: its file; of an ONNX file, that itself.
        said, digest: of an ONNX file: `onnx_input.Said` as JSON, and its SHA-256.
        tokenizer: folder of a text tower's, where a person gave one.
    """

    backbone: str
    features: str
    resize: str
    weights: str | None
    spec: dict[str, Any] | None = None
    said: dict[str, Any] | None = None
    digest: str = ""
    tokenizer: str | None = None

    @classmethod
    def saved(cls, spec: EncoderSpec, weights: Path) -> Wanted:
        """The encoder of a finished run or a model folder."""
        return cls(spec.backbone, spec.features, spec.resize, str(weights), spec.to_json())

    @property
    def is_embedded(self) -> bool:
        return self.backbone == DEFAULT_BACKBONE if self.spec is None else lite.knows(self.spec["architecture"])

    @property
    def is_onnx(self) -> bool:
        return self.said is not None if self.spec is None else self.spec["architecture"] == ONNX

    def build(self) -> Makeable:
        weights = Path(self.weights) if self.weights else None
        spec = (
            None if self.spec is None or weights is None else EncoderSpec.from_json(self.spec, weights.parent / CONFIG)
        )
        if self.is_embedded:
            if spec is None or weights is None:
                return embedded.find(self.features, self.resize, weights)
            return embedded.saved(spec, weights)
        if self.is_onnx and weights is not None:
            if spec is None:
                said = foreign.READER.read(Said, self.said)
                return onnx.find(weights, self.digest, said, self.features, self.resize)
            return onnx.saved(spec, weights)
        return self._in_torch(spec, weights)

    def _in_torch(self, spec: EncoderSpec | None, weights: Path | None) -> Makeable:
        from shoal.encoder import backbones, rebuilt, timm_models  # noqa: PLC0415  (imports torch; cold start only)
        from shoal.encoder.convert import TorchMakeable  # noqa: PLC0415

        if spec is not None and weights is not None:
            return TorchMakeable(*rebuilt.rebuild(spec, weights))
        if is_clip(self.backbone):
            from shoal.encoder import clip  # noqa: PLC0415  (an extra of its own)

            towers = clip.build(self.backbone, self.features, self.resize, weights, self.tokenizer)
            return TorchMakeable(towers.encoder, towers.spec, (towers.text,))
        encoder, spec = backbones.build(self.backbone, self.features, self.resize, weights)
        layer = timm_models.classifier(encoder, spec, weights)
        return TorchMakeable(encoder, spec, () if layer is None else (layer,))


def key(*parts: str) -> str:
    """A name for what `parts` make on this machine."""
    return digest_of(CACHE_FORMAT, parts, cpu_precision(), metadata.version("openvino"))[:20]


def encoder_name(spec: EncoderSpec, weights: Path) -> str:
    """Name of the prepared folder: the same for a run's own copy of the weights as for the encoder it was made with."""
    return key(digest_of(spec.to_json()), digest_file(weights))


def require(wanted: Wanted) -> None:
    """Raise ConfigError if packages that `make` needs are not installed."""
    if not wanted.is_embedded and not wanted.is_onnx:
        check = needs.require_open_clip if is_clip(wanted.backbone) else needs.require_torch
        check(f"the backbone {wanted.backbone}")


def make(wanted: Wanted, cache_folder: Path) -> Path:
    """Make the prepared folder of an encoder in `cache_folder`, and return it.

    Raises:
        CacheError: `cache_folder` cannot be written.
        Whatever else `backbones.build` raises.
    """
    if wanted.is_embedded:
        return _make(wanted, cache_folder)
    if not wanted.is_onnx and "torch" in sys.modules:  # its memory is taken already
        return _make(wanted, cache_folder)
    # Not by multiprocessing: a script of the user's that lacks a main guard would be run once more.
    asked = {"wanted": dataclasses.asdict(wanted), "folder": str(cache_folder), "told": cache.is_told()}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "shoal.encoder.making"],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
            timeout=LONGEST if wanted.is_onnx else None,  # others may fetch their weights
        )
    except subprocess.TimeoutExpired as error:
        raise errors.WorkError(
            f"preparing {wanted.backbone} took over {LONGEST:,} seconds and was stopped; expected a network that this "
            "machine runs in less"
        ) from error
    if child.returncode != 0:
        raise errors.WorkError(f"preparing {wanted.backbone} failed ({_end(child.returncode)})")
    answer = json.loads(child.stdout)
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return Path(answer["folder"])


def _end(code: int) -> str:
    """How a process ended, in words. One that takes too much memory is killed or, by C++, aborts."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"its process ended by {name}" + ("; it may have taken too much memory" if name in OF_MEMORY else "")


def main() -> None:
    """Make what standard input asks for; tell of it on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the process that waits for this one tells of an interruption
    # What libraries print belongs to people; the answer goes where they cannot write.
    answer, sys.stdout = sys.stdout, sys.stderr
    asked = json.load(sys.stdin)
    if asked["told"]:
        cache.say_no_more()
    try:
        told = {"folder": str(_make(Wanted(**asked["wanted"]), Path(asked["folder"])))}
    except errors.ShoalError as error:
        told = {"error": type(error).__name__, "message": str(error)}
    answer.write(json.dumps(told))


def _make(wanted: Wanted, cache_folder: Path) -> Path:
    if wanted.is_onnx and wanted.weights is not None:
        return _make_limited(wanted, Path(wanted.weights), cache_folder)
    built = wanted.build()
    with cache.writing():
        return _write(built, cache_folder)


def _make_limited(wanted: Wanted, file: Path, cache_folder: Path) -> Path:
    """As `_make`, of a file that may come from anybody, with no more memory than its size lets expect."""
    with memory.at_most(memory.of_reading(file.stat().st_size if file.is_file() else 0)):
        built = wanted.build()
    try:
        with memory.at_most(memory.of_running()), cache.writing():
            return _write(built, cache_folder)
    except MemoryError as error:
        raise errors.WeightsError(f"OpenVINO cannot run {wanted.backbone}: {words(error)}") from error


def _write(built: Makeable, cache_folder: Path) -> Path:
    """Write a prepared folder under a temporary name, then give it its own in one step; return it."""
    cache_folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache_folder).free < 2 * built.nbytes:  # the tensors, and the model
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cache_folder))
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=cache_folder))
    try:
        built.save(made / built.spec.file)
        for one in built.beside:
            one.save(made)
        facts: dict[str, Any] = {"cpu_engine": "torch", "precision": "fp32"}
        for precision in dict.fromkeys((cpu_precision(), "fp32")):
            try:
                built.convert(made / "model.xml")
                mean, least = built.similarity(OpenVinoEngine(made / "model.xml", precision), made / "model.xml")
            except RuntimeError as error:
                why = cache.why_unwritable(made)
                if why is not None:  # OpenVINO wrote half a model, and does not say so
                    raise errors.CacheError(why) from error
                if not built.runs_in_torch:
                    raise errors.WeightsError(f"OpenVINO cannot run {built.spec.backbone}: {words(error)}") from error
                # It lacks an operation: torch runs the model as it is.
                facts["why_torch"] = str(error).splitlines()[0][:300]
                break
            if is_faithful(mean, least):
                facts = {"cpu_engine": "openvino", "precision": precision, "similarity": {"mean": mean, "least": least}}
                break
        atomic.write_json(made / "spec.json", {"spec": built.spec.to_json(), **facts})
        folder = cache_folder / encoder_name(built.spec, made / built.spec.file)
        try:
            made.rename(folder)
        except OSError:  # another process was quicker; its folder is as good as ours
            if not (folder / "spec.json").is_file():
                raise
            for one in built.beside:  # which a run's or a model's encoder is prepared without
                (made / one.file).replace(folder / one.file)
        return folder
    finally:
        shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    main()
