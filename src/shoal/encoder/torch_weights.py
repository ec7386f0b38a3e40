"""Tensors of weights files as torch has them, and how they are put into a network; whether the hub answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shoal.encoder import weights as weight_files
from shoal.errors import RunError, WeightsError
from shoal.foreign import Tensors

HUB_SECONDS: Final = 5.0  # until a hub that says nothing counts as not there


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name: see `weights.read_tensors`. Raises WeightsError as it does."""
    if path.suffix == ".safetensors":  # whose bfloat16 numpy does not have
        try:
            return {name.removeprefix("module."): tensor for name, tensor in load_file(path).items()}
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"--weights file {path} cannot be read: {str(error).splitlines()[0][:200]}") from error
    return {name: torch.from_numpy(np.array(tensor)) for name, tensor in weight_files.read_tensors(path).items()}


def load(model: nn.Module, state: dict[str, Tensor], backbone: str) -> None:
    """Put tensors into a network. Raises WeightsError if they are not exactly its own; `backbone` is its name."""
    require_fit(lambda: model.load_state_dict(state, strict=False), backbone)


def require_fit(put: Callable[[], Any], backbone: str) -> None:
    """Call what puts tensors into a network, and says which are missing and which are not known.

    Raises:
        WeightsError: any are.
    """
    try:
        missing, unexpected = put()
    except (RuntimeError, KeyError, AssertionError, StopIteration) as error:  # shapes differ; or none of its names
        told = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise WeightsError(f"the weights do not fit {backbone}: {told}") from error
    if missing or unexpected:
        wrong = f"{len(missing)} tensors missing (first {missing[0]!r})" if missing else ""
        extra = f"{len(unexpected)} not known (first {unexpected[0]!r})" if unexpected else ""
        raise WeightsError(f"the weights do not fit {backbone}: {', '.join(part for part in (wrong, extra) if part)}")


def check_shapes(model: nn.Module, file: Path, architecture: str, besides: Collection[str] = ()) -> None:
    """Raise WeightsError unless a file holds a network's tensors, by what its header says.

    Args:
        model: the network on torch's meta device, where it takes no memory.
        besides: names of what else the file may hold.
    """
    try:
        found = {name: shape for name, (_, shape) in Tensors.of(file).found.items() if name not in besides}
    except RunError as error:
        raise WeightsError(str(error)) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            has, needs = (f"is {list(of[name])}" if name in of else "is not there" for of in (found, wanted))
            raise WeightsError(f"{file}: tensor {name[:100]!r} {has}; in {architecture} it {needs}")


@contextmanager
def hub_that_answers() -> Iterator[None]:
    """Ask the hub once whether it is there; if not, only its cache is used: its client would try for a minute."""
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # which one depends on the client's version; whatever it is, the hub did not answer
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = offline
