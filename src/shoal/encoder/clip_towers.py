"""open_clip's models by name: which there are, how their images are prepared, their two towers with fresh weights.

Imports torch and open_clip.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Final

import open_clip
from torch import nn

from shoal.config import CLIP, three_numbers
from shoal.errors import ConfigError

QUICK: Final = "-quickgelu"  # after the name of a model, the same one with OpenAI's activation
NEAR: Final = 3
# In place of a tower that is not asked for: to draw millions of weights takes a second.
NO_IMAGES: Final = {"image_size": 16, "patch_size": 16, "layers": 1, "width": 64}
NO_TEXTS: Final = {"context_length": 8, "vocab_size": 8, "layers": 1, "width": 64, "heads": 1}
PREPARATION: Final = {  # what open_clip takes where a tag says nothing
    "mean": open_clip.OPENAI_DATASET_MEAN,
    "std": open_clip.OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What `clip:NAME/TAG` or `clip:NAME` names.

    Attributes:
        name: of the model, as open_clip lists it.
        tag: of its weights; None: they are in a file.
        hub: where the hub has them, OWNER/NAME/FILE; empty without a tag.
    """

    name: str
    tag: str | None
    hub: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize: str


def asked(backbone: str) -> Asked:
    """Which model a backbone is.

    Raises:
        ConfigError: open_clip has no such model, or its tags differ in how images are prepared and none is named.
    """
    name, _, tag = backbone.removeprefix(CLIP).partition("/")
    config = _config(name, backbone)
    tags = {one: open_clip.get_pretrained_cfg(name, one) for one in open_clip.list_pretrained_tags_by_model(name)}
    if tag and not open_clip.get_pretrained_cfg(name, tag):
        raise ConfigError(
            f"--backbone has value {backbone!r}; expected {CLIP}{name}/TAG with one of {', '.join(tags) or 'no tag'}"
        )
    known = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    ways = {_preparation(one) for one in ([known] if tag else tags.values())} or {_preparation({})}
    if len(ways) > 1:
        raise ConfigError(
            f"--backbone has value {backbone!r}, whose images are prepared in {len(ways)} ways; expected "
            f"{CLIP}{name}/TAG with one of {', '.join(tags)}"
        )
    mean, std, interpolation, resize = next(iter(ways))
    # Its weights were learned with another activation than the model of that name has, which would go unnoticed.
    is_quick = bool(known.get("quick_gelu")) and not config.get("quick_gelu")
    return Asked(
        name=name + QUICK if is_quick else name,
        tag=tag or None,
        hub=known.get("hf_hub", ""),
        mean=mean,
        std=std,
        interpolation=interpolation,
        resize=resize,
    )


def both(name: str) -> nn.Module:
    """Both towers of a model and its scale, fresh: `visual`, `text`, `logit_scale`."""
    return _made(name)


def image_tower(name: str) -> nn.Module:
    """The image tower of a model, fresh: float images [n, 3, size, size] to [n, dim] in the space of texts.

    Raises:
        ConfigError: open_clip has no such model.
    """
    tower: nn.Module = _made(name, text_cfg=NO_TEXTS).visual  # type: ignore[assignment]
    return tower


def text_tower(name: str) -> nn.Module:
    """The text tower of a model, fresh: tokens int64 [n, context] to [n, dim]. Raises as `image_tower` does."""
    tower: nn.Module = _made(name, vision_cfg=NO_IMAGES).text  # type: ignore[assignment]
    return tower


def text_config(name: str) -> dict[str, Any]:
    """What open_clip says of a model's texts. Raises as `image_tower` does."""
    found: dict[str, Any] = _config(name, CLIP + name)["text_cfg"]
    return found


def _made(name: str, **instead: dict[str, Any]) -> nn.Module:
    config = {**_config(name, CLIP + name), **instead}
    config.pop("custom_text", None)  # every one is made with its towers apart, whose tensors open_clip renames for it
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    model: nn.Module = open_clip.CustomTextCLIP(**config)
    return model


def _config(name: str, backbone: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), NEAR)
        hint = f"; did you mean {', '.join(CLIP + one for one in near)}?" if near else ""
        raise ConfigError(f"--backbone has value {backbone!r}; expected {CLIP}NAME/TAG of a model of open_clip{hint}")
    if "hf_model_name" in config["text_cfg"] or "multimodal_cfg" in config:
        raise ConfigError(
            f"--backbone has value {backbone!r}, whose text tower is not open_clip's own; expected another, such as "
            f"{CLIP}ViT-B-16/laion2b_s34b_b88k"
        )
    return config


def _preparation(tag: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float], str, str]:
    said = PREPARATION | {name: value for name, value in tag.items() if name in PREPARATION}
    resize = "squash" if said["resize_mode"] == "squash" else "crop"
    return three_numbers(said["mean"], "mean"), three_numbers(said["std"], "std"), str(said["interpolation"]), resize
