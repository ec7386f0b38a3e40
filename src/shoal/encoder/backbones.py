"""Backbones as torch modules: the embedded one, and any timm model by name, giving the features asked for.

This module imports torch and timm; everything on the warm path works from `EncoderSpec` alone.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from shoal import hub
from shoal.config import CLIP, DEFAULT_BACKBONE, is_clip, three_numbers
from shoal.encoder import architectures, hub_models, lite, names, needs
from shoal.encoder import weights as weight_files
from shoal.encoder.classifier import Layer
from shoal.encoder.spec import CONFIG, EncoderSpec
from shoal.encoder.torch_weights import check_shapes, hub_that_answers, load, read_state_dict
from shoal.errors import ConfigError, RunError, WeightsError
from shoal.rundir import digest_file

TRAINED = "shoal"  # key of the metadata in a file that `shoal train` made
WITHOUT_TOP = ("default", "best")  # features of networks that have neither a classifier nor a map that is known


class Encoder(nn.Module):
    """A timm model, or the image tower of one of open_clip's, that gives one row of features an image.

    Input: float32 [n, 3, size, size], normalised. Output: float32 [n, dim]:
    `default` the pooled last map, `map` the last map flattened in the order height, width, channel (the order of
    the Keras networks of the transfer project), `logits` the classifier's output, `probabilities` its softmax, and
    `best` the pooled features averaged over the image and its mirror image, of a `Together` those of all its networks.
    """

    def __init__(self, model: nn.Module, features: str) -> None:
        super().__init__()
        self.model = model
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        if self.features == "map":
            last: Tensor = self.model.forward_features(images)  # type: ignore[operator]
            if last.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") != "NHWC":
                last = last.permute(0, 2, 3, 1)  # [n, c, h, w] -> [n, h, w, c]
            return last.flatten(1)
        out: Tensor = self.model(images)
        if self.features == "best" and not isinstance(self.model, Together):
            out = (out + self.model(images.flip(-1))) / 2
        return out.softmax(dim=1) if self.features == "probabilities" else out


class Together(nn.Module):
    """Several networks for one image, given at the size of the last one's input.

    Output: float32 [n, sum of dims], each network's pooled features, averaged over the image and its mirror image and
    then made of unit length: what differs between networks differs by their training, not by the images.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.dim = 0
        for member in members:
            self.dim += int(member.num_features)  # type: ignore[arg-type]
        self.sizes = [int(resolve_model_data_config(member)["input_size"][1]) for member in members]

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for member, size in zip(self.members, self.sizes, strict=True):
            view = images if size == self.sizes[-1] else F.interpolate(images, (size, size), mode="bilinear")
            rows.append(F.normalize(member(view) + member(view.flip(-1))))
        return torch.cat(rows, dim=1)


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
    architecture = backbone
    _check_known(backbone)
    from_hub = weights is None
    if weights is None:
        model, architecture = _fetch(backbone, features)
    else:
        model = _create(architecture, features)
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


def _whole(spec: EncoderSpec, weights: Path | None) -> nn.Module | None:
    """timm's model with its classifier; None if the weights have none. Raises ConfigError if the model has none."""
    if weights is None:
        model, _ = _fetch(spec.backbone, "logits")
        return model.eval()
    state = weight_files.encoder_tensors(read_state_dict(weights))
    model = _create(spec.architecture, "logits")
    top = model.pretrained_cfg.get("classifier", "")  # type: ignore[union-attr, operator]
    last = state.get(f"{top}.weight") if isinstance(top, str) else None
    if last is None:
        return None
    model = _create(spec.architecture, "logits", len(last))
    load(model, state, spec.backbone)
    return model.eval()


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


def _check_known(backbone: str) -> None:
    base = backbone.split(".", 1)[0]
    if hub_models.is_on_hub(backbone) or timm.is_model(base):
        return
    near = difflib.get_close_matches(base, [DEFAULT_BACKBONE, *timm.list_models()], n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ConfigError(
        f"--backbone has value {backbone!r}; expected {DEFAULT_BACKBONE} or a model that timm knows{hint}"
    )


def _create(architecture: str, features: str, dim: int | None = None) -> nn.Module:
    """A timm model without weights; nothing is fetched.

    Args:
        dim: of the features, where it is known: a classifier may have other classes than its name says.
    """
    classes = {"num_classes": 0} if features not in lite.TOP else {} if dim is None else {"num_classes": dim}
    model: nn.Module = timm.create_model(architecture, pretrained=False, **classes)
    _check_has(model, features, architecture)
    return model


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
        return Together([_create(name, spec.features) for name in parts])
    if len(parts) > 1 or not timm.is_model(spec.architecture.split(".", 1)[0]):
        raise _unknown(spec, weights)
    return _create(spec.architecture, spec.features, spec.dim)


def _unknown(spec: EncoderSpec, weights: Path) -> RunError:
    return RunError(
        f"{weights.parent / CONFIG}: encoder.architecture has value {spec.architecture!r}; expected one that Shoal, or "
        "this version of timm or open_clip, has"
    )
