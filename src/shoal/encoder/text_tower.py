"""A text tower: texts to rows in the space of an image tower's features. Imports torch and open_clip.

It is kept whole in one file, `text.safetensors`: its tensors and, where its tokenizer is not open_clip's own, that
one's files, as bytes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Final

import numpy as np
import open_clip
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from shoal import atomic, foreign
from shoal.config import CLIP
from shoal.embeddings import Float32
from shoal.encoder import clip_towers
from shoal.encoder.spec import Words
from shoal.encoder.tokenizer import tokenizer
from shoal.encoder.torch_weights import check_shapes, load
from shoal.encoder.weights import TOKENIZER_FILES
from shoal.errors import ConfigError, RunError
from shoal.progress import Progress
from shoal.runfiles import TEXT_TOWER
from shoal.typed import Between

FORMAT: Final = 1
KEY: Final = "shoal"  # of the metadata
BATCH: Final = 32  # words at a time, each in every template
KEPT: Final = {name: f"tokenizer/{name}" for name in TOKENIZER_FILES}  # files of its tokenizer, as tensors


@dataclass(frozen=True, slots=True)
class _Told:
    """What the file's metadata tell."""

    format_version: Annotated[int, Between(1)]
    name: Words  # of the model, as open_clip lists it
    scale: Annotated[float, Between(0, above=True)]


class TextTower:
    """Texts to rows of unit length. Safe to call from several threads.

    Attributes:
        scale: by which cosines are multiplied before a softmax over texts, as the model learned it.
    """

    file: ClassVar[str] = TEXT_TOWER

    def __init__(self, name: str, tower: nn.Module, scale: float, files: Mapping[str, bytes]) -> None:
        """Args: files of its tokenizer by name; none where it is open_clip's own. Raises as `tokenizer` does."""
        self.name = name
        self.scale = scale
        self._files = files
        self._tower = tower.eval().requires_grad_(False)
        self._mask: Tensor | None = getattr(tower, "attn_mask", None)
        self._tokenizer = tokenizer(name, files)
        self._one_at_a_time = threading.Lock()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tower.state_dict().values())

    def to(self, device: str) -> TextTower:
        """The same on `device` (cpu, cuda or mps)."""
        self._tower.to(device)
        self._mask = None if self._mask is None else self._mask.to(device)
        return self

    def rows(self, texts: Sequence[str]) -> Float32:
        """One row of unit length for each text, float32 [n, dim]. What is longer than the tower's context is cut."""
        found: Float32 = self.encode_text(self._tokenizer(list(texts)), normalize=True).cpu().numpy()
        return found

    def words(self, words: Sequence[str], progress: Progress) -> Float32:
        """One row of unit length for each word, float32 [n, dim]: the mean over seven prompts such as *a photo of the
        large {}*, as in CLIP's zero-shot classification (Radford et al., 2021, section 3.1.4)."""
        found = []
        with progress.task("Reading words", len(words), "words") as task:
            for start in range(0, len(words), BATCH):
                some = words[start : start + BATCH]
                columns = open_clip.build_zero_shot_classifier(
                    self, self._tokenizer, some, open_clip.SIMPLE_IMAGENET_TEMPLATES, num_classes_per_batch=None
                )
                found.append(columns.T.cpu().numpy())
                task.advance(len(some))
        rows: Float32 = np.concatenate(found).astype(np.float32)
        return rows

    def encode_text(self, tokens: Tensor, normalize: bool) -> Tensor:
        """Tokens int64 [n, context] to [n, dim], as open_clip's models do it."""
        device = next(self._tower.parameters()).device
        with self._one_at_a_time, torch.inference_mode():
            tokens = self._cut(tokens.to(device))
            out: Tensor = self._tower(tokens).float()
        return F.normalize(out, dim=-1) if normalize else out

    def _cut(self, tokens: Tensor) -> Tensor:
        """Without the padding behind the longest text, which the last token of no text looks at: four times faster."""
        tower = self._tower
        if self._mask is None or tower.pool_type != "argmax" or tower.cls_emb is not None:
            return tokens
        length = int(tokens.argmax(dim=1).max()) + 1
        tower.attn_mask = self._mask[:length, :length]
        return tokens[:, :length]

    def save(self, folder: Path) -> None:
        """Keep it as `text.safetensors` in a folder."""
        tensors = {name: tensor.contiguous() for name, tensor in self._tower.state_dict().items()}
        for name, data in self._files.items():
            tensors[KEPT[name]] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        told = json.dumps(asdict(_Told(FORMAT, self.name, self.scale)), sort_keys=True)
        with atomic.replacing(folder / self.file) as temporary:
            save_file(tensors, temporary, {KEY: told})

    @classmethod
    def open(cls, path: Path) -> TextTower:
        """The tower in a file that `save` wrote.

        Raises:
            ConfigError: what its tokenizer needs is not installed.
            RunError: it is not readable, of a newer format, or none of open_clip's models.
            WeightsError: the tensors are not that model's.
        """
        told = _told(path)
        try:
            with torch.device("meta"):  # shapes alone, as of any encoder from elsewhere
                check_shapes(clip_towers.text_tower(told.name), path, CLIP + told.name, KEPT.values())
        except ConfigError:
            raise RunError(f"{path}: name has value {told.name!r}; expected a model that open_clip has") from None
        tensors = load_file(path)
        files = {
            file: tensors.pop(name).numpy().tobytes()
            for file, name in KEPT.items()
            if name in tensors and tensors[name].dtype == torch.uint8
        }
        tower = clip_towers.text_tower(told.name)
        load(tower, tensors, CLIP + told.name)
        return cls(told.name, tower, told.scale, files)


def opened(path: Path) -> TextTower:
    """The tower in a file, opened once while it is looked for again and again. Raises as `TextTower.open` does."""
    status = path.stat()
    return _opened(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _opened(path: Path, *_: int) -> TextTower:
    return TextTower.open(path)


def _told(path: Path) -> _Told:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} holds no readable text tower: {' '.join(str(error).split())[:200]}") from error
    if KEY not in metadata:
        raise RunError(f"{path} does not tell which text tower it holds; expected the key {KEY!r} in its metadata")
    with foreign.telling_of(path):
        told = foreign.READER.read(_Told, foreign.parse_json(metadata[KEY], path), TEXT_TOWER)
    if told.format_version > FORMAT:
        raise RunError(
            f"{path}: format_version has value {told.format_version}; expected at most {FORMAT}: a newer Shoal made it"
        )
    return told
