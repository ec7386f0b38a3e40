"""Encoders: shapes and sizes known from elsewhere, heads, checkpoints of other projects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shoal.encoder import architectures
from shoal.encoder.names import full_name
from shoal.errors import ConfigError, WeightsError
from shoal.train import encoders
from shoal.train.config import EncoderConfig, HeadConfig
from shoal.train.ema import Average
from shoal.train.encoders import ClusterHeads


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("name", sorted(architectures.TRAINABLE))
def test_encoders_give_the_dimensions_they_say(name: str) -> None:
    encoder = architectures.build(name).eval()
    with torch.no_grad():
        assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, encoder.dim)


def test_resnet50v2_is_keras_s() -> None:
    """keras.applications.ResNet50V2(include_top=False) counts 23,564,800 parameters, 45,440 of them statistics."""
    encoder = architectures.ResNet50V2()
    statistics = sum(buffer.numel() for name, buffer in encoder.named_buffers() if "running" in name)
    assert statistics == 45_440
    assert count(encoder) - count(encoder.dense) + statistics == 23_564_800
    shapes: list[tuple[int, ...]] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda module, given, made: shapes.append(tuple(made.shape[1:])))
    encoder.eval()(torch.rand(1, 3, 224, 224))
    assert shapes[2] == (256, 28, 28)
    assert shapes[6] == (512, 14, 14)
    assert shapes[12] == (1024, 7, 7)
    assert shapes[15] == (2048, 7, 7)


def test_resnet18_keeps_small_images_large() -> None:
    """With a classifier of ten, 512 · 10 + 10 of them, ResNet-18 for CIFAR is known to have 11,173,962 parameters."""
    assert count(architectures.resnet18_cifar()) == 11_173_962 - 5_130
    for name, size in (("resnet18-cifar", 32), ("resnet18-stl", 64)):
        model = architectures.build(name).eval()
        assert model.forward_features(torch.rand(1, 3, size, size)).shape[2:] == (4, 4)


def test_the_small_encoder_is_cheap_enough_for_a_cpu() -> None:
    work = 0

    def weigh(module: nn.Module, given: object, made: torch.Tensor) -> None:
        nonlocal work
        work += made.shape[2] * made.shape[3] * module.weight.numel()

    encoder = architectures.build("cpu-small").eval()
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(weigh)
    encoder(torch.rand(1, 3, 32, 32))
    assert 50e6 < work < 130e6


def test_an_unknown_encoder_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="resnet50"):
        architectures.build("resnet5O")


def test_features_are_whitened_by_half() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(4000, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 3
    found, mean, turn = architectures.whitening(mixed)
    before, after = torch.cov(mixed.T), torch.cov(found.T)
    torch.testing.assert_close(after @ after, before, rtol=0.02, atol=0.02)  # the root of the covariance, in its place
    torch.testing.assert_close((mixed - mean) @ turn, found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turn, turn.T)
    assert bool(architectures.whitening(torch.ones(5, 3))[0].isfinite().all())


def test_a_whitened_encoder_is_the_one_inside_until_it_is_fitted(tmp_path: Path) -> None:
    encoder = architectures.build("shoal:whitened/timm/test_resnet").eval()
    assert full_name("whitened/test_resnet") == "shoal:whitened/timm/test_resnet"
    images = torch.rand(40, 3, 32, 32)
    with torch.no_grad():
        raw = encoder.inner(images)
        torch.testing.assert_close(encoder(images), raw)
        encoder.whitening.fit(raw)
        torch.testing.assert_close(encoder(images), architectures.whitening(raw)[0], rtol=1e-3, atol=1e-3)
    for number, tensors in enumerate((encoder.inner.state_dict(), encoder.state_dict())):
        file = tmp_path / f"{number}.safetensors"
        save_file({f"encoder.{key}": tensor for key, tensor in tensors.items()}, file)
        for name in ("whitened/test_resnet", "test_resnet"):  # whitened or not, a start is from what it learned
            again = encoders.encoder(EncoderConfig(name, str(file))).eval()
            with torch.no_grad():
                torch.testing.assert_close(again(images), raw)


def moco_checkpoint(path: Path, model: nn.Module) -> None:
    """As the official project's main_moco.py saves it, of a DistributedDataParallel model with an MLP head."""
    state = {f"module.encoder_q.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"module.encoder_k.{name}": torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    for side in "qk":
        state |= {f"module.encoder_{side}.fc.{layer}.weight": torch.rand(4, 4) for layer in (0, 2)}
        state |= {f"module.encoder_{side}.fc.{layer}.bias": torch.rand(4) for layer in (0, 2)}
    state |= {"module.queue": torch.rand(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    torch.save({"epoch": 800, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}, path)


def test_the_official_moco_checkpoint_loads(tmp_path: Path) -> None:
    made = architectures.from_timm("resnet18").eval()
    moco_checkpoint(tmp_path / "moco.pth.tar", made)
    found = encoders.encoder(EncoderConfig("resnet18", str(tmp_path / "moco.pth.tar"))).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found(images), made(images))


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    save_file({"encoder.stem.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="tensors missing"):
        encoders.encoder(EncoderConfig("resnet18", str(tmp_path / "other.safetensors")))


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (HeadConfig("mlp"), ["Linear", "ReLU", "Linear"]),
        (HeadConfig("mlp", hidden=32, norm=True), ["Linear", "BatchNorm1d", "ReLU", "Linear"]),
        (HeadConfig("keras"), ["Dropout", "Linear", "BatchNorm1d", "ReLU"]),
    ],
)
def test_projection_heads_are_those_of_the_papers(config: HeadConfig, layers: list[str]) -> None:
    head = encoders.projection_head(16, config)
    assert [type(layer).__name__ for layer in head.children()] == layers
    assert head(torch.rand(3, 16)).shape == (3, 128)


def test_stacked_cluster_heads_are_linear_layers_side_by_side() -> None:
    heads = ClusterHeads(6, 4, heads=3)
    features = torch.rand(5, 6)
    logits = heads(features)
    assert logits.shape == (3, 5, 4)
    for head in range(3):
        expected = nn.functional.linear(features, heads.weight[head].T, heads.bias[head, 0])
        torch.testing.assert_close(logits[head], expected)


def test_the_average_follows_and_never_touches_live_weights() -> None:
    live = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = Average(live, 0.9)
    for steps in range(1, 101):
        before = {name: tensor.clone() for name, tensor in average.network.state_dict().items()}
        with torch.no_grad():
            live[0].weight.add_(1.0)
        live(torch.rand(8, 3))
        now = {name: tensor.clone() for name, tensor in live.state_dict().items()}
        average.update(live)
        decay = min(0.9, (1 + steps) / (10 + steps))
        for name in ("0.weight", "1.running_mean", "1.running_var"):
            torch.testing.assert_close(
                average.network.state_dict()[name], decay * before[name] + (1 - decay) * now[name]
            )
        assert average.network[1].num_batches_tracked == steps
        for name, tensor in live.state_dict().items():
            assert torch.equal(tensor, now[name])
    assert decay == 0.9


def test_the_average_of_a_short_training_has_left_its_beginning() -> None:
    live = nn.Linear(3, 3, bias=False)
    average = Average(live, 0.99)
    start = live.weight.detach().clone()
    with torch.no_grad():
        live.weight.add_(1.0)
    for _ in range(30):
        average.update(live)
    assert (average.network.weight - start).min() > 0.9
