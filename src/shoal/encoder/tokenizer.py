"""The tokenizer of a text tower: open_clip's own, or one of transformers that comes as files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import huggingface_hub
import open_clip

from shoal import foreign, hub
from shoal.config import CLIP
from shoal.encoder import clip_towers, needs
from shoal.encoder import weights as weight_files
from shoal.encoder.logs import log_as_it_was
from shoal.errors import ShoalError, WeightsError

LARGEST: Final = 1 << 26  # bytes of a file; Gemma's tokenizer.json has 34 MB


def repository(name: str) -> str | None:
    """Where the hub has the tokenizer of a model; None if it is open_clip's own."""
    found: str | None = clip_towers.text_config(name).get("hf_tokenizer_name")
    return found


def files_in(folder: str) -> dict[str, bytes]:
    """The files of the tokenizer in the folder that `--tokenizer` names. Raises ConfigError if there are none."""
    return _bytes(weight_files.checked_tokenizer(folder))


def fetched_files(repository: str) -> dict[str, bytes]:
    """Those that the hub has. Raises whatever its client raises."""
    patterns = list(weight_files.TOKENIZER_FILES)
    fetch = huggingface_hub.snapshot_download
    folder = hub.fetch(lambda place: fetch(repository, allow_patterns=patterns, cache_dir=place))
    return _bytes(weight_files.tokenizer_in(Path(folder)))


def _bytes(files: Mapping[str, Path]) -> dict[str, bytes]:
    return {name: foreign.read_bytes(path, LARGEST) for name, path in files.items()}


def tokenizer(name: str, files: Mapping[str, bytes]) -> Any:
    """open_clip's tokenizer of a model: a list of texts to tokens int64 [n, context].

    Args:
        files: of one that is not open_clip's own, by name.

    Raises:
        ConfigError: what it needs is not installed.
        WeightsError: the files are not a tokenizer's.
    """
    with log_as_it_was():
        if not files:
            return open_clip.get_tokenizer(name)
        needs.require_transformers(f"the tokenizer of {CLIP}{name}")
        with tempfile.TemporaryDirectory(prefix="shoal-tokenizer-") as folder:
            for file, data in files.items():
                (Path(folder) / file).write_bytes(data)
            config = {"model_cfg": {"text_cfg": clip_towers.text_config(name)}}
            (Path(folder) / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
            try:
                return open_clip.get_tokenizer(f"local-dir:{folder}", trust_remote_code=False)
            except ShoalError:
                raise
            except Exception as error:  # transformers raises whatever its many tokenizers do
                told = " ".join(str(error).split())[:200]
                raise WeightsError(f"the tokenizer of {CLIP}{name} cannot be made of its files: {told}") from error
