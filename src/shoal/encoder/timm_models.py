"""timm's models as encoders: without weights, with a file's, or with those that a hub has. Imports torch and timm."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from shoal import hub
from shoal.config import DEFAULT_BACKBONE, three_numbers
from shoal.encoder import hub_models, lite, names
from shoal.encoder import weights as weight_files
from shoal.encoder.classifier import Layer
from shoal.encoder.networks import Encoder
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.torch_weights import hub_that_answers, load, read_state_dict
from shoal.errors import ConfigError, WeightsError
from shoal.rundir import digest_file


def build(backbone: str, features: str, resize: str, weights: Path | None) -> tuple[Encoder, EncoderSpec]:
    """A timm model as an encoder in eval mode, described. For arguments and errors see `backbones.build`."""
    architecture = backbone
    _check_known(backbone)
    from_hub = weights is None
    if weights is None:
        model, architecture = _fetch(backbone, features)
    else:
        model = create(architecture, features)
        state = read_state_dict(weights)
        load(model, _without_unused_top(weight_files.encoder_tensors(state), model, features), backbone)
    model.eval().requires_grad_(False)
    encoder = Encoder(model, features).eval()
    return encoder, _describe(encoder, backbone, architecture, resize, weights, from_hub)


def classifier(encoder: Encoder, spec: EncoderSpec, weights: Path | None) -> Layer | None:
    """What gives the classes of timm's model from features as `encoder` stores them.

    None if the features are its own output, if the weights have no classifier, or if that is not one linear layer on
    the features (of a map: on their mean over places), as made images tell.

    Raises:
        WeightsError: the weights are gone since they were read.
    """
    if spec.features in lite.TOP or spec.architecture.startswith(names.PREFIX):
        return None
    try:
        whole = _whole(spec, weights)
    except ConfigError:
        return None
    linear = None if whole is None else whole.get_classifier()  # type: ignore[operator]
    if whole is None or not isinstance(linear, nn.Linear):
        return None
    weight = linear.weight.detach()
    bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach()
    images = torch.randn((2, 3, spec.size, spec.size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = (whole(images) + whole(images.flip(-1))) / 2 if spec.features == "best" else whole(images)
        rows = encoder(images)
        if rows.shape[1] % weight.shape[1]:
            return None
        found = F.linear(rows.unflatten(1, (-1, weight.shape[1])).mean(dim=1), weight, bias)
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
        return None
    return Layer(weight.numpy().copy(), bias.numpy().copy())


def create(architecture: str, features: str, dim: int | None = None) -> nn.Module:
    """A timm model without weights; nothing is fetched.

    Args:
        dim: of the features, where it is known: a classifier may have other classes than its name says.
    """
    classes = {"num_classes": 0} if features not in lite.TOP else {} if dim is None else {"num_classes": dim}
    model: nn.Module = timm.create_model(architecture, pretrained=False, **classes)
    _check_has(model, features, architecture)
    return model


def _whole(spec: EncoderSpec, weights: Path | None) -> nn.Module | None:
    """timm's model with its classifier; None if the weights have none. Raises ConfigError if the model has none."""
    if weights is None:
        model, _ = _fetch(spec.backbone, "logits")
        return model.eval()
    state = weight_files.encoder_tensors(read_state_dict(weights))
    model = create(spec.architecture, "logits")
    top = model.pretrained_cfg.get("classifier", "")  # type: ignore[union-attr, operator]
    last = state.get(f"{top}.weight") if isinstance(top, str) else None
    if last is None:
        return None
    model = create(spec.architecture, "logits", len(last))
    load(model, state, spec.backbone)
    return model.eval()


def _check_known(backbone: str) -> None:
    base = backbone.split(".", 1)[0]
    if hub_models.is_on_hub(backbone) or timm.is_model(base):
        return
    near = difflib.get_close_matches(base, [DEFAULT_BACKBONE, *timm.list_models()], n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ConfigError(
        f"--backbone has value {backbone!r}; expected {DEFAULT_BACKBONE} or a model that timm knows{hint}"
    )


def _fetch(backbone: str, features: str) -> tuple[nn.Module, str]:
    """A timm model with the weights that a hub has for it, and the name of its architecture."""
    classes = {} if features in lite.TOP else {"num_classes": 0}
    try:
        with hub_that_answers():
            found = hub_models.read(backbone) if hub_models.is_on_hub(backbone) else hub_models.HubModel(backbone, {})
            wanted = {"pretrained": True, "pretrained_cfg_overlay": found.weights, **classes}
            model: nn.Module = hub.fetch(lambda place: timm.create_model(found.architecture, cache_dir=place, **wanted))
    except WeightsError:
        raise
    except Exception as error:  # the hub client raises many kinds when there is no network
        raise WeightsError(
            f"the weights of {backbone!r} are not on this machine and could not be fetched from the hub "
            f"({type(error).__name__}); fetch them where there is a network and pass --weights FILE"
        ) from error
    _check_has(model, features, backbone)
    return model, found.architecture


def _check_has(model: nn.Module, features: str, architecture: str) -> None:
    if features in lite.TOP and int(getattr(model, "num_classes", 0)) == 0:
        raise ConfigError(
            f"--features has value {features!r}, but {architecture} has no classifier; expected default or map"
        )


def _without_unused_top(state: dict[str, Tensor], model: nn.Module, features: str) -> dict[str, Tensor]:
    """Drop the classifier's tensors when the features do not use it."""
    if features in lite.TOP:
        return state
    wanted = model.state_dict()
    top = model.pretrained_cfg.get("classifier", "")  # type: ignore[union-attr, operator]
    heads = (top,) if isinstance(top, str) else tuple(top)
    return {
        name: tensor
        for name, tensor in state.items()
        if name in wanted or not any(head and name.startswith(f"{head}.") for head in heads)
    }


def _describe(
    encoder: Encoder, backbone: str, architecture: str, resize: str, weights: Path | None, from_hub: bool
) -> EncoderSpec:
    model = encoder.model
    data = resolve_model_data_config(model)
    size = int(data["input_size"][1])
    with torch.inference_mode():
        dim = encoder(torch.zeros(1, 3, size, size)).shape[1]
    if weights is None:
        digest, source = _tensor_digest(model), "hub"
    else:
        digest, source = digest_file(weights), f"file {weights.name}"
    return EncoderSpec(
        backbone=backbone,
        architecture=architecture,
        features=encoder.features,
        weights_sha256=digest,
        weights_source=source,
        licence=_hub_licence(model, from_hub),
        dim=int(dim),
        size=size,
        crop_fraction=float(data["crop_pct"]),
        interpolation=data["interpolation"] if data["interpolation"] in ("bicubic", "bilinear") else "bicubic",
        resize="squash" if resize == "squash" or data.get("crop_mode") == "squash" else "crop",
        mean=three_numbers(data["mean"], "mean"),
        std=three_numbers(data["std"], "std"),
    )


def _hub_licence(model: nn.Module, from_hub: bool) -> str:
    config: Any = model.pretrained_cfg
    return str(config.get("license") or "unknown") if from_hub else "unknown"


def _tensor_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
