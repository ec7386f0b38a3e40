"""An encoder in torch made again from what a run, a model or a cache keeps of it. Imports torch and timm."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import nn

from shoal.config import CLIP, is_clip
from shoal.encoder import architectures, lite, names, needs
from shoal.encoder.networks import WITHOUT_TOP, Encoder, Together
from shoal.encoder.spec import CONFIG, EncoderSpec
from shoal.encoder.timm_models import create
from shoal.encoder.torch_weights import check_shapes, load, read_state_dict
from shoal.errors import ConfigError, RunError


def rebuild(spec: EncoderSpec, weights: Path) -> tuple[Encoder, EncoderSpec]:
    """Build the encoder that `spec` describes from its own saved tensors (`encoder.safetensors`); nothing is fetched.

    Raises:
        RunError: there is no such architecture, or it gives no such features.
        WeightsError: the tensors are not that architecture's.
    """
    with torch.device("meta"):  # shapes alone: no memory is taken before the file is known to be what it should be
        check_shapes(_skeleton(spec, weights), weights, spec.architecture)
    model = _skeleton(spec, weights)
    load(model, read_state_dict(weights), spec.backbone)
    model.eval().requires_grad_(False)
    encoder = Encoder(model, spec.features).eval()
    try:
        with torch.inference_mode():
            dim = encoder(torch.zeros(1, 3, spec.size, spec.size)).shape[1]
    except (RuntimeError, AssertionError, ValueError) as error:  # it takes images of another size only
        raise RunError(
            f"{weights.parent / CONFIG}: encoder.size has value {spec.size}, which {spec.architecture} does not take"
        ) from error
    if dim != spec.dim:
        raise RunError(
            f"{weights.parent / CONFIG}: encoder.dim has value {spec.dim:,}; expected {dim:,}, as {spec.architecture} "
            f"gives as features {spec.features!r}"
        )
    return encoder, spec


def _skeleton(spec: EncoderSpec, weights: Path) -> nn.Module:
    """The network that `spec` names, as it is before any weights."""
    is_trained = spec.architecture.startswith(names.PREFIX)
    if (is_trained or is_clip(spec.architecture)) and spec.features not in WITHOUT_TOP:
        raise RunError(
            f"{weights.parent / CONFIG}: encoder.features has value {spec.features!r}; expected "
            f"{' or '.join(WITHOUT_TOP)}, as {spec.architecture} gives"
        )
    if is_trained:
        try:
            return architectures.build(spec.architecture)
        except ConfigError:
            raise _unknown(spec, weights) from None
    if is_clip(spec.architecture):
        needs.require_open_clip(f"the backbone {spec.backbone}")
        from shoal.encoder.clip_towers import image_tower  # noqa: PLC0415  (an extra of its own)

        try:
            return image_tower(spec.architecture.removeprefix(CLIP))
        except ConfigError:
            raise _unknown(spec, weights) from None
    parts = lite.networks(spec.architecture)
    if len(parts) > 1 and lite.knows(spec.architecture):
        return Together([create(name, spec.features) for name in parts])
    if len(parts) > 1 or not timm.is_model(spec.architecture.split(".", 1)[0]):
        raise _unknown(spec, weights)
    return create(spec.architecture, spec.features, spec.dim)


def _unknown(spec: EncoderSpec, weights: Path) -> RunError:
    return RunError(
        f"{weights.parent / CONFIG}: encoder.architecture has value {spec.architecture!r}; expected one that Shoal, or "
        "this version of timm or open_clip, has"
    )
