"""Weights out of torch's files without torch: the same tensors, and nothing that is in a file is run or believed."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shoal.encoder.pth import MAGIC, read_pth
from shoal.encoder.weights import EMBEDDED, SIBLINGS
from shoal.errors import WeightsError

FORMATS = pytest.mark.parametrize("zipped", [True, False])


class Storage:
    """Stands for a storage of `count` numbers while a test writes a file by hand."""

    def __init__(self, key: str, count: int, kind: Any = torch.FloatStorage) -> None:
        self.id = ("storage", kind, key, "cpu", count)


class Part:
    """Is called with `arguments` by whoever unpickles it."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.parts = (call, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def tensor(storage: Any, offset: Any = 0, shape: Any = (2,), strides: Any = (1,)) -> Part:
    return Part(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict())


def pickled(value: Any, zipped: bool) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, found: Any) -> Any:
            if isinstance(found, Storage):
                return found.id if zipped else (*found.id, None)
            return None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def write(path: Path, pickle_: bytes, storages: dict[str, bytes], zipped: bool, itemsize: int = 4) -> Path:
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle_)
            archive.writestr("archive/byteorder", "little")
            for key, raw in storages.items():
                archive.writestr(f"archive/data/{key}", raw)
        return path
    head = [MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    parts = [*(pickle.dumps(value, 2) for value in head), pickle_, pickle.dumps(list(storages), 2)]
    for raw in storages.values():
        parts += [struct.pack("<q", len(raw) // itemsize), raw]
    path.write_bytes(b"".join(parts))
    return path


def check_equal(path: Path) -> None:
    expected = torch.load(path, weights_only=True)
    found = read_pth(path)
    assert list(found) == list(expected)
    for name, one in expected.items():
        assert found[name].dtype == one.numpy().dtype
        assert found[name].shape == one.shape
        assert np.array_equal(found[name], one.numpy())
        assert found[name].flags.c_contiguous


@pytest.mark.parametrize("network", [EMBEDDED, *SIBLINGS], ids=lambda network: network.architecture)
def test_the_embedded_networks_tensors_are_torchs(network: Any) -> None:
    path = network.find()
    assert path is not None
    check_equal(path)


@FORMATS
def test_tensors_of_every_kind_are_torchs(tmp_path: Path, zipped: bool) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8)
    state: dict[str, torch.Tensor] = {str(kind): torch.arange(24).view(2, 3, 4).to(kind) for kind in kinds}
    whole = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    state |= {"u8": torch.tensor([0, 255], dtype=torch.uint8), "truth": torch.tensor([True, False])}
    state |= {
        "turned": whole.T,
        "part": whole[2:, 1:3],
        "same": whole,
        "one": torch.tensor(7),
        "none": torch.empty(0, 3),
    }
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    check_equal(tmp_path / "w.pth")


@FORMATS
def test_bfloat16_is_widened(tmp_path: Path, zipped: bool) -> None:
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.save({"a": values.T}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_pth(tmp_path / "w.pth")["a"]
    assert found.dtype == np.float32
    assert np.array_equal(found, values.T.float().numpy())


@FORMATS
def test_what_wraps_the_tensors_is_taken_off(tmp_path: Path, zipped: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 2)).sum().backward()
    optimiser.step()
    saved = {"epoch": 70000, "loss": 0.5, "state_dict": network.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_pth(tmp_path / "w.pth")
    assert list(found) == list(network.state_dict())
    assert np.array_equal(found["0.weight"], network[0].weight.detach().numpy())


@FORMATS
def test_nothing_is_run(tmp_path: Path, zipped: bool) -> None:
    state = {"a": Part(os.system, f"touch {tmp_path / 'run'}")}
    path = write(tmp_path / "w.pth", pickled(state, zipped), {}, zipped)
    with pytest.raises(WeightsError, match=r"names '\w+\.system', which is not run; expected a file of plain tensors"):
        read_pth(path)
    assert not (tmp_path / "run").exists()


SIX = Storage("0", 6)
HOSTILE = {
    "another call": ({"a": Part(eval, "1")}, "names '.*eval', which is not run"),
    "a storage that is called": ({"a": Part(torch.FloatStorage, 10**12)}, "calls what is not to be called"),
    "another storage": ({"a": tensor(Storage("0", 6, torch.nn.Linear))}, "Linear', which is not run"),
    "no storage": ({"a": tensor("0")}, "a tensor has no storage"),
    "beyond the storage": ({"a": tensor(SIX, 5)}, "reaches beyond the 6 numbers of its storage '0'"),
    "before the storage": ({"a": tensor(SIX, -1)}, "no whole numbers from 0"),
    "strides beyond": ({"a": tensor(SIX, 0, (2, 2), (5, 1))}, "reaches beyond"),
    "strides backwards": ({"a": tensor(SIX, 4, (2,), (-1,))}, "no whole numbers from 0"),
    "more numbers than stored": ({"a": tensor(SIX, 0, (10**6, 10**6), (0, 0))}, "reaches beyond"),
    "an endless side beside an empty one": ({"a": tensor(SIX, 0, (0, 10**9, 10**9), (1, 1, 1))}, "more than"),
    "an endless stride": ({"a": tensor(SIX, 0, (1,), (1 << 100,))}, "no whole numbers from 0"),
    "axes without strides": ({"a": tensor(SIX, 0, (2, 2), (1,))}, "not a stride for each"),
    "many axes": ({"a": tensor(SIX, 0, (1,) * 65, (1,) * 65)}, "more than 16 axes"),
    "a size that is not there": ({"a": tensor(Storage("0", 10**15))}, "cut short|need more than"),
    "a size below 0": ({"a": tensor(Storage("0", -6), 0, (0,), (1,))}, "a size below 0"),
    "another size": ({"a": tensor(Storage("0", 5))}, "24 bytes; at most 20|6 numbers where 5"),
    "two sizes": ({"a": tensor(SIX), "b": tensor(Storage("0", 5))}, "of two kinds"),
    "another key": ({"a": tensor(Storage("1", 6))}, "it has no 'data/1'|list of storages"),
    "keys that take long to compare": ({((), ()): 1}, "keys that are neither text nor numbers"),
    "no tensors": ({"a": 1}, "its 'a' is no tensor"),
    "no names": ([tensor(SIX)], "no tensors by name"),
}


@FORMATS
@pytest.mark.parametrize("case", HOSTILE)
def test_files_that_lie_are_refused(tmp_path: Path, zipped: bool, case: str) -> None:
    state, why = HOSTILE[case]
    path = write(tmp_path / "w.pth", pickled(state, zipped), {"0": bytes(24)}, zipped)
    with pytest.raises(WeightsError, match=why) as refused:
        read_pth(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@FORMATS
@pytest.mark.parametrize(("kind", "itemsize"), [(torch.FloatStorage, 4), (torch.BFloat16Storage, 2)])
def test_tensors_that_overlap_are_no_more_than_the_file(tmp_path: Path, zipped: bool, kind: Any, itemsize: int) -> None:
    size = 1 << 16
    storage = Storage("0", size // itemsize, kind)
    half = storage.id[4] // 2
    state = {str(place): tensor(storage, 0, (2, half), (1, 2)) for place in range(5)}
    path = write(tmp_path / "w.pth", pickled(state, zipped), {"0": bytes(size)}, zipped, itemsize)
    with pytest.raises(WeightsError, match="its tensors overlap, and are more than the file"):
        read_pth(path)


@FORMATS
def test_an_honest_file_by_hand_is_read(tmp_path: Path, zipped: bool) -> None:
    raw = np.arange(6, dtype="<f4").tobytes()
    path = write(tmp_path / "w.pth", pickled({"a": tensor(SIX, 1, (2, 2), (3, 1))}, zipped), {"0": raw}, zipped)
    assert read_pth(path)["a"].tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x80\x02" + b"N" + b"r\xff\xff\xff\x7f" + b".",  # a memo of two thousand million places
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # as many bytes
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # as much text
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",  # tuples in tuples
        b"\x80\x02" + b"0.",  # nothing to take
        b"\x80\x02" + b"h\x07.",
        b"cos\nsystem\n.",
    ],
)
@FORMATS
def test_pickles_that_would_break_a_reader_are_refused(tmp_path: Path, zipped: bool, instructions: bytes) -> None:
    path = write(tmp_path / "w.pth", instructions, {}, zipped)
    with pytest.raises(WeightsError, match="expected a file of plain tensors"):
        read_pth(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled({}, True))
    with pytest.raises(WeightsError, match=r"its 'data.pkl' is compressed"):
        read_pth(tmp_path / "w.pth")


def test_a_file_that_is_none_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_pth(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="expected a file of plain tensors"):
        read_pth(tmp_path / "w.pth")


@FORMATS
def test_damage_gives_tensors_or_a_refusal(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2, 3), "b": torch.zeros(4)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    generator = random.Random(0)
    read = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2, 8))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged[: generator.choice((len(damaged), generator.randrange(len(damaged))))])
        try:
            read += all(isinstance(found.sum(), np.generic) for found in read_pth(path).values())
        except WeightsError as error:
            assert "\n" not in str(error)  # noqa: PT017  (most are refused, some damage is not seen)
    assert read
