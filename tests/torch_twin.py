"""The embedded networks in torch, to compare with."""

from __future__ import annotations

import tempfile
from pathlib import Path

from shoal.encoder import embedded, rebuilt
from shoal.encoder.networks import Encoder
from shoal.encoder.spec import EncoderSpec


def torch_twin(features: str, weights: Path | None = None) -> tuple[Encoder, EncoderSpec]:
    """The embedded backbone as torch runs it, and what it is."""
    found = embedded.find(features, "crop", weights)
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder) / "encoder.safetensors")
        return rebuilt.rebuild(found.spec, Path(folder) / "encoder.safetensors")
