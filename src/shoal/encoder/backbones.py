"""The torch encoder that a person's `--backbone` names: any timm model, or one that `shoal train` made.

This module imports torch and timm; everything on the warm path works from `EncoderSpec` alone.
"""

from __future__ import annotations

from pathlib import Path

from shoal.encoder import architectures, names, timm_models
from shoal.encoder import weights as weight_files
from shoal.encoder.networks import WITHOUT_TOP, Encoder
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.torch_weights import load, read_state_dict
from shoal.errors import ConfigError, WeightsError
from shoal.rundir import digest_file

TRAINED = "shoal"  # key of the metadata in a file that `shoal train` made


def build(backbone: str, features: str, resize: str, weights: Path | None) -> tuple[Encoder, EncoderSpec]:
    """Build an encoder in eval mode and describe it.

    Args:
        backbone: any timm model's name, or an encoder of `shoal train`.
        features: see `Encoder`.
        resize: `crop` (the model's own preprocessing) or `squash`.
        weights: file to read; None takes the hub's.

    Raises:
        ConfigError: timm knows no such model, or it has no such features.
        WeightsError: the weights are missing, unreachable, or do not fit.
    """
    if backbone.startswith(names.PREFIX):
        return _trained(backbone, features, resize, weights)
    return timm_models.build(backbone, features, resize, weights)


def _trained(backbone: str, features: str, resize: str, weights: Path | None) -> tuple[Encoder, EncoderSpec]:
    """An encoder that `shoal train` made, from the file in which it left it."""
    if weights is None:
        raise ConfigError(f"--backbone has value {backbone!r}, which needs --weights RUN/train/encoder.safetensors")
    if features not in WITHOUT_TOP:
        raise ConfigError(f"--features has value {features!r}, but {backbone} has only {' and '.join(WITHOUT_TOP)}")
    model = architectures.build(backbone)
    state = weight_files.encoder_tensors(read_state_dict(weights))
    made = weight_files.trained_input(weights, TRAINED)
    if made.encoder != names.full_name(backbone):
        raise WeightsError(
            f"--weights file {weights} holds {made.encoder!r}: give that as --backbone; got {backbone!r}"
        )
    load(model, state, backbone)
    model.eval().requires_grad_(False)
    encoder = Encoder(model, features).eval()
    return encoder, EncoderSpec(
        backbone=backbone,
        architecture=names.full_name(backbone),
        features=features,
        weights_sha256=digest_file(weights),
        weights_source="trained here",
        licence="yours: trained from your images",
        dim=int(model.dim),  # type: ignore[arg-type]
        size=made.size,
        crop_fraction=made.crop_fraction,
        interpolation="bicubic",
        resize="squash" if resize == "squash" else made.resize,
        mean=made.mean,
        std=made.std,
    )
