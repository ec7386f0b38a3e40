"""Tensors out of files that torch.save made, without torch and without running anything that is in them.

Nothing is taken by a size that the file only claims: tensors are looked at before their bytes are read, and are no more
than the file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from shoal.encoder.unpickling import BFLOAT16, NotTensorsError, Storage, Tensor, load, refuse, short
from shoal.errors import WeightsError

Tensors = dict[str, npt.NDArray[Any]]

MAGIC: Final = 0x1950A86A20F9469CFC6C  # torch's, of files before the zip format
PROTOCOL: Final = 1001
MOST_PICKLE: Final = 1 << 24  # bytes: the 1,200 tensors of the largest networks take 200,000
WRAPPERS: Final = ("state_dict", "model", "teacher")  # under which training scripts keep the tensors
EXPECTED: Final = "expected a file of plain tensors, made by torch.save"


def read_pth(path: Path) -> Tensors:
    """Tensors by name, in the file's order; what wraps them (see `WRAPPERS`) is taken off.

    They are read-only and contiguous (safetensors writes memory as it lies); bfloat16 is widened to float32.

    Raises:
        WeightsError: the file is not there, is damaged, or holds something other than tensors.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return _zipped(file)
            file.seek(0)
            return _legacy(file)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except NotTensorsError as error:
        raise WeightsError(f"{path}: {error}; {EXPECTED}") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, struct.error) as error:  # what zipfile may raise
        raise WeightsError(f"{path}: its archive is damaged ({short(error)}); {EXPECTED}") from error


def _legacy(file: BinaryIO) -> Tensors:
    """The format before torch 1.6: five pickles, then every storage's count and bytes in the order of the fifth."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = io.BytesIO(file.read(MOST_PICKLE))
    if load(head) != MAGIC:
        refuse("it does not begin as such files do")
    if (protocol := load(head)) != PROTOCOL:
        refuse(f"its format is {short(protocol)}, not {PROTOCOL}")
    system = load(head)
    _check_order("little" if isinstance(system, dict) and system.get("little_endian") is True else "other")
    storages: dict[str, Storage] = {}
    tensors = _tensors(load(head, storages))
    keys = load(head)
    if not isinstance(keys, list) or set(map(_text, keys)) != storages.keys() or len(keys) != len(storages):
        refuse("its list of storages is not that of its pickle")
    wanted = _wanted(tensors)
    at = head.tell()
    if at + sum(8 + storage.size for storage in storages.values()) > end:
        refuse(f"it is cut short: {end:,} bytes are less than its tensors need")
    file.seek(at)
    raw = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if count != storages[key].count:
            refuse(f"storage {short(key)} has {count:,} numbers where {storages[key].count:,} were announced")
        if key in wanted:
            raw[key] = file.read(storages[key].size)
        else:  # of what came with the tensors: an optimiser's
            file.seek(storages[key].size, io.SEEK_CUR)
    return _arrays(tensors, raw, end)


def _zipped(file: BinaryIO) -> Tensors:
    """The format since torch 1.6: an archive, not compressed, with one pickle and a file for every storage."""
    end = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        # All lies in one folder, named as the file was when it was saved.
        members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
        if "byteorder" in members:
            _check_order(_member(archive, members, "byteorder", 16).decode("ascii", "replace"))
        tensors = _tensors(load(io.BytesIO(_member(archive, members, "data.pkl", MOST_PICKLE))))
        storages = _wanted(tensors)
        if sum(storage.size for storage in storages.values()) > end:
            refuse(f"its tensors need more than its {end:,} bytes")
        raw = {}
        for key, storage in storages.items():
            raw[key] = _member(archive, members, f"data/{key}", storage.size)
            if len(raw[key]) != storage.size:
                refuse(f"storage {short(key)} has {len(raw[key]):,} bytes where {storage.size:,} were announced")
    return _arrays(tensors, raw, end)


def _member(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, most: int) -> bytes:
    member = members.get(name)
    if member is None:
        refuse(f"it has no {short(name)}")
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        refuse(f"its {short(name)} is compressed or encrypted")
    if max(member.file_size, member.compress_size) > most:
        refuse(f"its {short(name)} has {member.file_size:,} bytes; at most {most:,} were expected")
    return archive.read(member)


def _check_order(order: str) -> None:
    if order != "little":
        refuse("its numbers are not little-endian")


def _tensors(found: Any) -> dict[str, Tensor]:
    """What the pickle's object has for tensors. Anything else in it is refused."""
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        refuse("it holds no tensors by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            refuse(f"its {short(name)} is no tensor")
    return found


def _wanted(tensors: Mapping[str, Tensor]) -> dict[str, Storage]:
    return {tensor.storage.key: tensor.storage for tensor in tensors.values()}


def _arrays(tensors: Mapping[str, Tensor], raw: Mapping[str, bytes], most: int) -> Tensors:
    """The tensors by their storages' bytes; those that do not lie as they should are copied, `most` bytes in all."""
    found = {name: tensor.of(raw[tensor.storage.key]) for name, tensor in tensors.items()}
    if sum(array.nbytes for array in found.values() if not _is_ready(array)) > most:
        refuse("its tensors overlap, and are more than the file")
    return {name: array if _is_ready(array) else _made_ready(array) for name, array in found.items()}


def _is_ready(array: npt.NDArray[Any]) -> bool:
    return array.flags.c_contiguous and array.dtype != BFLOAT16


def _made_ready(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype == BFLOAT16:
        array = (array["bfloat16"].astype(np.uint32, order="C") << 16).view(np.float32)
    made = array.copy(order="C")
    made.flags.writeable = False
    return made


def _text(key: Any) -> str:
    return key if isinstance(key, str) else ""
