"""Training on Apple's GPUs, told without one: they have a kernel for all that is computed there, and no float64.

Which operators have one says the list that torch comes with. One made of others there ("composite") is taken to do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import small_training
from fake_gpu import GPU, OnGpu, on_gpu, put
from shoal.progress import Progress
from shoal.train import draws, encoders, features, loop, scan, views
from shoal.train.config import VIEW_SETS, EncoderConfig, ViewConfig

OPERATORS = Path(torch.__file__).parents[1] / "torchgen/packaged/ATen/native/native_functions.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some builds have the slow one only
KERNELS = {
    *("MPS", "CompositeImplicitAutograd", "CompositeExplicitAutograd"),
    "CompositeExplicitAutogradNonFunctional",
}
# By design on the host, whatever the device: it has the labels, or features that were fetched.
ON_HOST = {"agreement"}

KINDS = {
    "simclr": ("pretext", ["pretext.optimiser.name=muon"]),
    "simclr decoupled": ("pretext", ["pretext.loss=decoupled", "pretext.loop.clip=1", "pretext.optimiser.name=adamw"]),
    "simclr keras": ("pretext", ["pretext.loss=keras", "pretext.head.kind=keras", "pretext.optimiser.name=sgd"]),
    "moco": ("pretext", ["pretext.task=moco", "pretext.loss=standard", "pretext.head.norm=true"]),
    "rotnet": ("pretext", ["pretext.task=rotnet", "pretext.loss=standard", "pretext.loop.accumulate=2"]),
    "scan-tuned": ("scan", ["scan.optimiser.name=adam"]),
    "scan-tuned keras": ("scan", ["scan.loss=keras"]),
    "scan-frozen": ("scan", ["scan.standardise=true", "scan.neighbours_each=2"]),
    "selflabel": ("selflabel", ["selflabel.ema=0.9"]),
    "selflabel quota": ("selflabel", ["selflabel.quota=0.5", "selflabel.weigh_classes=false"]),
    "taught": ("selflabel", ["selflabel.quota=0.9", "selflabel.loop.batch=8"]),
}


class Recorder(TorchDispatchMode):
    """Which operators compute, and which of them with float64, but for what is on the host by design.

    Args:
        device: of whose tensors only; None: of all, where everything is on the CPU, to see a GPU's work there.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        super().__init__()
        self._device = device
        self.operators: set[str] = set()
        self.doubles: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, out)) if isinstance(one, torch.Tensor)]
        if self._device is not None:
            tensors = [tensor for tensor in tensors if tensor.device == self._device]
        if tensors and func.namespace == "aten" and _caller() not in ON_HOST:  # prim: what a tensor is, not computed
            name = f"{func._schema.name}.{func._schema.overload_name}".removeprefix("aten::").removesuffix(".")
            self.operators.add(name)
            if any(tensor.dtype == torch.float64 for tensor in tensors):
                self.doubles.add(f"{name} in {_caller()}")
        return out


def _caller() -> str:
    """The innermost function of Shoal's that is at work."""
    frame: Any = sys._getframe(2)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("shoal."):
        frame = frame.f_back
    return str(frame.f_code.co_name) if frame is not None else ""


@cache
def kernels() -> dict[str, set[str]]:
    """Of each operator, by name and overload, the keys that it has a kernel for."""
    if not OPERATORS.is_file():
        pytest.skip(f"this torch comes without the list of its operators, {OPERATORS}")
    entries = {entry["func"].split("(")[0]: entry for entry in yaml.load(OPERATORS.read_text(), LOADER)}
    found: dict[str, set[str]] = {}
    for name, entry in entries.items():
        dispatch = entries[entry.get("structured_delegate", name)].get("dispatch", {"CompositeImplicitAutograd": ""})
        found[name] = {key.strip() for keys in dispatch for key in keys.split(",")}
        for made in entry.get("autogen", "").split(","):
            found[made.strip()] = {"CompositeExplicitAutograd"}
    return found


def require_kernels(recorder: Recorder) -> None:
    assert recorder.operators
    assert {name for name in recorder.operators if not kernels()[name] & KERNELS} == set()
    assert recorder.doubles == set()


@contextmanager
def on_another_gpu() -> Iterator[Recorder]:
    """What has to do with a GPU is fake; it stands for Apple's, without what only NVIDIA's have."""
    with torch.backends.cudnn.flags(enabled=False), on_gpu(), Recorder(GPU) as recorder:
        yield recorder


@pytest.mark.parametrize("kind", KINDS)
def test_training_has_its_kernels(kind: str, tmp_path: Path) -> None:
    """An epoch with all that the loop does around it, seen on the CPU."""
    section, changes = KINDS[kind]
    recipe = small_training.config(f"{section}.epochs=1", *changes)
    phase = small_training.build(kind.split(maxsplit=1)[0], recipe, small_training.pixels())
    with Recorder() as recorder:
        loop.train(phase, small_training.settings(recipe, section), tmp_path, Progress())
    require_kernels(recorder)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_have_their_kernels(kind: str) -> None:
    """On a GPU some things are computed in another way than on the CPU."""
    recipe = small_training.config(*KINDS[kind][1])
    phase: Any = small_training.build(kind.split(maxsplit=1)[0], recipe, small_training.pixels())
    phase.begin_epoch(0)
    examples = phase.examples(torch.arange(16), torch.Generator())
    with on_another_gpu() as recorder:
        put(phase)
        phase.losses(phase.network, examples, OnGpu())
        phase.after_step()
    require_kernels(recorder)


@pytest.mark.parametrize("kind", VIEW_SETS)
def test_views_have_their_kernels(kind: str) -> None:
    make = views.Views(ViewConfig(kind=kind, blur_chance=0.5), 8, *small_training.COLOURS)
    with on_another_gpu() as recorder:
        make(torch.empty(16, 3, 12, 12, dtype=torch.uint8, device=GPU), OnGpu())
    require_kernels(recorder)


@pytest.mark.parametrize("name", ["whitened/cpu-small", "resnet50v2", "tf_efficientnet_lite0"])
def test_encoders_have_their_kernels(name: str) -> None:
    network = encoders.encoder(EncoderConfig(name))
    with Recorder() as recorder:
        network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    require_kernels(recorder)


def test_features_and_neighbours_have_their_kernels() -> None:
    recipe, images = small_training.config(), small_training.pixels()
    encoder = small_training.TinyEncoder()
    with Recorder() as recorder:
        scan.view_features(
            encoder, recipe.scan, images, small_training.COLOURS, small_training.PRECISION, 0, Progress()
        )
        features.nearest(torch.rand(40, 8), 5)
    require_kernels(recorder)


def test_layers_draw_from_generators_that_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch seeds that of Apple's GPU too."""
    there = torch.Generator()
    monkeypatch.setattr(torch.mps, "manual_seed", there.manual_seed)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: there.get_state())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: there.set_state(state))
    before = [torch.default_generator.get_state(), there.get_state()]
    with draws.seeded(torch.device("mps"), 0, "layers"):
        assert there.initial_seed() == draws.number(0, "layers")
        torch.rand(3), torch.rand(3, generator=there)
    after = [torch.default_generator.get_state(), there.get_state()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_what_has_no_kernel_is_found() -> None:
    """The tests above would say so."""
    with Recorder() as recorder:
        torch.pdist(torch.rand(3, 2))
    with pytest.raises(AssertionError, match="_pdist_forward"):
        require_kernels(recorder)
    with on_another_gpu() as recorder:
        torch.empty(3, device=GPU).double()
    with pytest.raises(AssertionError, match="_to_copy in "):
        require_kernels(recorder)
