"""Both towers of one of open_clip's models with their weights, as `--backbone clip:NAME/TAG` asks for them.

Weights are read by Shoal's own reader, whatever their format: nothing in them is run. Imports torch and open_clip.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from shoal import hub
from shoal.config import CLIP
from shoal.encoder import clip_towers, needs
from shoal.encoder.clip_towers import Asked
from shoal.encoder.logs import log_as_it_was
from shoal.encoder.networks import WITHOUT_TOP, Encoder
from shoal.encoder.spec import EncoderSpec
from shoal.encoder.text_tower import TextTower
from shoal.encoder.tokenizer import fetched_files, files_in, repository
from shoal.encoder.torch_weights import hub_that_answers, read_state_dict, require_fit
from shoal.errors import ConfigError, ShoalError, WeightsError
from shoal.rundir import digest_file

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Towers:
    """The image tower as an encoder of images, whose features are in the space of texts, and the text tower."""

    encoder: Encoder
    spec: EncoderSpec
    text: TextTower


def build(backbone: str, features: str, resize: str, weights: Path | None, tokenizer: str | None) -> Towers:
    """Build both towers in eval mode and describe the image tower.

    Args:
        backbone: `clip:NAME/TAG`, or `clip:NAME` for weights in a file.
        features: `default` the image tower's output, `best` its mean over the image and its mirror image.
        resize: `crop` (the model's own preprocessing) or `squash`.
        weights: file to read, of both towers; None takes the hub's.
        tokenizer: folder of the tokenizer, where it is not open_clip's own; None takes the hub's.

    Raises:
        ConfigError: open_clip knows no such model, it has no such features, or the tokenizer is not to be had here.
        WeightsError: the weights are missing, unreachable, or do not fit.
    """
    asked = clip_towers.asked(backbone)
    if features not in WITHOUT_TOP:
        raise ConfigError(f"--features has value {features!r}, but {backbone} has only {' and '.join(WITHOUT_TOP)}")
    if weights is None and asked.tag is None:
        tags = open_clip.list_pretrained_tags_by_model(asked.name)
        raise ConfigError(
            f"--backbone has value {backbone!r}, which names no weights; expected {CLIP}{asked.name}/TAG"
            + (f" with one of {', '.join(tags)}" if tags else "")
            + ", or --weights FILE"
        )
    files = _tokenizer(asked.name, backbone, tokenizer)
    file = weights or _fetch("weights", backbone, "--weights FILE", lambda: _fetched(asked))
    model = clip_towers.both(asked.name)
    _read(model, file, backbone)
    encoder = Encoder(model.visual.eval().requires_grad_(False), features).eval()  # type: ignore[union-attr]
    text = TextTower(asked.name, model.text, float(model.logit_scale.detach().exp()), files)  # type: ignore[arg-type, operator]
    source = f"hub {asked.hub.rstrip('/')}" if weights is None else f"file {file.name}"
    return Towers(encoder, _describe(encoder, asked, backbone, resize, file, source), text)


def _describe(encoder: Encoder, asked: Asked, backbone: str, resize: str, file: Path, source: str) -> EncoderSpec:
    size = encoder.model.image_size
    side = int(size[0] if isinstance(size, tuple | list) else size)  # type: ignore[arg-type]
    with torch.inference_mode():
        dim = encoder(torch.zeros(1, 3, side, side)).shape[1]
    return EncoderSpec(
        backbone=backbone,
        architecture=CLIP + asked.name,
        features=encoder.features,
        weights_sha256=digest_file(file),
        weights_source=source,
        licence="unknown",
        dim=int(dim),
        size=side,
        crop_fraction=1.0,
        interpolation=asked.interpolation,
        resize="squash" if resize == "squash" else asked.resize,
        mean=asked.mean,
        std=asked.std,
    )


def _tokenizer(name: str, backbone: str, folder: str | None) -> dict[str, bytes]:
    """The files of a model's tokenizer: none if it is open_clip's own, else those of a folder or of the hub."""
    place = repository(name)
    if place is None:
        if folder is not None:
            raise ConfigError(f"--tokenizer has value {folder!r}, but {backbone} has open_clip's own tokenizer")
        return {}
    needs.require_transformers(f"the tokenizer of {backbone}")
    if folder is not None:
        return files_in(folder)
    return _fetch("tokenizer", backbone, "--tokenizer FOLDER", lambda: fetched_files(place))


def _fetched(asked: Asked) -> Path:
    """The file of a tag's weights, as the hub has it."""
    known = open_clip.get_pretrained_cfg(asked.name, asked.tag)
    return Path(hub.fetch(lambda place: open_clip.download_pretrained(known, cache_dir=place)))


def _fetch(what: str, backbone: str, instead: str, call: Callable[[], T]) -> T:
    """What a call fetches from the hub, or finds among what was fetched before.

    Args:
        what: of the backbone; instead: the option by which a person gives it.

    Raises:
        WeightsError: it is not here, and the hub cannot be reached.
    """
    try:
        with hub_that_answers():
            return call()
    except ShoalError:
        raise
    except Exception as error:  # the hub client raises many kinds when there is no network
        raise WeightsError(
            f"the {what} of {backbone!r} {'are' if what == 'weights' else 'is'} not on this machine and could not be "
            f"fetched from the hub ({type(error).__name__}); fetch where there is a network and pass {instead}"
        ) from error


def _read(model: nn.Module, file: Path, backbone: str) -> None:
    """Put a file's tensors into a model, as open_clip renames and resizes them for it."""
    with tempfile.TemporaryDirectory(prefix="shoal-weights-") as folder, log_as_it_was():
        if file.suffix != ".safetensors":  # open_clip would unpickle it
            tensors = {name: tensor.contiguous() for name, tensor in read_state_dict(file).items()}
            file = Path(folder) / "weights.safetensors"
            save_file(tensors, file)
        try:
            require_fit(lambda: open_clip.load_checkpoint(model, str(file), strict=False), backbone)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"--weights file {file} cannot be read: {str(error).splitlines()[0][:200]}") from error
